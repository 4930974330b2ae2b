"""Defines the errors of SQLite and PostgreSQL; the modules beside this one open and query them."""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import sqlalchemy as sa

from fraud_detection.exit_codes import ExitCode, ExpectedError

Reason = Literal[
    "sqlite_too_old",
    "network_filesystem",
    "missing",
    "not_a_file",
    "lost",
    "corrupt",
    "not_ours",
    "too_new",
    "other_features",
    "foreign_objects",
    "unreachable",
    "not_durable",
]

Trouble = Literal["full", "busy", "failed", "corrupt", "vanished"]
"""The kind of failure of the storage below a database."""


class DatabaseRefused(ExpectedError):
    """A database must not be used; `reason` comes from a fixed set, and the message says what to do."""

    exit_code = ExitCode.UNUSABLE

    def __init__(self, reason: Reason, message: str) -> None:
        super().__init__(message)
        self.reason: Reason = reason


@contextlib.contextmanager
def reachable(location: str | Path) -> Iterator[None]:
    """Turn errors of the driver in the block into DatabaseRefused, without the URL and its password."""
    try:
        yield
    except sa.exc.OperationalError as error:
        where = location if isinstance(location, Path) else "PostgreSQL"
        raise DatabaseRefused("unreachable", f"{where}: cannot be reached ({error.orig})") from error
    except sa.exc.DatabaseError as error:
        where = location if isinstance(location, Path) else "PostgreSQL"
        raise DatabaseRefused(
            "corrupt",
            f"{where}: cannot be read ({error.orig}); if it is damaged, restore a backup (`fraudctl db restore`)",
        ) from error
