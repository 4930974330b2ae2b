"""One promoter at a time: bootstrap, retrain and whoever else changes which model serves."""

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

import sqlalchemy as sa

_ADVISORY_KEY = 46_726_176


class LockHeld(Exception):
    """Another job is at work on the models."""


@contextlib.contextmanager
def promoter(models_dir: Path, engine: sa.Engine | None = None) -> Iterator[None]:
    """Hold the right to change the models for the length of the block; a killed holder loses it at once.

    On the volume a flock; with a PostgreSQL engine an advisory lock too, for jobs on several nodes.

    Raises LockHeld at once when somebody else holds it.
    """
    models_dir.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(models_dir / ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o660)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise LockHeld(f"{models_dir}: another job is changing the models; try again when it has ended") from error
        if engine is not None and engine.dialect.name == "postgresql":
            with engine.connect() as connection:
                if not connection.scalar(sa.select(sa.func.pg_try_advisory_lock(_ADVISORY_KEY))):
                    raise LockHeld("PostgreSQL: another job is changing the models; try again when it has ended")
                yield  # the session's lock ends with this connection
                connection.scalar(sa.select(sa.func.pg_advisory_unlock(_ADVISORY_KEY)))
        else:
            yield
    finally:
        os.close(descriptor)
