"""A row of backups in one folder: a new one under the date, proved by reading it back, and only then the oldest go."""

import re
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from jobs.installation import Installation
from jobs.upkeep.backup import Backup, write_backup
from jobs.upkeep.restore import unpacked, verify

_OURS = re.compile(r"fraud-detection-\d{8}T\d{6}Z\.tar\.gz")


@dataclass(frozen=True)
class DatedBackup:
    """Where the new backup is, what it holds, and which ones made room for it."""

    path: Path
    backup: Backup
    deleted: list[Path]


def back_up_into(folder: Path, here: Installation, *, now: datetime, keep: int | None = None) -> DatedBackup:
    """Write a backup named by its moment and, with `keep`, leave only the newest `keep` up to it in the folder.

    The new one is unpacked and verified as a restore would do it, for which the folder needs room next to the backups;
    when that fails it goes, and every older one stays. One of a later moment always stays and is not counted: a clock
    was set back, and nobody knows whether that one was verified.

    Raises as `back_up` and `verify`.
    """
    path = folder / f"fraud-detection-{now.astimezone(UTC):%Y%m%dT%H%M%SZ}.tar.gz"
    with here.promoter():  # to the end: two at once would each delete what the other has not verified yet
        backup = write_backup(path, here, now=now)
        try:
            with unpacked(path, beside=folder) as content:
                verify(content, here.features)
        except BaseException:
            path.unlink()  # it could never be restored, and would count as one of those to keep
            raise
        deleted = [] if keep is None else _older(path)[keep - 1 :]
        for old in deleted:
            old.unlink()
    return DatedBackup(path, backup, deleted)


def _older(newest: Path) -> list[Path]:
    """Return the backups of an earlier moment in the folder of this one, the newest first."""
    ours = [path for path in newest.parent.iterdir() if _OURS.fullmatch(path.name) and path.name < newest.name]
    return sorted((path for path in ours if path.is_file() and not path.is_symlink()), reverse=True)
