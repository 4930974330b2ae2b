"""Locks: one promoter of models at a time, and no import or restore under a running API."""

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from fraud_detection.database import reachable
from fraud_detection.database.engine import open_engine
from fraud_detection.exit_codes import ExpectedError
from fraud_detection.model.files import JOURNAL
from fraud_detection.regular_file import MADE_ANEW, NAMED, make_folder, require_file

PROMOTER_LOCK = ".lock"
_PROMOTER_KEY = 46_726_176  # of advisory locks, which belong to one database of the server
_SERVING_KEY = 46_726_177
_ALONE = fcntl.LOCK_EX | fcntl.LOCK_NB
_STORE_IS_OPEN = "a running API has this store open"


class LockHeld(ExpectedError):
    """Another job is changing the models."""


class StoreInUse(ExpectedError):
    """A running API has the store or the models open, or another command holds them; the message says what to do."""


@contextlib.contextmanager
def promoter(models_dir: Path, engine: sa.Engine | None = None) -> Iterator[None]:
    """Hold the right to change the models for the length of the block; a killed process loses it at once.

    Takes a flock on the volume; with a PostgreSQL engine an advisory lock too, for jobs on several nodes.

    Raises LockHeld at once if another process holds it, NotAFile if the lock or the journal is no file, or `models_dir`
    no folder.
    """
    make_folder(models_dir)
    require_file(models_dir / JOURNAL, MADE_ANEW)  # otherwise a promotion would fail when half of it is done
    descriptor = _open(models_dir / PROMOTER_LOCK)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise LockHeld(
                f"{models_dir}: another job is changing the models; run this again when it has ended"
            ) from error
        if engine is not None and engine.dialect.name == "postgresql":
            # The server's timeouts would end a transaction that is open during a training, and the lock with it.
            with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
                if not connection.scalar(sa.select(sa.func.pg_try_advisory_lock(_PROMOTER_KEY))):
                    raise LockHeld("PostgreSQL: another job is changing the models; run this again when it has ended")
                try:
                    yield
                finally:  # otherwise the pool would keep the session and the lock
                    connection.scalar(sa.select(sa.func.pg_advisory_unlock(_PROMOTER_KEY)))
        else:
            yield
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def in_use(location: str | Path, models_dir: Path) -> Iterator[None]:
    """Mark an SQLite store and a folder of models, for the length of the block, as open in a running API.

    Several may have them open. Waits for a running import or restore. A PostgreSQL store is marked by `mark_session`.
    """
    with _folder_locked(models_dir, fcntl.LOCK_SH), _store_locked(location, fcntl.LOCK_SH):
        yield


def mark_session(connection: sa.Connection) -> None:
    """Mark a PostgreSQL store as open in a running API while this session lasts; SQLite has `in_use`.

    The session that writes keeps the mark, so that a lost one does not: the next connection marks the store again.
    Waits for a running restore until the statement timeout of the connection.
    """
    if connection.dialect.name == "postgresql":
        driver: Any = connection.connection.driver_connection
        driver.execute(f"SELECT pg_advisory_lock_shared({_SERVING_KEY})")
        driver.commit()


@contextlib.contextmanager
def alone_with(location: str | Path) -> Iterator[None]:
    """Keep every API away from a store for the length of the block.

    Raises StoreInUse at once if one has it open, NotAFile if an SQLite store is no file, DatabaseRefused if PostgreSQL
    cannot be reached.
    """
    if isinstance(location, Path):
        with _at_once(_store_locked(location, _ALONE), f"{location}: {_STORE_IS_OPEN}; stop it first"):
            yield
        return
    engine = open_engine(location)
    try:
        with reachable(location):
            connection = engine.connect().execution_options(isolation_level="AUTOCOMMIT")
            is_alone = connection.scalar(sa.select(sa.func.pg_try_advisory_lock(_SERVING_KEY)))
        with connection:
            if not is_alone:
                raise StoreInUse(f"PostgreSQL: {_STORE_IS_OPEN}; stop it first")
            yield
    finally:
        engine.dispose()  # which ends the session and its lock


@contextlib.contextmanager
def alone_with_file(location: str | Path) -> Iterator[None]:
    """Keep every API away from an SQLite store, as an import must; PostgreSQL serves both side by side.

    Raises StoreInUse at once if one has it open, NotAFile if the store is no file.
    """
    way_out = "stop it first, or let TRAIN_DB name a file of its own, because training reads both"
    with _at_once(_store_locked(location, _ALONE), f"{location}: {_STORE_IS_OPEN}; {way_out}"):
        yield


@contextlib.contextmanager
def alone_with_models(models_dir: Path) -> Iterator[None]:
    """Keep every API away from a folder of models for the length of the block.

    Raises StoreInUse if one serves them, NotAFile if it is no folder.
    """
    make_folder(models_dir)
    way_out = "stop it first, or let MODEL_PATH name the models of this installation"
    with _at_once(_folder_locked(models_dir, _ALONE), f"{models_dir}: a running API serves these models; {way_out}"):
        yield


@contextlib.contextmanager
def _at_once(lock: contextlib.AbstractContextManager[None], refusal: str) -> Iterator[None]:
    """Hold a lock for the length of the block, or raise StoreInUse with this message if another process holds it."""
    with contextlib.ExitStack() as held:
        try:
            held.enter_context(lock)
        except BlockingIOError as error:  # only of the lock: the block may write to a pipe that is full
            raise StoreInUse(refusal) from error
        yield


@contextlib.contextmanager
def _store_locked(location: str | Path, operation: int) -> Iterator[None]:
    if isinstance(location, str):
        yield
        return
    require_file(location, NAMED)
    location.parent.mkdir(parents=True, exist_ok=True)
    location = Path(os.path.realpath(location))  # a link to an open store would otherwise have a lock of its own
    # A file beside the store, because closing a descriptor of the store itself would drop SQLite's locks.
    with _locked(_open(location.with_name(f".{location.name}.in-use")), operation):
        yield


@contextlib.contextmanager
def _folder_locked(folder: Path, operation: int) -> Iterator[None]:
    """Lock a folder itself, because the API may not be permitted to write there."""
    if not folder.is_dir():
        yield
        return
    with _locked(os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC), operation):
        yield


@contextlib.contextmanager
def _locked(descriptor: int, operation: int) -> Iterator[None]:
    try:
        fcntl.flock(descriptor, operation)
        yield
    finally:
        os.close(descriptor)


def _open(path: Path) -> int:
    require_file(path, MADE_ANEW)
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o660)
