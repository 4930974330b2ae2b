"""OpenFiles notices each way in which the files of an open database vanish, and ignores ordinary use."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from fraud_detection.database import open_files
from fraud_detection.database.open_files import OpenFiles, StoreVanished
from fraud_detection.database.sqlite import BUSY_TIMEOUT_MS, empty_wal
from fraud_detection.features import FeatureList
from fraud_detection.store import Store
from tests.support.vanishing import TEARING, VANISHING

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


TORN = {
    "the log is truncated": "data/requests.db-wal: was truncated or overwritten",
    "the end of the log is cut off": "data/requests.db-wal: was truncated or overwritten",
    "the log is overwritten": "data/requests.db-wal: was truncated or overwritten",
    "the database is truncated": "data/requests.db: was truncated or overwritten",
}


def write(store: Store) -> None:
    with store.begin() as connection:
        store.set_meta(connection, "probe", "x" * 100_000)


@pytest.mark.parametrize("way", TEARING)
@pytest.mark.parametrize("is_written_later", [False, True], ids=["at rest", "before a commit"])
def test_a_file_that_lost_its_content_is_named(
    sqlite_store: Store, database: Path, way: str, is_written_later: bool
) -> None:
    files = OpenFiles(database)
    write(sqlite_store)
    files.require_unchanged()
    TEARING[way](database)
    if is_written_later:  # after which the log is as long as it should be
        write(sqlite_store)

    with pytest.raises(StoreVanished, match=TORN[way]):
        files.require_unchanged()
    assert files.is_torn


def test_a_log_that_lost_frames_before_they_were_seen_is_named(sqlite_store: Store, database: Path) -> None:
    files = OpenFiles(database)
    files.require_unchanged()
    write(sqlite_store)
    TEARING["the end of the log is cut off"](database)

    with pytest.raises(StoreVanished, match=TORN["the log is truncated"]):
        files.require_unchanged()


def test_a_database_that_lost_pages_after_a_checkpoint_is_named(sqlite_store: Store, database: Path) -> None:
    files = OpenFiles(database)
    write_and_checkpoint(sqlite_store)
    files.require_unchanged()
    os.truncate(database, database.stat().st_size - 4096)

    with pytest.raises(StoreVanished, match=TORN["the database is truncated"]):
        files.require_unchanged()


def test_a_descriptor_that_was_closed_and_used_again_is_found_anew(sqlite_store: Store, tmp_path: Path) -> None:
    assert isinstance(sqlite_store.location, Path)
    with sqlite_store.engine.connect() as first:
        files = OpenFiles(sqlite_store.location)  # which finds the descriptors of the first connection
        with sqlite_store.engine.connect():
            first.invalidate()
            others = [(tmp_path / f"{number}").open("wb") for number in range(20)]
            write(sqlite_store)

            files.require_unchanged()
    for other in others:
        other.close()


WRITE_CHECKPOINT_AND_VACUUM = """
import sys, pysqlite3
opened = pysqlite3.connect(sys.argv[1], isolation_level=None, timeout=30)
opened.execute("PRAGMA wal_autocheckpoint=20")
opened.execute("CREATE TABLE other (value)")
for turn in range(60):
    opened.execute("INSERT INTO other VALUES (zeroblob(?))", (turn * 1000,))
    opened.execute(("PRAGMA wal_checkpoint(TRUNCATE)", "DELETE FROM other", "SELECT 1", "VACUUM", "SELECT 1")[turn % 5])
    opened.execute("PRAGMA incremental_vacuum")
"""


def test_what_other_processes_write_at_the_same_time_is_no_loss(sqlite_store: Store, database: Path) -> None:
    files = OpenFiles(database)
    looks = 0
    with subprocess.Popen([sys.executable, "-c", WRITE_CHECKPOINT_AND_VACUUM, database]) as other:
        while other.poll() is None:
            write(sqlite_store)
            for _ in range(50):
                files.require_unchanged()
                looks += 1

    assert (other.returncode, looks > 100) == (0, True)


def test_a_log_that_another_process_empties_during_each_look_is_no_loss(
    sqlite_store: Store, database: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = OpenFiles(database)
    read = open_files._read

    def read_between_a_commit_and_a_checkpoint(*where: int) -> bytes:
        write(sqlite_store)
        content = read(*where)
        write_and_checkpoint(sqlite_store)
        return content

    monkeypatch.setattr(open_files, "_read", read_between_a_commit_and_a_checkpoint)

    files.require_unchanged()


def write_and_checkpoint(store: Store) -> None:
    write(store)
    with store.engine.connect() as connection:
        assert empty_wal(connection, busy_timeout_ms=BUSY_TIMEOUT_MS)


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
