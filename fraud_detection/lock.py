"""Locks: one promoter of models at a time, and no import into a store that an API has open."""

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

import sqlalchemy as sa

from fraud_detection.exit_codes import ExpectedError
from fraud_detection.model.files import JOURNAL
from fraud_detection.regular_file import MADE_ANEW, NAMED, require_file

PROMOTER_LOCK = ".lock"
_ADVISORY_KEY = 46_726_176


class LockHeld(ExpectedError):
    """Another job is changing the models."""


class StoreInUse(ExpectedError):
    """A running API has the store open, or another command holds it; the message says what to do."""


@contextlib.contextmanager
def promoter(models_dir: Path, engine: sa.Engine | None = None) -> Iterator[None]:
    """Hold the right to change the models for the length of the block; a killed process loses it at once.

    Takes a flock on the volume; with a PostgreSQL engine an advisory lock too, for jobs on several nodes.

    Raises LockHeld at once if another process holds it, NotAFile if the lock or the journal is no file.
    """
    models_dir.mkdir(parents=True, exist_ok=True)
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
                if not connection.scalar(sa.select(sa.func.pg_try_advisory_lock(_ADVISORY_KEY))):
                    raise LockHeld("PostgreSQL: another job is changing the models; run this again when it has ended")
                try:
                    yield
                finally:  # otherwise the pool would keep the session and the lock
                    connection.scalar(sa.select(sa.func.pg_advisory_unlock(_ADVISORY_KEY)))
        else:
            yield
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def in_use(location: str | Path) -> Iterator[None]:
    """Mark an SQLite store, for the length of the block, as open in a running API; several may.

    Waits for a running import or restore. PostgreSQL serves them side by side and needs no mark.
    """
    with _sign(location, fcntl.LOCK_SH):
        yield


@contextlib.contextmanager
def alone_with(location: str | Path) -> Iterator[None]:
    """Keep every API away from an SQLite store for the length of the block.

    Raises StoreInUse at once if one has it open, NotAFile if the store is no file.
    """
    try:
        with _sign(location, fcntl.LOCK_EX | fcntl.LOCK_NB):
            yield
    except BlockingIOError as error:
        raise StoreInUse(
            f"{location}: a running API has this store open; stop it first (or let TRAIN_DB name a file of its own: "
            "training reads both)"
        ) from error


@contextlib.contextmanager
def _sign(location: str | Path, operation: int) -> Iterator[None]:
    if isinstance(location, str):
        yield
        return
    require_file(location, NAMED)
    location.parent.mkdir(parents=True, exist_ok=True)
    location = Path(os.path.realpath(location))  # a link to an open store would otherwise have a lock of its own
    # A file beside the store, because closing a descriptor of the store itself would drop SQLite's locks.
    descriptor = _open(location.with_name(f".{location.name}.in-use"))
    try:
        fcntl.flock(descriptor, operation)
        yield
    finally:
        os.close(descriptor)


def _open(path: Path) -> int:
    require_file(path, MADE_ANEW)
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o660)
