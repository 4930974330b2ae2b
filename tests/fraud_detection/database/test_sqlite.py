"""SQLite is opened durably, and a file or file system that could lose rows is refused."""

import subprocess
from pathlib import Path

import pysqlite3
import pytest
import sqlalchemy as sa

from fraud_detection.database import DatabaseRefused, sqlite
from fraud_detection.features import FeatureList
from fraud_detection.store import Store
from tests.support.refusal import refusal


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


def test_a_lost_database_is_not_silently_replaced_by_an_empty_one(sqlite_store: Store, features: FeatureList) -> None:
    assert isinstance(sqlite_store.location, Path)
    sqlite_store.close()
    for path in sqlite_store.location.parent.glob("requests.db*"):
        path.unlink()

    with pytest.raises(DatabaseRefused, match="a database was here and is gone") as refused:
        Store.create_or_migrate(sqlite_store.location, features)

    assert refused.value.reason == "lost"


def test_no_later_connection_makes_a_database_that_vanished_anew(sqlite_store: Store) -> None:
    assert isinstance(sqlite_store.location, Path)
    sqlite_store.close()
    sqlite_store.location.unlink()

    with pytest.raises(sa.exc.OperationalError, match="unable to open"), sqlite_store.engine.connect():
        pass
    assert not sqlite_store.location.exists()


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


def test_a_store_is_closed_to_others(tmp_path: Path, features: FeatureList) -> None:
    Store.create_or_migrate(tmp_path / "requests.db", features).close()

    assert (tmp_path / "requests.db").stat().st_mode & 0o007 == 0
