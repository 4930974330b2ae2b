"""A store is opened only if its tables and its features are ours, and migrations are repeatable."""

from pathlib import Path

import pytest
import sqlalchemy as sa

from fraud_detection.database import DatabaseRefused
from fraud_detection.features import Feature, FeatureList, default_features
from fraud_detection.store import Store
from tests.support.older_store import make_older_store
from tests.support.refusal import refusal

OTHER = FeatureList((Feature("amount"), Feature("age_days")))


def test_a_database_without_tables_says_how_to_make_them(location: str | Path) -> None:
    if isinstance(location, Path):
        location.parent.mkdir()
        location.touch()

    refused = refusal(location)

    assert refused.reason == "missing"
    assert "fraudctl bootstrap" in str(refused)


def test_another_programs_requests_table_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "requests.db"
    engine = sa.create_engine(f"sqlite:///{path}")
    with engine.begin() as connection:
        connection.exec_driver_sql("CREATE TABLE requests (id INTEGER PRIMARY KEY, V1 REAL)")
    engine.dispose()

    refused = refusal(path)
    with pytest.raises(DatabaseRefused) as not_migrated:
        Store.create_or_migrate(path, default_features())

    assert (refused.reason, not_migrated.value.reason) == ("not_ours", "not_ours")
    assert "import-db" in str(refused)
    assert not (tmp_path / ".requests.db.initialised").exists()


def test_a_store_of_another_feature_list_is_refused(store: Store) -> None:
    refused = refusal(store.location, OTHER)

    assert refused.reason == "other_features"
    assert "set FEATURES_FILE" in str(refused)


def test_a_store_of_one_feature_is_told_in_the_singular(tmp_path: Path) -> None:
    Store.create_or_migrate(tmp_path / "one.db", FeatureList((Feature("amount"),))).close()

    assert "another feature list (1 feature: amount), this" in str(refusal(tmp_path / "one.db", OTHER))


def test_only_a_store_that_we_would_damage_is_too_new(store: Store) -> None:
    with store.begin() as connection:
        connection.execute(sa.text("UPDATE alembic_version SET version_num = '0099'"))
    Store.open(store.location, store.features).close()
    Store.create_or_migrate(store.location, store.features).close()

    with store.begin() as connection:
        store.set_meta(connection, "oldest_writer", "99")

    assert refusal(store.location).reason == "too_new"


def test_migrating_twice_writes_nothing(store: Store) -> None:
    if isinstance(store.location, Path):
        before = store.location.with_name("requests.db-wal").stat().st_size

        Store.create_or_migrate(store.location, store.features).close()

        assert store.location.with_name("requests.db-wal").stat().st_size == before


def test_the_migrations_make_what_the_schema_describes(store: Store) -> None:
    found = sa.inspect(store.engine)

    for table in store.tables.metadata.sorted_tables:
        columns = {
            column["name"]: (column["type"].compile(store.engine.dialect), column["nullable"])
            for column in found.get_columns(table.name)
        }
        assert columns == {
            column.name: (column.type.compile(store.engine.dialect), bool(column.nullable)) for column in table.columns
        }
        described = {index.name for index in table.indexes}
        # SQLite lists the index behind a UNIQUE constraint on PostgreSQL alone
        indexes = {index["name"] for index in found.get_indexes(table.name) if not index.get("duplicates_constraint")}
        assert described == indexes


def test_a_store_of_the_first_revision_gets_the_indexes_of_later_ones(
    location: str | Path, features: FeatureList
) -> None:
    make_older_store(1, location, features).close()  # opens it: a job may come before the API has migrated

    migrated = Store.create_or_migrate(location, features)
    found = sa.inspect(migrated.engine)
    requests, labels = ({index["name"] for index in found.get_indexes(table)} for table in ("requests", "labels"))
    migrated.close()

    assert "ix_requests_newest" in requests
    assert "ix_labels_newest" in labels
    assert "ix_requests_transaction_id" not in requests


def test_the_newest_migration_is_the_revision_of_the_schema() -> None:
    from alembic.config import Config  # noqa: PLC0415
    from alembic.script import ScriptDirectory  # noqa: PLC0415

    from fraud_detection.schema import REVISION  # noqa: PLC0415

    config = Config()
    config.set_main_option("script_location", "fraud_detection:migrations")

    assert ScriptDirectory.from_config(config).get_current_head() == f"{REVISION:04d}"


def test_an_error_does_not_list_what_was_to_be_stored(store: Store) -> None:
    meta = store.tables.schema_meta

    with pytest.raises(sa.exc.IntegrityError) as refused, store.begin() as connection:
        connection.execute(sa.insert(meta).values(key=None, value="0.987654321"))

    assert "[SQL parameters hidden due to hide_parameters=True]" in str(refused.value)
