"""OpenFiles notices each way in which the files of an open database vanish, and ignores ordinary use."""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from fraud_detection.database.open_files import OpenFiles, StoreVanished
from fraud_detection.database.sqlite import empty_wal
from fraud_detection.features import FeatureList
from fraud_detection.store import Store
from tests.support.vanishing import VANISHING

NAMED = {
    "the database is removed": "data/requests.db: was removed or moved away",
    "the database is moved": "data/requests.db: was removed or moved away",
    "a link is left where the database was": "data/requests.db: was replaced by another",
    "another database is moved over it": "data/requests.db: was replaced by another",
    "the log is removed": "data/requests.db-wal: was removed or moved away",
    "another log is moved over it": "data/requests.db-wal: was replaced by another",
    "the locks are removed": "data/requests.db-shm: was removed or moved away",
    "other locks are moved over them": "data/requests.db-shm: was replaced by another",
    "the folder is deleted": "data: was removed or moved away",
    "the folder is moved": "data: was removed or moved away",
    "the folder is replaced by a copy": "data: was replaced by another",
}


@pytest.fixture
def database(sqlite_store: Store) -> Iterator[Path]:
    """The path of a store that one connection has open."""
    assert isinstance(sqlite_store.location, Path)
    with sqlite_store.engine.connect():
        yield sqlite_store.location


@pytest.mark.parametrize("way", VANISHING)
def test_what_vanished_is_named(database: Path, way: str) -> None:
    files = OpenFiles(database)
    files.require_unchanged()
    VANISHING[way](database)

    with pytest.raises(StoreVanished, match=NAMED[way]):
        files.require_unchanged()


def write_and_checkpoint(store: Store) -> None:
    with store.begin() as connection:
        store.set_meta(connection, "probe", "x" * 100_000)
    with store.engine.connect() as connection:
        assert empty_wal(connection, busy_timeout_ms=0)


def open_and_close(store: Store) -> None:
    Store.create_or_migrate(store.location, store.features).close()


def copy_the_folder(store: Store) -> None:
    assert isinstance(store.location, Path)
    shutil.copytree(store.location.parent, store.location.parent.with_name("copy"))
    (store.location.parent / "another file").touch()


@pytest.mark.parametrize("use", [write_and_checkpoint, open_and_close, copy_the_folder])
def test_ordinary_use_changes_no_file(sqlite_store: Store, database: Path, use: Callable[[Store], None]) -> None:
    files = OpenFiles(database)

    use(sqlite_store)

    files.require_unchanged()


def test_a_link_that_leads_elsewhere_is_a_replaced_database(tmp_path: Path, features: FeatureList) -> None:
    link = tmp_path / "link.db"
    (tmp_path / "real").mkdir()
    (tmp_path / "real" / "requests.db").touch()
    link.symlink_to("real/requests.db")
    store = Store.create_or_migrate(link, features)
    files = OpenFiles(link)
    files.require_unchanged()
    (tmp_path / "another.db").touch()
    link.unlink()
    link.symlink_to("another.db")

    with pytest.raises(StoreVanished, match=r"link\.db: was replaced by another"):
        files.require_unchanged()
    store.close()


def test_a_link_left_where_the_target_of_a_link_was_is_a_replaced_database(
    tmp_path: Path, features: FeatureList
) -> None:
    link, target = tmp_path / "link.db", tmp_path / "target.db"
    link.symlink_to(target)
    target.touch()
    store = Store.create_or_migrate(link, features)
    files = OpenFiles(link)
    files.require_unchanged()
    VANISHING["a link is left where the database was"](target)

    with pytest.raises(StoreVanished, match=r"target\.db: was replaced by another"):
        files.require_unchanged()
    store.close()


def test_a_path_through_a_folder_that_is_a_link_is_ordinary_use(sqlite_store: Store, database: Path) -> None:
    link = database.parent.with_name("link")
    link.symlink_to(database.parent)

    OpenFiles(link / database.name).require_unchanged()


def test_a_file_that_a_path_still_leads_to_although_its_name_is_gone_is_a_removed_one(
    sqlite_store: Store, database: Path, tmp_path: Path
) -> None:
    """As with a file that a container mounts: it stays at its path in there."""
    with database.open("rb") as opened:
        mount = tmp_path / "mount.db"
        mount.symlink_to(f"/proc/self/fd/{opened.fileno()}")
        files = OpenFiles(mount)
        files.require_unchanged()
        database.unlink()

        with pytest.raises(StoreVanished, match=r"mount\.db: was removed"):
            files.require_unchanged()


def test_a_file_that_was_replaced_while_it_was_opened_does_not_pass_for_the_open_one(database: Path) -> None:
    VANISHING["another database is moved over it"](database)

    with pytest.raises(StoreVanished, match="while the API opened it; start the API again"):
        OpenFiles(database)


def test_sqlite_may_remove_the_log_when_the_last_connection_closes(sqlite_store: Store) -> None:
    assert isinstance(sqlite_store.location, Path)
    files = OpenFiles(sqlite_store.location)
    sqlite_store.engine.dispose()

    files.forget_closed_log()
    files.require_unchanged()
    with sqlite_store.engine.connect():
        files.note_reopened_log()
        VANISHING["the log is removed"](sqlite_store.location)
        with pytest.raises(StoreVanished, match="-wal: was removed"):
            files.require_unchanged()


def test_a_log_that_another_connection_has_open_is_not_forgotten(sqlite_store: Store, database: Path) -> None:
    files = OpenFiles(database)
    VANISHING["the log is removed"](database)

    files.forget_closed_log()

    with pytest.raises(StoreVanished, match="-wal: was removed"):
        files.require_unchanged()
