"""Takes the files of a store away while a process has them open, in each way in which it happens."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

from fraud_detection.features import default_features
from fraud_detection.store import Store


def _log(database: Path) -> Path:
    return Path(f"{database}-wal")


def _replace_database(database: Path) -> None:
    another = database.with_name("another.db")
    Store.create_or_migrate(another, default_features()).close()
    another.replace(database)


def _locks(database: Path) -> Path:
    return Path(f"{database}-shm")


def _move_and_link(database: Path) -> None:
    database.rename(database.with_name("moved.db"))
    database.symlink_to("moved.db")


def _replace(file: Path) -> None:
    another = file.with_name("another")
    shutil.copyfile(file, another)
    another.replace(file)


def _move_folder(database: Path) -> None:
    database.parent.rename(moved(database).parent)


def _replace_folder(database: Path) -> None:
    _move_folder(database)
    shutil.copytree(moved(database).parent, database.parent)


def _truncate(file: Path) -> None:
    os.truncate(file, 0)


def _cut_off(file: Path) -> None:
    os.truncate(file, file.stat().st_size - 1000)


def _overwrite(file: Path) -> None:
    file.write_bytes(b"x" * file.stat().st_size)


def moved(database: Path) -> Path:
    """Where the database is after its folder was moved."""
    return database.parent.with_name("moved") / database.name


VANISHING: dict[str, Callable[[Path], object]] = {
    "the database is removed": Path.unlink,
    "the database is moved": lambda database: database.rename(database.with_name("moved.db")),
    "a link is left where the database was": _move_and_link,
    "another database is moved over it": _replace_database,
    "the log is removed": lambda database: _log(database).unlink(),
    "another log is moved over it": lambda database: _replace(_log(database)),
    "the locks are removed": lambda database: _locks(database).unlink(),
    "other locks are moved over them": lambda database: _replace(_locks(database)),
    "the folder is deleted": lambda database: shutil.rmtree(database.parent),
    "the folder is moved": _move_folder,
    "the folder is replaced by a copy": _replace_folder,
}
"""What takes the files away, by its description; each takes the path of the database."""

TEARING: dict[str, Callable[[Path], object]] = {
    "the log is truncated": lambda database: _truncate(_log(database)),
    "the end of the log is cut off": lambda database: _cut_off(_log(database)),
    "the log is overwritten": lambda database: _overwrite(_log(database)),
    "the database is truncated": _truncate,
}
"""What takes their content away and leaves the files where they are, likewise."""
