import subprocess
from pathlib import Path

import pysqlite3
import pytest
import sqlalchemy as sa

from fraud_detection.database import DatabaseRefused, sqlite
from fraud_detection.database.engine import open_engine
from fraud_detection.database.postgresql import limit_statements
from fraud_detection.database.trouble import trouble
from fraud_detection.features import Feature, FeatureList, default_features
from fraud_detection.store import Store, transfer

OTHER = FeatureList((Feature("amount"), Feature("age_days")))


def refusal(location: str | Path, features: FeatureList | None = None) -> DatabaseRefused:
    with pytest.raises(DatabaseRefused) as refused:
        Store.open(location, features or default_features())
    return refused.value


def test_sqlite_is_opened_the_one_correct_way(sqlite_store: Store) -> None:
    with sqlite_store.engine.connect() as connection:
        pragmas = {
            name: connection.exec_driver_sql(f"PRAGMA {name}").scalar()
            for name in ("journal_mode", "synchronous", "foreign_keys", "auto_vacuum", "application_id", "page_size")
        }

    assert pragmas == {
        "journal_mode": "wal",
        "synchronous": 2,
        "foreign_keys": 1,
        "auto_vacuum": 2,
        "application_id": 0x46726175,
        "page_size": 4096,
    }


def test_an_sqlite_that_can_corrupt_is_refused(sqlite_store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pysqlite3, "sqlite_version_info", (3, 51, 2))

    assert refusal(sqlite_store.location).reason == "sqlite_too_old"


def test_a_network_file_system_is_refused_unless_allowed(sqlite_store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite, "file_system", lambda _path: "nfs4")

    assert refusal(sqlite_store.location).reason == "network_filesystem"
    Store.open(sqlite_store.location, sqlite_store.features, allow_network_filesystem=True).close()


def test_the_file_system_is_what_the_kernel_says(tmp_path: Path) -> None:
    told = subprocess.run(["stat", "-f", "-c", "%T", tmp_path], check=True, capture_output=True, text=True).stdout

    assert sqlite.file_system(tmp_path / "file")[:3] == told[:3]


def test_a_missing_database_is_not_made_by_opening(tmp_path: Path) -> None:
    assert refusal(tmp_path / "none.db").reason == "missing"
    assert list(tmp_path.iterdir()) == []


def test_a_lost_database_is_not_silently_begun_anew(sqlite_store: Store, features: FeatureList) -> None:
    assert isinstance(sqlite_store.location, Path)
    sqlite_store.close()
    for path in sqlite_store.location.parent.glob("requests.db*"):
        path.unlink()

    with pytest.raises(DatabaseRefused, match="a database was here and is gone") as refused:
        Store.create_or_migrate(sqlite_store.location, features)

    assert refused.value.reason == "lost"


def test_a_damaged_file_is_refused_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "requests.db"
    path.write_bytes(b"this is no database " * 500)

    assert refusal(path).reason == "corrupt"
    assert path.read_bytes().startswith(b"this is no database")


def test_a_damaged_schema_is_refused(sqlite_store: Store) -> None:
    assert isinstance(sqlite_store.location, Path)
    sqlite_store.close()  # the last one to close folds the WAL into the file
    content = bytearray(sqlite_store.location.read_bytes())
    content[100:4096] = b"\xff" * (4096 - 100)
    sqlite_store.location.write_bytes(content)

    assert refusal(sqlite_store.location).reason == "corrupt"


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
        columns = {column["name"]: column["nullable"] for column in found.get_columns(table.name)}
        assert columns == {column.name: bool(column.nullable) for column in table.columns}
        described = {index.name for index in table.indexes}
        # SQLite lists the index behind a UNIQUE constraint on PostgreSQL alone
        indexes = {index["name"] for index in found.get_indexes(table.name) if not index.get("duplicates_constraint")}
        assert described == indexes


def test_the_newest_migration_is_the_revision_of_the_schema() -> None:
    from alembic.config import Config  # noqa: PLC0415
    from alembic.script import ScriptDirectory  # noqa: PLC0415

    from fraud_detection.schema import REVISION  # noqa: PLC0415

    config = Config()
    config.set_main_option("script_location", "fraud_detection:migrations")

    assert ScriptDirectory.from_config(config).get_current_head() == f"{REVISION:04d}"


def test_a_postgresql_that_may_lose_commits_is_refused(postgresql_database: str) -> None:
    Store.create_or_migrate(postgresql_database, default_features()).close()
    careless = sa.make_url(postgresql_database).update_query_dict({"options": "-c synchronous_commit=off"})

    assert refusal(careless.render_as_string(hide_password=False)).reason == "not_durable"


def test_a_database_without_an_encoding_of_its_own_holds_text_all_the_same(postgresql_database: str) -> None:
    url = sa.make_url(postgresql_database)
    server = sa.create_engine(url, isolation_level="AUTOCOMMIT")
    with server.connect() as connection:
        connection.exec_driver_sql(
            f"CREATE DATABASE {url.database}_ascii ENCODING 'SQL_ASCII' LOCALE 'C' TEMPLATE template0"
        )
    url = url.set(database=f"{url.database}_ascii")

    store = Store.create_or_migrate(url.render_as_string(hide_password=False), default_features())
    with store.begin() as connection:
        store.set_meta(connection, "name", "größer")
        found = store.get_meta(connection, "name")
    store.close()
    with server.connect() as connection:
        connection.exec_driver_sql(f"DROP DATABASE {url.database}")
    server.dispose()

    assert found == "größer"


def test_an_unreachable_server_is_named_without_its_password() -> None:
    refused = refusal("postgresql+psycopg://user:geheim@127.0.0.1:1/none")

    assert refused.reason == "unreachable"
    assert "geheim" not in str(refused)


def test_an_error_does_not_list_what_was_to_be_stored(store: Store) -> None:
    meta = store.tables.schema_meta

    with pytest.raises(sa.exc.IntegrityError) as refused, store.begin() as connection:
        connection.execute(sa.insert(meta).values(key=None, value="0.987654321"))

    assert "[SQL parameters hidden due to hide_parameters=True]" in str(refused.value)


def test_a_copy_refuses_to_overwrite_and_postgresql_has_no_file(store: Store, tmp_path: Path) -> None:
    target = tmp_path / "copy.db"
    if isinstance(store.location, str):
        with pytest.raises(TypeError, match="pg_dump"):
            transfer.copy_to(store, target)
        return

    transfer.copy_to(store, target)

    assert target.stat().st_mode & 0o777 == 0o600
    with pytest.raises(FileExistsError):
        transfer.copy_to(store, target)


def test_trouble_is_what_storage_fails_at_and_not_what_a_statement_does_wrong(store: Store) -> None:
    with store.engine.connect() as connection, pytest.raises(sa.exc.DBAPIError) as wrong:
        connection.execute(sa.text("INSERT INTO schema_meta (key, value) VALUES ('twice', ''), ('twice', '')"))

    assert trouble(wrong.value) is None
    assert trouble(ValueError("no error of a database")) is None
    assert trouble(DatabaseRefused("unreachable", "gone")) == "failed"
    assert trouble(DatabaseRefused("corrupt", "damaged")) == "corrupt"


def test_a_statement_has_its_limit_on_postgresql(store: Store) -> None:
    with store.engine.connect() as connection:
        limit_statements(connection, 50)
        if connection.dialect.name == "sqlite":
            return  # its busy timeout limits it already
        with pytest.raises(sa.exc.OperationalError) as late:
            connection.execute(sa.text("SELECT pg_sleep(5)"))

    assert trouble(late.value) == "busy"


def test_a_connection_to_nobody_is_trouble(tmp_path: Path) -> None:
    engine = open_engine(f"postgresql+psycopg://tester@/postgres?host={tmp_path}")
    with pytest.raises(sa.exc.OperationalError) as lost:
        engine.connect()

    assert trouble(lost.value) == "failed"


def test_a_store_is_closed_to_others(tmp_path: Path, features: FeatureList) -> None:
    Store.create_or_migrate(tmp_path / "requests.db", features).close()

    assert (tmp_path / "requests.db").stat().st_mode & 0o007 == 0
