"""`sqlite3 FILE SQL` in the images: print rows of an SQLite file, in use or not, and never write.

With the library that the service writes with: the system's own may be so old that it can damage the file.
"""

import argparse
import csv
import itertools
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from pysqlite3 import dbapi2

from fraud_detection.database import DatabaseRefused, open_engine, run_query

EXAMPLES = """\
examples:
  sqlite3 /app/data/requests.db "SELECT * FROM requests ORDER BY ts DESC LIMIT 1;"
  sqlite3 -line /app/data/requests.db "SELECT * FROM labels ORDER BY id DESC LIMIT 3"
  sqlite3 /app/data/requests.db "SELECT sql FROM sqlite_schema"
"""


def main(arguments: list[str] | None = None) -> int:
    """Run from the command line and return the exit code: 0, 1 when the file or the statement is refused."""
    parser = argparse.ArgumentParser(
        prog="sqlite3",
        description="Run one SQL statement that only reads, and print its rows. The service may run.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("file", type=Path, help="the database")
    parser.add_argument("sql", nargs="?", help="the statement; without it standard input is read")
    parser.add_argument("-header", action="store_true", help="print the names of the columns first")
    form = parser.add_mutually_exclusive_group()
    form.add_argument("-csv", action="store_true", help="print comma-separated values, not a|b|c")
    form.add_argument("-line", action="store_true", help="print a line for each value, with its name")
    parser.add_argument("-readonly", action="store_true", help="accepted, because it is always so")
    given = parser.parse_args(arguments)
    sql = sys.stdin.read() if given.sql is None else given.sql
    try:
        _print_rows(given, sql)
    except DatabaseRefused as error:
        sys.stderr.write(f"Error: {error}\n")
        return 1
    except sa.exc.DBAPIError as error:
        sys.stderr.write(f"Error: {error.orig}{_hint(error.orig, sql)}\n")
        return 1
    return 0


def _print_rows(given: argparse.Namespace, sql: str) -> None:
    engine = open_engine(given.file, read_only=True, allow_network_filesystem=True)  # there only writing does harm
    try:
        with engine.begin() as connection:
            names, rows = run_query(connection, sql)
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


def _text(value: Any) -> str:
    if value is None:
        return ""
    return value.decode(errors="backslashreplace") if isinstance(value, bytes) else str(value)


def _hint(error: object, sql: str) -> str:
    if getattr(error, "sqlite_errorcode", None) in {dbapi2.SQLITE_READONLY, dbapi2.SQLITE_AUTH}:
        return "; this command reads one file and writes none"
    if sql.lstrip().startswith("."):
        return '; this command knows SQL alone: "SELECT sql FROM sqlite_schema" shows the tables'
    return ""


if __name__ == "__main__":
    sys.exit(main())
