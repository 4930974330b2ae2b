"""An installation opens its stores, leaves out absent history, and holds the promoter's lock."""

from contextlib import closing
from pathlib import Path

import pytest
import sqlalchemy as sa

from fraud_detection.database import DatabaseRefused
from fraud_detection.features import FeatureList
from fraud_detection.lock import LockHeld
from fraud_detection.settings import JobSettings
from fraud_detection.store import Store
from jobs.installation import Installation
from tests.support.installation import FEATURES, SmallInstallation


@pytest.fixture
def two_files(tmp_path: Path, features: FeatureList) -> Installation:
    """An installation with a file of its own for history; neither file exists."""
    variables = {"LATEST_DB": str(tmp_path / "live.db"), "TRAIN_DB": str(tmp_path / "history.db")}
    return Installation(JobSettings.from_env(variables), features)


def test_it_is_read_from_the_feature_list_that_the_settings_name(installation: SmallInstallation) -> None:
    here = Installation.of(installation.settings)

    assert here.features.names == FEATURES.names
    assert here.models_dir == installation.models_dir
    assert here.journal() == []


def test_history_that_was_never_imported_is_left_out(two_files: Installation) -> None:
    Store.create_or_migrate(two_files.settings.latest_db, two_files.features).close()

    with two_files.stores() as stores:
        assert [store.location for store in stores] == [two_files.settings.latest_db]


def test_an_installation_without_any_store_is_refused_by_the_name_of_the_apis(two_files: Installation) -> None:
    with pytest.raises(DatabaseRefused, match=r"live\.db") as refused, two_files.stores():
        pass

    assert refused.value.reason == "missing"
    with two_files.stores(may_be_none=True) as stores:
        assert stores == []


def test_a_damaged_store_is_never_left_out(two_files: Installation) -> None:
    Store.create_or_migrate(two_files.settings.latest_db, two_files.features).close()
    two_files.settings.train_db.write_bytes(b"no database" * 1000)

    with pytest.raises(DatabaseRefused) as refused, two_files.stores(may_be_none=True):
        pass

    assert refused.value.reason == "corrupt"


def test_a_store_is_opened_for_reading_unless_asked_otherwise(installation: SmallInstallation) -> None:
    with (
        closing(installation.here.open_store()) as store,
        pytest.raises(sa.exc.OperationalError, match="readonly"),
        store.begin() as connection,
    ):
        store.set_meta(connection, "key", "value")

    with closing(installation.here.open_store(read_only=False)) as store, store.begin() as connection:
        store.set_meta(connection, "key", "value")


def test_one_promoter_at_a_time_on_each_database(installation: SmallInstallation, location: str | Path) -> None:
    if isinstance(location, str):
        installation.variables["DATABASE_URL"] = location

    with installation.here.promoter(), pytest.raises(LockHeld), installation.here.promoter():
        pass

    with installation.here.promoter():
        assert installation.models_dir.is_dir()
