"""Brings a backup back: everything is verified before anything is touched."""

import json
import shutil
import tarfile
import zlib
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fraud_detection.database import DatabaseRefused
from fraud_detection.exit_codes import ExitCode, ExpectedError
from fraud_detection.features import FeatureList
from fraud_detection.lock import alone_with
from fraud_detection.model.files import CURRENT, JOURNAL, sync_folder, write_whole
from fraud_detection.model.manifest import StoredFile
from fraud_detection.model.read import current_version, read_version, versions
from fraud_detection.model.write import promote
from fraud_detection.store import Store, upkeep
from jobs.installation import Installation
from jobs.upkeep.backup import (
    DESCRIPTION,
    FEATURES,
    FORMAT,
    HISTORY,
    MLFLOW,
    MODELS,
    STORE,
    Backup,
    describe_files,
    is_archive,
    mlflow_paths,
    room_in,
    scratch_folder,
    sync_tree,
)
from jobs.upkeep.copy_store import copy_files


class BadBackup(ExpectedError):
    """A backup that is not whole or does not fit here; nothing was touched."""

    exit_code = ExitCode.UNUSABLE


class WouldOverwrite(ExpectedError):
    """There is something where the backup would go; the message says what and how to replace it."""


@dataclass(frozen=True)
class RestoredBackup:
    """What is in place now, and what is gone because the backup has nothing to put in its place."""

    backup: Backup
    erased: list[Path]


def restore(source: Path, here: Installation, *, actor: str, replace: bool = False) -> RestoredBackup:
    """Put a backup in the place of the database, the models and MLflow's store.

    No API may have the SQLite files open. What is there already is erased, if `replace` says so, only after the
    backup has been verified whole: also what the backup lacks, which would be taken for a part of it. Broken off
    half-way, it is finished by running it again with `replace`.

    Raises BadBackup, WouldOverwrite, StoreInUse, LockHeld, DatabaseRefused, NoRoom.
    """
    with ExitStack() as stack:
        folder = stack.enter_context(unpacked(source, beside=here.models_dir))
        backup = verify(folder, here.features)
        for location in here.settings.store_locations:
            stack.enter_context(alone_with(location))
        stack.enter_context(here.promoter())
        if not replace:
            _refuse_to_overwrite(here)
        _restore_databases(folder, here)
        with room_in(here.mlflow_folder):
            _restore_mlflow(folder / MLFLOW, here)
        erased = _erase_what_is_lacking(folder, here) if replace else []
        # Last, so that a service that is started too early finds no model, and not one without its store.
        with room_in(here.models_dir):
            _restore_models(folder / MODELS, here.models_dir, backup, actor=actor)
    return RestoredBackup(backup, erased)


@contextmanager
def unpacked(source: Path, *, beside: Path) -> Iterator[Path]:
    """Give the folder of a backup, which an archive is unpacked to for the length of the block.

    Raises BadBackup, NoRoom.
    """
    if not is_archive(source):
        yield source
        return
    with scratch_folder(beside, ".restore-") as scratch:
        try:
            with tarfile.open(source) as archive, room_in(beside):
                _extract(archive, scratch)
            (folder,) = scratch.iterdir()
        except (tarfile.TarError, OSError, EOFError, ValueError, zlib.error) as error:
            raise BadBackup(f"{source}: is no archive of a backup ({error})") from error
        yield folder


def _extract(archive: tarfile.TarFile, folder: Path) -> None:
    """Write what a backup is made of and nothing else, only below the folder; Python's own filter came with 3.11.4."""
    for member in archive:
        if not _is_below(member.name) or not _is_below(member.linkname):
            raise BadBackup(f"the archive is not a backup of this program: {member.name} would lead out of it")
        place, content = folder / member.name, archive.extractfile(member) if member.isfile() else None
        if member.isdir():
            place.mkdir()
        elif member.issym():
            place.symlink_to(member.linkname)
        elif content is not None:
            with content, place.open("wb") as file:
                shutil.copyfileobj(content, file)
        else:
            raise BadBackup(
                f"the archive is not a backup of this program: {member.name} is neither a file nor a folder nor a link"
            )


def _is_below(name: str) -> bool:
    return not Path(name).is_absolute() and ".." not in Path(name).parts


def verify(folder: Path, features: FeatureList) -> Backup:
    """Compare every file with its checksum, look every database through, load the current model.

    Raises BadBackup, DatabaseRefused, ModelRefused.
    """
    backup = _description(folder)
    if backup.features_digest != features.digest:
        raise BadBackup(
            f"the backup belongs to another feature list than this installation; set FEATURES_FILE to its {FEATURES}, "
            "or to none where it has no such file"
        )
    found = describe_files(folder)
    for name in sorted({*backup.files, *found}):
        if backup.files.get(name) != found.get(name):
            raise BadBackup(f"the backup is not whole: {name} is missing, changed or too much")
    for name, rows in backup.rows.items():
        store = Store.open(folder / name, features, read_only=True, allow_network_filesystem=True)
        with closing(store), store.begin() as connection:
            problems = upkeep.problems(store, connection)
            if problems or store.count_rows(connection) != rows:
                raise BadBackup(f"the backup's {name} is damaged: {'; '.join(problems) or 'rows are missing'}")
    if backup.current is not None:
        read_version(folder / MODELS / backup.current, features)
    return backup


def _description(folder: Path) -> Backup:
    """Read backup.json and require what `back_up` always writes: else what it leaves out would only be erased."""
    try:
        fields: dict[str, Any] = json.loads((folder / DESCRIPTION).read_text(encoding="utf-8"))
        if fields.pop("format") != FORMAT:
            raise BadBackup(f"{folder}: was made by a newer version of this program")
        fields["files"] = {name: StoredFile(**entry) for name, entry in fields["files"].items()}
        backup = Backup(**fields)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise BadBackup(
            f"{folder}: is not a backup of this program; its {DESCRIPTION} cannot be read ({error})"
        ) from error
    for expected, is_so in (
        ("created and features_digest as texts", _are(str, backup.created, backup.features_digest)),
        ("rows as counts by the name of a database", isinstance(backup.rows, dict) and _are_counts(backup.rows)),
        ("for every file its sha256 and size", all(_is_described(entry) for entry in backup.files.values())),
        ("current as the name of a version, or null", backup.current is None or _is_version(backup.current)),
        ("files below its folder", all(map(_is_below, backup.files))),
    ):
        if not is_so:
            raise BadBackup(
                f"{folder}: is not a backup of this program; its {DESCRIPTION} was expected to give {expected}"
            )
    databases = sorted({STORE, HISTORY} & backup.files.keys())
    if STORE not in databases or sorted(backup.rows) != databases:
        raise BadBackup(
            f"{folder}: is not a backup of this program; expected {STORE} among its files and the rows "
            f"of every database there, got the files {databases} and the rows of {sorted(backup.rows)}"
        )
    return backup


def _are(kind: type, *values: object) -> bool:
    return all(type(value) is kind for value in values)  # not isinstance: True would be a count


def _are_counts(rows: dict[str, int]) -> bool:
    return all(type(count) is int and count >= 0 for count in rows.values())


def _is_described(file: StoredFile) -> bool:
    return _are(str, file.sha256) and _are(int, file.size)


def _is_version(name: object) -> bool:
    return isinstance(name, str) and name not in {"", ".", ".."} and Path(name).name == name


def _refuse_to_overwrite(here: Installation) -> None:
    for location in here.settings.store_locations:
        held = _held(location, here.features)
        if held:
            raise WouldOverwrite(f"{held}; --replace erases it (take a backup of it first)")
    current = current_version(here.models_dir)
    if current is not None:
        raise WouldOverwrite(
            f"{here.models_dir}: {current} is the current version; --replace deletes every version here"
        )


def _held(location: str | Path, features: FeatureList) -> str | None:
    """Say what a store holds, None when there is nothing to lose."""
    where = location if isinstance(location, Path) else "PostgreSQL"
    try:
        store = Store.open(location, features, read_only=True, allow_network_filesystem=True)
    except DatabaseRefused as error:
        return None if error.reason == "missing" else f"a database is there that cannot be looked into ({error})"
    with closing(store), store.begin() as connection:
        rows = store.count_rows(connection)
    return f"{where}: holds {rows:,} transactions" if rows else None


def _restore_databases(folder: Path, here: Installation) -> None:
    copies = [folder / name for name in (STORE, HISTORY) if (folder / name).exists()]
    locations = here.settings.store_locations
    if isinstance(locations[0], str):
        copy_files(copies, locations[0], here.features, replace=True)
        return
    if len(copies) > len(locations):
        raise BadBackup(
            "the backup has imported history in a file of its own: let TRAIN_DB name another than LATEST_DB"
        )
    for copy, location in zip(copies, here.settings.store_locations, strict=False):
        with room_in(Path(location).parent):
            _replace_sqlite(copy, Path(location))
            # makes of a copy a store again: write-ahead log, marker, and the tables of today
            here.create_store(location).close()


def _erase_what_is_lacking(folder: Path, here: Installation) -> list[Path]:
    databases = sum((folder / name).exists() for name in (STORE, HISTORY))
    stores = [location for location in here.settings.store_locations[databases:] if isinstance(location, Path)]
    others = {here.models_dir / JOURNAL: folder / MODELS}
    if here.settings.mlflow_tracking_uri is None:
        others |= dict.fromkeys(mlflow_paths(here), folder / MLFLOW)
    lacking = [*stores, *(path for path, kept in others.items() if not (kept / path.name).exists())]
    erased = [path for path in lacking if path.exists()]
    for path in lacking:
        if path.is_dir():
            shutil.rmtree(path)
        else:
            _erase_sqlite(path)
    for location in stores:  # else its loss would be noticed, and nothing imported any more
        location.with_name(f".{location.name}.initialised").unlink(missing_ok=True)
    return erased


def _erase_sqlite(path: Path) -> None:
    for suffix in ("", "-wal", "-shm", "-journal"):
        path.with_name(path.name + suffix).unlink(missing_ok=True)


def _replace_sqlite(copy: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(f".{target.name}.partial")
    shutil.copyfile(copy, partial)
    partial.chmod(0o660)  # as the API makes it: it may run as another user of the group than whoever restores
    sync_tree(partial)
    # All of the old one before the new one comes: an old write-ahead log would be played into the new file.
    _erase_sqlite(target)
    partial.rename(target)
    sync_folder(target.parent)


def _restore_mlflow(folder: Path, here: Installation) -> None:
    if here.settings.mlflow_tracking_uri is not None:
        return
    database, artifacts = mlflow_paths(here)
    if (folder / database.name).exists():
        _replace_sqlite(folder / database.name, database)
    if (folder / artifacts.name).exists():
        shutil.rmtree(artifacts, ignore_errors=True)
        shutil.copytree(folder / artifacts.name, artifacts)
        sync_tree(artifacts)


def _restore_models(folder: Path, models_dir: Path, backup: Backup, *, actor: str) -> None:
    (models_dir / CURRENT).unlink(missing_ok=True)
    for version in versions(models_dir):
        shutil.rmtree(models_dir / version)
    for version in versions(folder):
        partial = models_dir / f".partial-{version}"
        shutil.rmtree(partial, ignore_errors=True)
        shutil.copytree(folder / version, partial)
        sync_tree(partial)
        partial.rename(models_dir / version)
    if (folder / JOURNAL).exists():
        write_whole(models_dir / JOURNAL, (folder / JOURNAL).read_bytes())
    if backup.current is not None:
        promote(
            models_dir,
            backup.current,
            actor=actor,
            reason=f"the backup of {backup.created} was restored",
            event="restored",
        )
