"""Keeps dated backups in one folder: writes and verifies a new one, and only then deletes the oldest."""

import re
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from jobs.installation import Installation
from jobs.upkeep.backup import ENCRYPTED, Backup, place_for_plain_files, write_backup
from jobs.upkeep.restore import unpacked, verify

_OURS = re.compile(r"fraud-detection-\d{8}T\d{6}Z\.tar\.gz(\.age)?")


@dataclass(frozen=True)
class DatedBackup:
    """The new backup, its contents, and the older backups that were deleted."""

    path: Path
    backup: Backup
    deleted: list[Path]


def back_up_into(folder: Path, here: Installation, *, now: datetime, keep: int | None = None) -> DatedBackup:
    """Write a backup named by its time and, with `keep`, delete all but the newest `keep` up to it in the folder.

    The new backup is unpacked and verified as by a restore, so the folder needs space for that; with BACKUP_KEY_FILE
    the folder that TMPDIR names does. If this fails, the new backup is deleted, and every older one stays. A backup
    with a later time always stays and is not counted: a clock was set back, and that backup may not be verified.

    Raises as `back_up` and `verify`.
    """
    suffix = "" if here.settings.backup_key_file is None else ENCRYPTED
    path = folder / f"fraud-detection-{now.astimezone(UTC):%Y%m%dT%H%M%SZ}.tar.gz{suffix}"
    with here.promoter():  # until the end: otherwise two jobs could delete backups while neither has verified its own
        backup = write_backup(path, here, now=now)
        try:
            with (
                place_for_plain_files(folder, here.settings) as place,
                unpacked(path, here.settings, beside=place) as content,
            ):
                verify(content, here.features)
        except BaseException:
            path.unlink()  # it cannot be restored, but would count as one to keep
            raise
        deleted = [] if keep is None else _older(path)[keep - 1 :]
        for old in deleted:
            old.unlink()
    return DatedBackup(path, backup, deleted)


def _older(newest: Path) -> list[Path]:
    """Return the backups with an earlier time in the same folder, the newest first."""
    ours = [path for path in newest.parent.iterdir() if _OURS.fullmatch(path.name) and path.name < newest.name]
    return sorted((path for path in ours if path.is_file() and not path.is_symlink()), reverse=True)
