"""Dated backups are verified, and only the newest are kept."""

import os
import tarfile
from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fraud_detection.lock import LockHeld, promoter
from fraud_detection.model.read import Model
from fraud_detection.settings import JobSettings
from fraud_detection.store import Store, transfer
from fraud_detection.store.transfer import ImportedRows
from jobs.installation import Installation
from jobs.upkeep.backup import scratch_folder
from jobs.upkeep.dated_backups import DatedBackup, back_up_into
from jobs.upkeep.restore import BadBackup, restore, verify

NIGHT = datetime(2026, 11, 24, 2, 0, tzinfo=UTC)
Take = Callable[..., DatedBackup]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "backups"


@pytest.fixture
def take(sqlite_store: Store, model: Model, sqlite_environment: dict[str, str], folder: Path) -> Take:
    """Take a backup as on a later night: take(3, keep=7)."""
    sqlite_store.close()
    settings = JobSettings.from_env(sqlite_environment)

    def night(number: int, *, keep: int | None = None) -> DatedBackup:
        return back_up_into(
            folder, Installation(settings, sqlite_store.features), now=NIGHT + timedelta(days=number), keep=keep
        )

    return night


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def name(day: int) -> str:
    return f"fraud-detection-202611{day}T020000Z.tar.gz"


def test_is_named_by_its_moment_in_utc_and_can_be_restored(
    sqlite_store: Store, model: Model, sqlite_environment: dict[str, str], folder: Path
) -> None:
    sqlite_store.close()
    settings = JobSettings.from_env(sqlite_environment)
    elsewhere = NIGHT.astimezone(timezone(timedelta(hours=-9)))

    taken = back_up_into(folder, Installation(settings, sqlite_store.features), now=elsewhere)

    assert taken.path == folder / "fraud-detection-20261124T020000Z.tar.gz"
    assert names(folder) == [taken.path.name]
    restored = restore(taken.path, Installation(settings, sqlite_store.features), actor="test", replace=True)
    assert restored.backup == taken.backup


def test_only_the_newest_stay(take: Take, folder: Path) -> None:
    for night in range(3):
        take(night)

    taken = take(3, keep=2)

    assert names(folder) == [name(26), name(27)]
    assert sorted(path.name for path in taken.deleted) == [name(24), name(25)]


def test_without_keep_all_stay(take: Take, folder: Path) -> None:
    assert [take(night).deleted for night in range(3)] == [[], [], []]

    assert names(folder) == [name(24), name(25), name(26)]


def test_files_of_other_names_stay(take: Take, folder: Path) -> None:
    folder.mkdir()
    others = [
        "fraud-detection-20200101T000000Z.tar",
        "fraud-detection-20200101T000000Z.tar.gz.part",
        "before-the-move-fraud-detection-20200101T000000Z.tar.gz",
        "fraud-detection-2020.tar.gz",
        "lost+found",
    ]
    for other in others:
        (folder / other).write_text("somebody's")
    take(0)

    take(1, keep=1)

    assert names(folder) == sorted([*others, name(25)])


def test_one_of_a_later_moment_stays_and_is_not_counted(take: Take, folder: Path) -> None:
    """The clock was set back, or another backup into this folder started later and is not verified yet."""
    for night in (0, 1, 5):
        take(night)

    taken = take(2, keep=2)

    assert [path.name for path in taken.deleted] == [name(24)]
    assert names(folder) == [name(25), name(26), name(29)]


def test_no_other_backup_starts_before_this_one_is_verified_and_older_ones_are_deleted(
    take: Take, sqlite_environment: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    take(0)
    models_dir = JobSettings.from_env(sqlite_environment).models_dir
    seen = []

    def watched(step: str, run: Callable[..., Any]) -> Callable[..., Any]:
        def try_the_lock_and_run(*arguments: Any, **options: Any) -> Any:
            if step == "verify" or arguments[0].name == name(24):
                with pytest.raises(LockHeld), promoter(models_dir):
                    pass
                seen.append(step)
            return run(*arguments, **options)

        return try_the_lock_and_run

    monkeypatch.setattr("jobs.upkeep.dated_backups.verify", watched("verify", verify))
    monkeypatch.setattr(Path, "unlink", watched("delete", Path.unlink))

    take(1, keep=1)

    assert seen == ["verify", "delete"]


def test_a_backup_that_cannot_be_restored_is_deleted_and_the_older_ones_stay(
    take: Take, sqlite_store: Store, folder: Path
) -> None:
    take(0)
    rows = ImportedRows("r", ["2026-01-01 00:00:00.000000"], np.zeros((1, 29)), [True], [None])
    with sqlite_store.begin() as connection:
        transfer.import_history(
            sqlite_store, connection, [rows], reporter="r", received_at="2026-01-01 00:00:00.000000"
        )
        connection.execute(sqlite_store.tables.requests.update().values({"V1": float("inf")}))
    sqlite_store.close()

    with pytest.raises(BadBackup, match="not a number in range"):
        take(1, keep=1)

    assert names(folder) == [name(24)]


def test_a_backup_that_fails_deletes_no_older_one(take: Take, folder: Path, sqlite_environment: dict[str, str]) -> None:
    take(0)
    Path(sqlite_environment["LATEST_DB"]).write_bytes(b"damaged" * 1000)

    with pytest.raises(Exception, match="damaged"):
        take(1, keep=1)

    assert names(folder) == [name(24)]


def test_the_leftovers_of_a_killed_backup_are_deleted_the_next_night(take: Take, folder: Path) -> None:
    for left in (".backup-killed", ".restore-killed"):
        (folder / left / "backup").mkdir(parents=True)
    with scratch_folder(folder, ".backup-") as at_work:
        for left, hours in ((".backup-killed", 1), (".restore-killed", 24), (at_work.name, 1)):
            moment = datetime.now(UTC).timestamp() - hours * 3600
            os.utime(folder / left, (moment, moment))

        taken = take(0)

        assert names(folder) == [at_work.name, taken.path.name]


def test_what_is_named_like_a_backup_and_is_no_file_stays(take: Take, folder: Path) -> None:
    kept = folder.parent / "kept.tar.gz"
    with tarfile.open(kept, "w:gz"):
        pass
    folder.mkdir()
    (folder / name(20)).symlink_to(kept)
    (folder / name(21)).mkdir()

    taken = take(0, keep=1)

    assert taken.deleted == []
    assert names(folder) == [name(20), name(21), name(24)]
    assert kept.exists()
