"""`sqlite3 FILE SQL` in the images: print rows of an SQLite file, in use or not, and never write.

With the library that the service writes with: the system's own may be so old that it can damage the file.
"""

import argparse
import contextlib
import csv
import itertools
import signal
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from pysqlite3 import dbapi2

from fraud_detection.database import DatabaseRefused
from fraud_detection.database.engine import open_engine
from fraud_detection.database.query import TookTooLong, run_query

EXAMPLES = """\
examples:
  sqlite3 /app/data/requests.db "SELECT * FROM requests ORDER BY ts DESC LIMIT 1;"
  sqlite3 -line /app/data/requests.db "SELECT * FROM labels ORDER BY id DESC LIMIT 3"
  sqlite3 /app/data/requests.db "SELECT sql FROM sqlite_schema"
"""


class NoSqliteFile(Exception):
    """The named file is no SQLite file; the message says what it is."""


def main() -> int:
    """Run from the command line and return the exit code; `| head -1` and Ctrl-C end it like any other program."""
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    return read(sys.argv[1:])


def read(arguments: list[str]) -> int:
    """Do what the arguments say and return the exit code: 0, or 1 if the file or the statement is rejected."""
    parser = argparse.ArgumentParser(
        prog="sqlite3",
        description="Run one read-only SQL statement, and print its rows. The API may run.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("file", help="the database")
    parser.add_argument("sql", nargs="?", help="the statement; without it, read standard input")
    parser.add_argument("-header", action="store_true", help="print the column names first")
    form = parser.add_mutually_exclusive_group()
    form.add_argument("-csv", action="store_true", help="print comma-separated values, not a|b|c")
    form.add_argument("-line", action="store_true", help="print one line per value, with its name")
    parser.add_argument(
        "-timeout",
        type=_seconds,
        default=60,
        metavar="SECONDS",
        help="seconds after which the statement ends (%(default)s), because a reader keeps the log from shrinking",
    )
    parser.add_argument("-readonly", action="store_true", help="accepted; this command always only reads")
    given = parser.parse_args(arguments)
    sql = sys.stdin.read() if given.sql is None else given.sql
    try:
        _print_rows(given, sql)
    except (DatabaseRefused, NoSqliteFile, TookTooLong) as error:
        sys.stderr.write(f"Error: {error}\n")
        return 1
    except sa.exc.DBAPIError as error:
        sys.stderr.write(f"Error: {error.orig}{_hint(error.orig, sql)}\n")
        return 1
    return 0


def _seconds(text: str) -> int:
    seconds = int(text)
    if not 1 <= seconds <= 86_400:
        raise argparse.ArgumentTypeError(f"expected whole seconds from 1 to 86400, got {seconds}")
    return seconds


def _print_rows(given: argparse.Namespace, sql: str) -> None:
    if not given.file:
        raise NoSqliteFile("expected the name of an SQLite file, got an empty one")
    file = Path(given.file)
    engine = open_engine(file, read_only=True, allow_network_filesystem=True)  # only writing does harm there
    try:
        with _naming_another_kind_of_file(file), engine.begin() as connection:
            names, rows = run_query(connection, sql, timeout_seconds=given.timeout)
            texts: Iterable[list[str]] = (list(map(_text, row)) for row in rows)
            if given.line:
                texts = ([f"{name} = {text}\n" for name, text in zip(names, row, strict=True)] for row in texts)
                sys.stdout.writelines("".join(row) + "\n" for row in texts)
                return
            if given.header and names:
                texts = itertools.chain([names], texts)
            if given.csv:
                csv.writer(sys.stdout, lineterminator="\n").writerows(texts)
            else:
                sys.stdout.writelines("|".join(row) + "\n" for row in texts)
    finally:
        engine.dispose()


@contextlib.contextmanager
def _naming_another_kind_of_file(file: Path) -> Iterator[None]:
    """Open a file; report one that never was a database as such, instead of asking for its backup."""
    try:
        yield
    except DatabaseRefused as error:
        if error.reason == "corrupt" and not _begins_as_sqlite(file):
            raise NoSqliteFile(
                f"{file}: expected an SQLite file, got one that does not begin as such: of another kind, or damaged"
            ) from error
        raise


def _begins_as_sqlite(file: Path) -> bool:
    with file.open("rb") as opened:
        return opened.read(16) == b"SQLite format 3\0"


def _text(value: Any) -> str:
    if value is None:
        return ""
    return value.decode(errors="backslashreplace") if isinstance(value, bytes) else str(value)


def _hint(error: object, sql: str) -> str:
    if getattr(error, "sqlite_errorcode", None) in {dbapi2.SQLITE_READONLY, dbapi2.SQLITE_AUTH}:
        return "; this command only reads, and only one file"
    if sql.lstrip().startswith("."):
        return '; this command runs only SQL: "SELECT sql FROM sqlite_schema" shows the tables'
    return ""


if __name__ == "__main__":
    sys.exit(main())
