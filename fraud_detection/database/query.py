"""Runs one SQL statement that a person wrote, on either database, within a time limit."""

import contextlib
import time
from collections.abc import Iterator
from typing import Any

import sqlalchemy as sa
from pysqlite3 import dbapi2

from fraud_detection.exit_codes import ExpectedError

_STEPS_BETWEEN_TIME_CHECKS = 10_000  # of SQLite's virtual machine: well below a millisecond


class TookTooLong(ExpectedError):
    """A statement reached its time limit; the message says what to do."""


def run_query(
    connection: sa.Connection, statement: str, *, timeout_seconds: int | None = None
) -> tuple[list[str], Iterator[tuple[Any, ...]]]:
    """Run one statement, unchanged, and return the names of the columns and the rows.

    Give a connection of a read-only engine. From then on it cannot attach another file, and it keeps the time limit.
    The limit matters because SQLite's write-ahead log cannot shrink while a statement reads, and the client that
    waits may be gone.

    Raises: TookTooLong, also while you read the rows.
    """
    plain = connection.execution_options(no_parameters=True, stream_results=True)  # otherwise a % would require a value
    if connection.dialect.name == "sqlite":  # read-only covers only this file: ATTACH could create another
        _driver(connection).set_authorizer(_allow_all_but_attach)
    if timeout_seconds is not None:
        _end_after(connection, timeout_seconds)
    try:
        with _in_time(timeout_seconds):
            result = plain.exec_driver_sql(statement)
    except dbapi2.Warning as error:  # more than one statement; SQLAlchemy passes it on as it is
        raise sa.exc.ProgrammingError(statement, None, error) from error
    if not result.returns_rows:
        return [], iter(())
    return list(result.keys()), _rows(result, timeout_seconds)


def _rows(result: sa.CursorResult[Any], timeout_seconds: int | None) -> Iterator[tuple[Any, ...]]:
    with _in_time(timeout_seconds):
        for page in result.partitions(1000):
            yield from map(tuple, page)


def _end_after(connection: sa.Connection, seconds: int) -> None:
    driver = _driver(connection)
    if connection.dialect.name == "postgresql":
        driver.execute(f"SET LOCAL statement_timeout = {seconds * 1000}")
        return
    end = time.monotonic() + seconds
    driver.set_progress_handler(lambda: time.monotonic() > end, _STEPS_BETWEEN_TIME_CHECKS)


@contextlib.contextmanager
def _in_time(timeout_seconds: int | None) -> Iterator[None]:
    try:
        yield
    except sa.exc.OperationalError as error:
        is_sqlite = getattr(error.orig, "sqlite_errorcode", None) == dbapi2.SQLITE_INTERRUPT
        is_postgresql = getattr(error.orig, "sqlstate", None) == "57014"  # query_canceled
        if is_sqlite or is_postgresql:
            raise TookTooLong(
                f"the statement was stopped after {timeout_seconds} seconds; narrow it (WHERE, LIMIT), "
                "or allow more time with --timeout"
            ) from error
        raise


def _allow_all_but_attach(action: int, *_: object) -> int:
    allowed: int = dbapi2.SQLITE_DENY if action == dbapi2.SQLITE_ATTACH else dbapi2.SQLITE_OK
    return allowed


def _driver(connection: sa.Connection) -> Any:
    return connection.connection.driver_connection
