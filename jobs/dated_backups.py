"""A row of backups in one folder: a new one under the date, proved by reading it back, and only then the oldest go."""

import re
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from fraud_detection.features import FeatureList
from fraud_detection.settings import JobSettings
from jobs.backup import Backup, back_up
from jobs.restore import unpacked, verify

_OURS = re.compile(r"fraud-detection-\d{8}T\d{6}Z\.tar\.gz")


@dataclass(frozen=True)
class DatedBackup:
    """Where the new backup is, what it holds, and which ones made room for it."""

    path: Path
    backup: Backup
    deleted: list[Path]


def back_up_into(
    folder: Path, settings: JobSettings, features: FeatureList, *, now: datetime, keep: int | None = None
) -> DatedBackup:
    """Write a backup named by its moment and, with `keep`, leave no more than so many of that name in the folder.

    The new one is unpacked and verified as a restore would do it, for which the folder needs room next to the backups;
    when that fails it goes, and every older one stays.

    Raises as `back_up` and `verify`.
    """
    path = folder / f"fraud-detection-{now.astimezone(UTC):%Y%m%dT%H%M%SZ}.tar.gz"
    backup = back_up(path, settings, features, now=now)
    try:
        with unpacked(path, beside=folder) as content:
            verify(content, features)
    except BaseException:
        path.unlink()  # it could never be restored, and would count as one of those to keep
        raise
    deleted = [] if keep is None else _older(folder, path)[keep - 1 :]
    for old in deleted:
        old.unlink()
    return DatedBackup(path, backup, deleted)


def _older(folder: Path, newest: Path) -> list[Path]:
    """Return the other backups, the newest first; a clock that was set back makes none of them newer than this one."""
    ours = [path for path in folder.iterdir() if _OURS.fullmatch(path.name) and path != newest]
    return sorted(ours, reverse=True)
