"""Writes a backup of an installation: databases, models, promotions, MLflow's store."""

import contextlib
import errno
import fcntl
import hashlib
import json
import os
import re
import shutil
import tarfile
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from fraud_detection.clock import timestamp
from fraud_detection.database import DatabaseRefused
from fraud_detection.database.sqlite import copy_sqlite
from fraud_detection.database.trouble import trouble
from fraud_detection.environment import BadSetting
from fraud_detection.exit_codes import ExpectedError
from fraud_detection.model.files import CURRENT, JOURNAL, PICKLE, pieces, sync_folder, write_whole
from fraud_detection.model.manifest import SIZE_LIMIT_BYTES, StoredFile
from fraud_detection.model.read import versions
from fraud_detection.regular_file import require_file
from fraud_detection.remembered import features_file
from fraud_detection.settings import JobSettings
from fraud_detection.store import Store, history, transfer
from jobs.installation import Installation
from jobs.progress import bar, step
from jobs.upkeep.copy_store import copy_contents

if TYPE_CHECKING:
    from jobs.upkeep.encryption import Keys

DESCRIPTION = "backup.json"
FORMAT = 1
STORE = "requests.db"
HISTORY = "history.db"
MODELS = "models"
MLFLOW = "mlflow"
MLFLOW_FILES = ("mlflow.db", "mlartifacts")
FEATURES = "features.json"
ENCRYPTED = ".age"
_ARCHIVE = re.compile(r"(?i)\.tar(?P<gz>\.gz)?(?P<age>\.age)?$")
_AGE = b"age-encryption.org/"
UNPACKED = ".restore-"
"""How the folder beside the models begins, in which a backup is unpacked."""
_ABANDONED_AFTER_SECONDS = 12 * 3600  # longer than any backup takes, shorter than a day
_LOCKED_WITHIN_SECONDS = 60.0  # a job locks its folder right after making it


class NoRoom(ExpectedError):
    """A file system without room for the files to write; the message names the folder."""


@dataclass(frozen=True)
class Backup:
    """The contents of a backup, as backup.json describes them."""

    created: str
    features_digest: str
    rows: dict[str, int]
    """Transactions in each database."""
    current: str | None
    """The current version."""
    files: dict[str, StoredFile]
    """Every other file, by its path in the backup."""


def back_up(target: Path, here: Installation, *, now: datetime) -> Backup:
    """Write a backup to `target`: a directory, or an archive if its name ends in .tar or .tar.gz.

    The API may run: each database is copied as of one moment, and the lock keeps the models unchanged meanwhile. Rows
    of PostgreSQL are stored as an SQLite file. The backup is whole or does not exist; only its owner can read it.

    With BACKUP_KEY_FILE the backup is an encrypted archive, and its name ends in .age as well.

    Raises FileExistsError, BadSetting, LockHeld, DatabaseRefused, NoRoom, OSError.
    """
    with here.promoter():
        return write_backup(target, here, now=now)


def write_backup(target: Path, here: Installation, *, now: datetime) -> Backup:
    """Do what `back_up` does; the caller holds the promoter's lock, without which models and MLflow could change."""
    keys = keys_of(here.settings)
    _require_matching_name(target, keys)
    if target.exists():
        raise FileExistsError(f"{target}: exists already; give a new name")
    with (
        room_in(target.parent),
        place_for_plain_files(target.parent, here.settings) as place,
        scratch_folder(place, ".backup-") as scratch,
    ):
        folder = scratch / "backup"
        folder.mkdir(mode=0o700)
        with step("copying databases"):
            rows = _copy_databases(folder, here)
        current = _copy_models(folder / MODELS, here.models_dir)
        _copy_mlflow(folder / MLFLOW, here)
        listed = features_file(here.settings)
        if listed is not None:
            shutil.copyfile(listed, folder / FEATURES)
        backup = Backup(timestamp(now), here.features.digest, rows, current, describe_files(folder))
        description = json.dumps({"format": FORMAT, **asdict(backup)}, indent=2) + "\n"
        write_whole(folder / DESCRIPTION, description.encode())
        with step(f"writing {target.name}"):
            _put(folder, target, keys)
    return backup


def _require_matching_name(target: Path, keys: "Keys | None") -> None:
    """Require that the name tells whether the backup is encrypted; a folder cannot be."""
    name = _ARCHIVE.search(target.name)
    is_named_encrypted = name is not None and name["age"] is not None
    if keys is not None and not is_named_encrypted:
        better = target.name if name else f"{target.name}.tar.gz"
        raise BadSetting(
            f"{target}: BACKUP_KEY_FILE is set, and the name of an encrypted backup ends in {ENCRYPTED}; "
            f"name it {better}{ENCRYPTED}"
        )
    if keys is None and (is_named_encrypted or target.suffix.lower() == ENCRYPTED):
        raise BadSetting(
            f"{target}: is named like an encrypted backup; set BACKUP_KEY_FILE, or leave out {target.suffix}"
        )


def keys_of(settings: JobSettings) -> "Keys | None":
    """Read the keys of BACKUP_KEY_FILE, if it is set; raises BadSetting."""
    if settings.backup_key_file is None:
        return None
    from jobs.upkeep.encryption import Keys  # noqa: PLC0415  loads a library that no other backup needs

    return Keys.read(settings.backup_key_file)


@contextlib.contextmanager
def place_for_plain_files(beside: Path, settings: JobSettings) -> Iterator[Path]:
    """Give the folder for unencrypted copies: `beside` or, with BACKUP_KEY_FILE, a new one where TMPDIR says.

    Others may read the disk of encrypted backups, and change what lies there.
    """
    if settings.backup_key_file is None:
        yield beside
        return
    place = Path(tempfile.gettempdir())
    with room_in(place, "set TMPDIR to another folder"), tempfile.TemporaryDirectory(prefix="fraudctl-") as folder:
        yield Path(folder)


def _copy_databases(folder: Path, here: Installation) -> dict[str, int]:
    rows = {}
    for location, name in zip(here.settings.store_locations, (STORE, HISTORY), strict=False):
        try:
            store = here.open_store(location)
        except DatabaseRefused as error:
            if error.reason == "missing" and name == HISTORY:  # no history was imported yet
                continue
            raise
        with closing(store):
            if isinstance(location, Path):
                transfer.copy_to(store, folder / name)
            else:
                _copy_postgresql(store, folder / name)
        copy = Store.open(folder / name, here.features, read_only=True, allow_network_filesystem=True)
        with closing(copy), copy.begin() as connection:
            rows[name] = copy.count_rows(connection)
    return rows


def _copy_postgresql(store: Store, target: Path) -> None:
    with tempfile.TemporaryDirectory(prefix=".copy-", dir=target.parent.parent) as scratch:
        copy = Store.create_or_migrate(Path(scratch) / target.name, store.features, allow_network_filesystem=True)
        with closing(copy), history.snapshot(store) as connection:
            copy_contents([(store, connection)], copy)
            transfer.copy_to(copy, target)  # copies no write-ahead log


def _copy_models(folder: Path, models_dir: Path) -> str | None:
    folder.mkdir()
    names = versions(models_dir)
    for version in bar(names, desc="models", unit=" versions"):
        shutil.copytree(models_dir / version, folder / version, copy_function=_copy_regular)
    for name in (CURRENT, PICKLE):
        if (models_dir / name).is_symlink():
            (folder / name).symlink_to((models_dir / name).readlink())
    if (models_dir / JOURNAL).exists():
        _copy_regular(models_dir / JOURNAL, folder / JOURNAL)
    return (folder / CURRENT).readlink().name if (folder / CURRENT).is_symlink() else None


def _copy_regular(source: str | Path, target: str | Path) -> None:
    """Copy a file of the model volume; raises OSError for a device or named pipe, which has no end."""
    with Path(target).open("xb") as file:
        file.writelines(pieces(Path(source), SIZE_LIMIT_BYTES))
    shutil.copystat(source, target)


def _copy_mlflow(folder: Path, here: Installation) -> None:
    folder.mkdir()
    database, artifacts = mlflow_paths(here)
    if here.settings.mlflow_tracking_uri is not None:
        return  # the server's own backups hold its store
    if database.exists():
        copy_sqlite(database, folder / database.name)
    if artifacts.exists():
        shutil.copytree(artifacts, folder / artifacts.name)


def mlflow_paths(here: Installation) -> tuple[Path, Path]:
    """Return the paths of MLflow's database and its artefacts if no server has them."""
    database, artifacts = (here.mlflow_folder / name for name in MLFLOW_FILES)
    return database, artifacts


def describe_files(folder: Path) -> dict[str, StoredFile]:
    """Return sha256 and size of every file below a folder except its description, by path; links are left out.

    Raises NotAFile for anything that is neither a file nor a folder.
    """
    described = {}
    for path in bar(_files(folder), desc="checksums", unit=" files"):
        name = path.relative_to(folder).as_posix()
        if name != DESCRIPTION:
            require_file(path, "a backup holds only files, folders and links")
            with path.open("rb") as file:
                sha256 = hashlib.file_digest(file, "sha256").hexdigest()
            described[name] = StoredFile(sha256, path.stat().st_size)
    return described


def _files(folder: Path) -> list[Path]:
    return [
        Path(parent) / name
        for parent, _, names in sorted(os.walk(folder))  # which does not follow links to folders
        for name in sorted(names)
        if not (Path(parent) / name).is_symlink()
    ]


def _put(folder: Path, target: Path, keys: "Keys | None") -> None:
    name = _ARCHIVE.search(target.name)
    if name is not None:
        packed = folder.with_name("packed")
        with tarfile.open(packed, "w:gz" if name["gz"] else "w") as archive:
            archive.add(folder, arcname=_ARCHIVE.sub("", target.name))
        folder = packed
    if keys is None:
        _move(folder, target)
        return
    with room_in(target.parent), scratch_folder(target.parent, ".backup-") as scratch:
        encrypted = scratch / "encrypted"
        keys.encrypt(folder, encrypted)
        _move(encrypted, target)


def _move(finished: Path, target: Path) -> None:
    if finished.is_file():
        finished.chmod(0o600)
    sync_tree(finished)
    finished.rename(target)
    sync_folder(target.parent)


@contextlib.contextmanager
def room_in(folder: Path, way_out: str = "name another folder") -> Iterator[None]:
    """Turn any error of a full disk in the block, which writes only to this folder, into NoRoom."""
    try:
        yield
    except NoRoom:
        raise
    except Exception as error:
        if _is_of_a_full_disk(error):
            raise NoRoom(f"{folder}: the disk has no room left; free some space there, or {way_out}") from error
        raise


def _is_of_a_full_disk(error: BaseException | None) -> bool:
    if error is None:
        return False
    if isinstance(error, shutil.Error):  # of copytree: (source, target, text of the cause) for each file
        return any(f"[Errno {errno.ENOSPC}]" in str(entry) for entry in error.args[0])
    return (
        (isinstance(error, OSError) and error.errno in {errno.ENOSPC, errno.EDQUOT})
        or trouble(error) == "full"
        or _is_of_a_full_disk(error.__cause__)
    )


@contextlib.contextmanager
def scratch_folder(parent: Path, prefix: str) -> Iterator[Path]:
    """Give a folder in `parent` for the block, after deleting the folders of killed jobs."""
    parent.mkdir(parents=True, exist_ok=True)
    delete_abandoned(parent, prefix)
    with tempfile.TemporaryDirectory(prefix=prefix, dir=parent) as scratch:
        descriptor = os.open(scratch, os.O_RDONLY)
        try:
            with contextlib.suppress(OSError):  # a file system without locks: then only the age tells
                fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield Path(scratch)
        finally:
            os.close(descriptor)


def delete_abandoned(parent: Path, prefix: str) -> None:
    """Delete the folders that killed jobs left, which hold whole transactions and take the space of a backup."""
    for left in parent.glob(f"{prefix}*"):
        age = time.time() - left.stat().st_mtime
        if age > _ABANDONED_AFTER_SECONDS or (age > _LOCKED_WITHIN_SECONDS and not _is_locked(left)):
            shutil.rmtree(left, ignore_errors=True)


def _is_locked(folder: Path) -> bool:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(descriptor)
    return False


def sync_tree(top: Path) -> None:
    """Flush a file, or a folder with its contents, to disk, so that it survives a power cut."""
    for path in (top, *top.rglob("*")):
        if not path.is_symlink():
            descriptor = os.open(path, os.O_RDONLY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)


def is_archive(path: Path) -> bool:
    """Return whether a backup with this name is one file."""
    return _ARCHIVE.search(path.name) is not None


def is_encrypted(path: Path) -> bool:
    """Return whether a file is named like an encrypted backup, or begins like one; raises OSError."""
    if not path.is_file():
        return False
    if path.suffix.lower() == ENCRYPTED:
        return True
    with path.open("rb") as file:
        return file.read(len(_AGE)) == _AGE
