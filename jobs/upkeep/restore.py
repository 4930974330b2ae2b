"""Restores a backup: verifies all of it before changing anything."""

import json
import shutil
import tarfile
import zlib
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fraud_detection.counted import counted
from fraud_detection.database import DatabaseRefused
from fraud_detection.database.sqlite import copy_sqlite, erase_file, forget_file
from fraud_detection.environment import BadSetting
from fraud_detection.exit_codes import ExitCode, ExpectedError
from fraud_detection.features import FeatureList
from fraud_detection.lock import alone_with, alone_with_models
from fraud_detection.model.files import CURRENT, JOURNAL, is_plain_name, read_regular, sync_folder, write_whole
from fraud_detection.model.manifest import StoredFile
from fraud_detection.model.read import current_version, read_version, versions
from fraud_detection.model.write import discard, promote
from fraud_detection.settings import JobSettings
from fraud_detection.store import Store, upkeep
from fraud_detection.vanished import Mark
from jobs.installation import Installation
from jobs.progress import step
from jobs.upkeep.backup import (
    DESCRIPTION,
    FEATURES,
    FORMAT,
    HISTORY,
    MLFLOW,
    MODELS,
    STORE,
    UNPACKED,
    Backup,
    describe_files,
    is_archive,
    is_encrypted,
    keys_of,
    mlflow_paths,
    room_in,
    scratch_folder,
    sync_tree,
)
from jobs.upkeep.copy_store import copy_files

_DESCRIPTION_LIMIT_BYTES = 64 * 1024 * 1024  # names some 400,000 files


class BadBackup(ExpectedError):
    """A backup that is not whole or does not fit this installation; nothing was changed."""

    exit_code = ExitCode.UNUSABLE


class WouldOverwrite(ExpectedError):
    """A restore would overwrite data; the message says which and how to replace it."""


@dataclass(frozen=True)
class RestoredBackup:
    """The backup that was restored, and the files that were erased because it does not have them."""

    backup: Backup
    erased: list[Path]


def restore(
    source: Path, here: Installation, *, actor: str, replace: bool = False, unencrypted: bool = False
) -> RestoredBackup:
    """Replace the databases, the models and MLflow's store by those of a backup.

    No API may have the databases or the models open. With `replace`, existing data is erased, but only after the whole
    backup is verified. This includes files that the backup lacks, because they would seem to be part of it. If a
    restore stops half-way, run it again with `replace`. If BACKUP_KEY_FILE is set, a backup that is not encrypted is
    restored only with `unencrypted`.

    Raises BadBackup, CannotDecrypt, BadSetting, WouldOverwrite, StoreInUse, LockHeld, DatabaseRefused, NoRoom.
    """
    with ExitStack() as stack:
        with step(f"unpacking {source.name}"):
            folder = stack.enter_context(
                unpacked(source, here.settings, beside=here.models_dir, unencrypted=unencrypted)
            )
        backup = verify(folder, here.features)
        for location in here.settings.store_locations:
            stack.enter_context(alone_with(location))
        stack.enter_context(alone_with_models(here.models_dir))
        stack.enter_context(here.promoter())
        if not replace:
            _refuse_to_overwrite(here)
        with step("restoring databases"):
            _restore_databases(folder, here)
        with room_in(here.mlflow_folder):
            _restore_mlflow(folder / MLFLOW, here)
        erased = _erase_what_is_lacking(folder, here) if replace else []
        # Last, so that an API that starts too early finds no model, instead of a model without its store.
        with room_in(here.models_dir):
            _restore_models(folder / MODELS, here.models_dir, backup, actor=actor)
        mark = Mark.of(here.settings)
        if mark is not None:
            mark.clear()
    return RestoredBackup(backup, erased)


@contextmanager
def unpacked(source: Path, settings: JobSettings, *, beside: Path, unencrypted: bool = False) -> Iterator[Path]:
    """Give the folder of a backup; an archive is decrypted and unpacked for the duration of the block.

    Raises BadBackup, CannotDecrypt, BadSetting, NoRoom.
    """
    keys = keys_of(settings)
    try:
        encrypted = is_encrypted(source)
    except OSError as error:
        raise BadBackup(f"{source}: cannot be read ({error.strerror})") from error
    if encrypted and keys is None:
        raise BadSetting(f"{source}: is encrypted; set BACKUP_KEY_FILE to the file with its key")
    if keys is not None and not encrypted and not unencrypted:
        raise BadBackup(
            f"{source}: is not encrypted although BACKUP_KEY_FILE is set, so others may have made or changed it; "
            "restore an encrypted backup, or add --unencrypted if you know that it is yours"
        )
    if not encrypted and not is_archive(source):
        if not source.is_dir():
            raise BadBackup(
                f"{source}: is not a backup; expected what `fraudctl db backup` made: a folder, or an archive that "
                "ends in .tar, .tar.gz, .tar.age or .tar.gz.age"
            )
        yield source
        return
    with scratch_folder(beside, UNPACKED) as scratch:
        packed, content = source, scratch / "content"
        if keys is not None and encrypted:
            packed = scratch / "decrypted"
            with room_in(beside):
                keys.decrypt(source, packed)  # all of it, because only its end proves that nothing was cut off
        content.mkdir()
        try:
            with tarfile.open(packed) as archive, room_in(beside):
                _extract(archive, content)
            (folder,) = content.iterdir()
        except (tarfile.TarError, OSError, EOFError, ValueError, zlib.error) as error:
            reason = getattr(error, "strerror", None) or str(error).partition("\n")[0].rstrip(":")
            raise BadBackup(
                f"{source}: is not an archive that `fraudctl db backup` made, or is damaged ({reason})"
            ) from error
        yield folder


def _extract(archive: tarfile.TarFile, folder: Path) -> None:
    """Unpack only files, folders and links, only below the folder; Python's own filter requires 3.11.4."""
    for member in archive:
        if not _is_below(member.name) or not _is_below(member.linkname):
            raise BadBackup(f"the archive is not a backup of this program: {member.name} leads out of its folder")
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
                f"the archive is not a backup of this program: {member.name} is not a file, a folder or a link"
            )


def _is_below(name: str) -> bool:
    return not Path(name).is_absolute() and ".." not in Path(name).parts


def verify(folder: Path, features: FeatureList) -> Backup:
    """Compare every file with its checksum, check every database, load the current model.

    Raises BadBackup, DatabaseRefused, ModelRefused.
    """
    backup = _description(folder)
    if backup.features_digest != features.digest:
        raise BadBackup(
            f"the backup belongs to another feature list than this installation; set FEATURES_FILE to its {FEATURES}. "
            "If it has no such file, leave FEATURES_FILE empty, and delete what is here with `fraudctl reset` first"
        )
    found = describe_files(folder)
    for name in sorted({*backup.files, *found}):
        if backup.files.get(name) != found.get(name):
            raise BadBackup(f"the backup is not whole: {name} is missing, changed or surplus")
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
    """Read backup.json and require all that `back_up` writes: a restore would erase what it leaves out."""
    try:
        fields: dict[str, Any] = json.loads(read_regular(folder / DESCRIPTION, _DESCRIPTION_LIMIT_BYTES))
        if fields.pop("format") != FORMAT:
            raise BadBackup(f"{folder}: was made by a newer version of this program; restore it with that version")
        fields["files"] = {name: StoredFile(**entry) for name, entry in fields["files"].items()}
        backup = Backup(**fields)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise BadBackup(
            f"{folder}: is not a backup of this program; its {DESCRIPTION} cannot be read ({reason})"
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
    return all(type(value) is kind for value in values)  # not isinstance, because True would be a count


def _are_counts(rows: dict[str, int]) -> bool:
    return all(type(count) is int and count >= 0 for count in rows.values())


def _is_described(file: StoredFile) -> bool:
    return _are(str, file.sha256) and _are(int, file.size)


def _is_version(name: object) -> bool:
    return isinstance(name, str) and is_plain_name(name)


def _refuse_to_overwrite(here: Installation) -> None:
    for location in here.settings.store_locations:
        held = _held(location, here.features)
        if held:
            raise WouldOverwrite(f"{held}; --replace erases it (make a backup of it first)")
    current = current_version(here.models_dir)
    if current is not None:
        raise WouldOverwrite(
            f"{here.models_dir}: {current} is the current version; --replace deletes every version here"
        )


def _held(location: str | Path, features: FeatureList) -> str | None:
    """Return what a store holds, None if there is nothing to lose."""
    where = location if isinstance(location, Path) else "PostgreSQL"
    try:
        store = Store.open(location, features, read_only=True, allow_network_filesystem=True)
    except DatabaseRefused as error:
        return None if error.reason == "missing" else f"there is a database that cannot be read ({error})"
    with closing(store), store.begin() as connection:
        rows = store.count_rows(connection)
    return f"{where}: holds {counted(rows, 'transaction')}" if rows else None


def _restore_databases(folder: Path, here: Installation) -> None:
    copies = [folder / name for name in (STORE, HISTORY) if (folder / name).exists()]
    locations = here.settings.store_locations
    if isinstance(locations[0], str):
        copy_files(copies, locations[0], here.features, replace=True)
        return
    if len(copies) > len(locations):
        raise BadBackup(
            "the backup has imported history in a separate file; set TRAIN_DB to another file than LATEST_DB"
        )
    for copy, location in zip(copies, here.settings.store_locations, strict=False):
        with room_in(Path(location).parent):
            _replace_sqlite(copy, Path(location))
            # turns the copy into a store: write-ahead log, marker, newest tables
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
            erase_file(path)
    for location in stores:  # otherwise the store would count as lost, and imports would be rejected
        forget_file(location)
    return erased


def _replace_sqlite(copy: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(f".{target.name}.partial")
    partial.unlink(missing_ok=True)
    copy_sqlite(copy, partial)  # anew: a backup of an earlier release has erased rows in unused parts of its pages
    partial.chmod(0o660)  # as the API creates it: the API may run as another user of the group
    sync_tree(partial)
    # Delete all of the old one first: SQLite would replay an old write-ahead log into the new file.
    erase_file(target)
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
        discard(models_dir, version)
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
