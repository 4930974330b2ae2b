"""Imports the `requests` table of an older installation: transactions that it scored, labelled or not."""

import contextlib
import hashlib
import shlex
import time
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from pysqlite3 import dbapi2

from fraud_detection.clock import TIME_FORM, Clock, stored_time, timestamp
from fraud_detection.contract import PLAIN_AMOUNT, SCALED_AMOUNT, TRANSACTION_ID_FORM
from fraud_detection.counted import counted
from fraud_detection.database import DatabaseRefused
from fraud_detection.database.engine import open_engine
from fraud_detection.exit_codes import ExitCode, ExpectedError
from fraud_detection.features import FeatureList, InvalidTransactions, Matrix
from fraud_detection.lock import alone_with_file
from fraud_detection.store import Store
from fraud_detection.store.transfer import ImportedRows
from jobs.exchange.cell import read_id, read_number, read_truth, text_of
from jobs.exchange.import_file import Imported, import_rows, latest_time, remember_import
from jobs.exchange.table import CHUNK_ROWS, MAX_CELL
from jobs.installation import Installation
from jobs.progress import bar

SCORES = frozenset({"fraud_probability", "fraud_prob", "probability", "proba", "prob", "score", "fraud_score"})
"""Names under which older installations stored their scores."""


DEADLINE_SECONDS = 120
_STEPS_BETWEEN_TIME_CHECKS = 10_000  # of SQLite's virtual machine: well below a millisecond
_EARLIEST_SECOND = datetime(2000, 1, 1, tzinfo=UTC).timestamp()
"""Smaller numbers are no seconds since 1970, but a date without separators or seconds since another start."""


_DAMAGED = "expected a whole SQLite database, but this file is damaged or cut off"
_AS_A_FILE = (
    f"write the table to a CSV file with a column {PLAIN_AMOUNT} in place of {SCALED_AMOUNT}, and import that with "
    "`fraudctl import`, which scales it"
)
_RECOVER = "copy it once more from its source, or import what `sqlite3 FILE .recover` saves"


class BadOldDatabase(ExpectedError):
    """A database whose requests cannot be imported; the message names row and column."""

    exit_code = ExitCode.UNUSABLE


@dataclass(frozen=True)
class _OldTable:
    """Columns of an older installation, in the order in which they are read."""

    table: sa.Table
    features: list[sa.Column[Any]]
    truth: sa.Column[Any] | None
    ts: sa.Column[Any] | None
    transaction_id: sa.Column[Any] | None
    left_behind: list[str]

    def query(self) -> sa.Select[Any]:
        optional = (self.truth, self.ts, self.transaction_id)
        columns = [*self.features, *optional]
        order = [] if self.ts is None else [_bounded(self.ts)]
        query = sa.select(*(sa.null() if column is None else _bounded(column) for column in columns))
        return query.select_from(self.table).order_by(*order, sa.literal_column("rowid"))


def _bounded(column: sa.Column[Any]) -> sa.ColumnElement[Any]:
    """Select a cell; in place of one that is too long an empty blob, which is no number, no text and no time."""
    is_number = sa.func.typeof(column).in_(["integer", "real", "null"])
    is_short = sa.func.octet_length(column) <= MAX_CELL  # for which SQLite does not load the cell
    return sa.case((sa.or_(is_number, is_short), column), else_=sa.literal_column("x''"))


@dataclass(frozen=True)
class ImportedDatabase:
    """Rows that were imported, and columns that were left behind."""

    imported: Imported
    left_behind: list[str]


def import_db(
    path: Path,
    here: Installation,
    *,
    now: datetime,
    ignored: Collection[str] = (),
    with_labels: bool = True,
    again: bool = False,
) -> ImportedDatabase:
    """Import the rows of an SQLite file's table `requests` into the store of imported history: all of them or none.

    Its scores stay behind: without their model and threshold they are not decisions. `with_labels=False` also leaves
    its Class behind, for installations that filled it from their own scores. Rows without a time are dated one second
    apart, the last one now.

    Raises BadOldDatabase, AlreadyImported, StoreInUse, DatabaseRefused.
    """
    features, location = here.features, here.settings.train_location
    engine = open_engine(path, read_only=True, allow_network_filesystem=True)
    _require_sqlite(path)
    try:
        with contextlib.ExitStack() as stack:
            with _reading(path):
                old = stack.enter_context(engine.connect())
                table = _recognise(path, old, features, ignored, with_labels=with_labels)
            stack.enter_context(alone_with_file(location))
            store = stack.enter_context(here.store_to_fill(location))
            with store.begin() as connection:
                imported = _copy(_Rows(path, old, table, features, now), store, connection, now, again=again)
    finally:
        engine.dispose()
    return ImportedDatabase(imported, table.left_behind)


def _recognise(
    path: Path, old: sa.Connection, features: FeatureList, ignored: Collection[str], *, with_labels: bool
) -> _OldTable:
    known = sa.inspect(old)
    if known.has_table("alembic_version"):
        raise BadOldDatabase(
            f"{path}: is a store of this program; set TRAIN_DB to it, and training reads it in addition to LATEST_DB"
        )
    if not known.has_table("requests"):
        raise BadOldDatabase(f"{path}: has no table `requests`")
    _, _, kind, _, is_without_rowid, _ = old.exec_driver_sql("PRAGMA table_list('requests')").one()
    described = known.get_columns("requests")
    if kind != "table" or is_without_rowid or any("computed" in column for column in described):
        # What these say is computed while it is read, and can take any time and memory.
        raise BadOldDatabase(
            f"{path}: expected `requests` as a plain table without computed columns; copy it into one with "
            "`CREATE TABLE … AS SELECT`, in a new database, and import that"
        )
    names = [column["name"] for column in described if column["name"]]
    if len(names) < len(described) and "" not in ignored:
        raise BadOldDatabase(f"{path}: a column has no name and would be dropped; to drop it, add `--ignore ''`")
    # Without their types, so that cells come as stored: a declared BOOLEAN would turn a 2 into True. Without the tables
    # that foreign keys name, which may be missing.
    table = sa.Table("requests", sa.MetaData(), *(sa.Column(name, sa.types.NullType()) for name in names))
    columns = {column.name.lower(): column for column in table.columns}
    missing = [name for name in features.names if name.lower() not in columns]
    if missing:
        raise BadOldDatabase(
            f"{path}: the table `requests` has no column {missing[0]}; expected {counted(len(features), 'feature')}"
        )
    taken = {name.lower() for name in features.names} | {"ts", "transaction_id"}
    left_behind = {"id"} | SCORES | {name.lower() for name in ignored}
    if with_labels:
        taken.add("class")
    else:
        left_behind.add("class")
    for name, column in columns.items():
        if name not in taken | left_behind:
            raise BadOldDatabase(
                f"{path}: column {column.name!r} would be dropped; "
                f"to drop it, add `--ignore {shlex.quote(column.name)}`"
            )
    return _OldTable(
        table,
        [columns[name.lower()] for name in features.names],
        truth=columns.get("class") if with_labels else None,
        ts=columns.get("ts"),
        transaction_id=columns.get("transaction_id"),
        left_behind=sorted(column.name for name, column in columns.items() if name in left_behind),
    )


class _Rows:
    """The old rows, in order of time, in the form that the store imports."""

    def __init__(self, path: Path, old: sa.Connection, table: _OldTable, features: FeatureList, now: datetime) -> None:
        self.path, self.old, self.table, self.features = path, old, table, features
        self.deadline = _Deadline(old)
        driver: Any = old.connection.driver_connection
        driver.text_factory = _text_or_bytes  # so that a row is named whose text is no UTF-8
        with _reading(path):
            self.count = int(old.scalar(sa.select(sa.func.count()).select_from(table.table)) or 0)
        self.first_second = now - timedelta(seconds=self.count)
        self.latest = latest_time(now)
        self.digest = hashlib.sha256()

    def pages(self) -> Iterator[ImportedRows]:
        clock = Clock()
        done = 0
        with _reading(self.path):
            read = self.old.execution_options(stream_results=True).execute(self.table.query())
        with bar(total=self.count, desc=self.path.name, unit=" rows") as drawn:
            while rows := self.next_rows(read):
                self.digest.update(repr([tuple(row) for row in rows]).encode())
                yield self.page(clock, rows, done)
                done += len(rows)
                drawn.update(len(rows))

    def next_rows(self, read: sa.CursorResult[Any]) -> Sequence[sa.Row[Any]]:
        self.deadline.restart()
        with _reading(self.path):
            return read.fetchmany(CHUNK_ROWS)

    def page(self, clock: Clock, rows: Any, done: int) -> ImportedRows:
        matrix = self.matrix([[_number(value) for value in row[:-3]] for row in rows], done)
        places = range(done, done + len(rows))
        is_fraud = [self.truth(place, row[-3]) for place, row in zip(places, rows, strict=True)]
        ts = [self.time(place, row[-2]) for place, row in zip(places, rows, strict=True)]
        ids = [self.transaction_id(place, row[-1]) for place, row in zip(places, rows, strict=True)]
        return ImportedRows(clock.tick()[1], ts, matrix, is_fraud, ids)

    def matrix(self, numbers: list[list[object]], done: int) -> Matrix:
        try:
            return self.features.to_matrix(numbers)
        except InvalidTransactions:
            for place, row in enumerate(numbers, done):
                try:
                    self.features.check(self.features.to_numbers([row], None), if_unscaled=_AS_A_FILE)
                except InvalidTransactions as error:
                    raise self.bad(place, str(error).removeprefix("row 0, ")) from error
            raise

    def truth(self, place: int, value: object) -> bool | None:
        try:
            return read_truth(_text(value))
        except ValueError as error:
            raise self.bad(place, f"Class: {error}") from None

    def transaction_id(self, place: int, value: object) -> str | None:
        try:
            return read_id(_text(value))
        except ValueError:
            raise self.bad(place, f"transaction_id: expected {TRANSACTION_ID_FORM}") from None

    def time(self, place: int, value: object) -> str:
        """Read a time as older installations wrote it: a text, or seconds since 1970."""
        try:
            if self.table.ts is None:
                return timestamp(self.first_second + timedelta(seconds=place))
            if isinstance(value, int | float) and value >= _EARLIEST_SECOND:
                ts = timestamp(datetime.fromtimestamp(value, UTC))
            else:
                ts = stored_time(str(value))
        except (ValueError, OverflowError, OSError):
            raise self.bad(place, f"ts: expected {TIME_FORM}") from None
        if ts > self.latest:
            raise self.bad(place, f"ts: expected a time that is not in the future, got {ts[:19]}")
        return ts

    def bad(self, place: int, what: str) -> BadOldDatabase:
        return BadOldDatabase(f"{self.path}, row {place + 1} in order of time: {what}")


class _Deadline:
    """Ends a query that gives no rows for DEADLINE_SECONDS; the store and its lock are then free again."""

    def __init__(self, old: sa.Connection) -> None:
        driver: Any = old.connection.driver_connection
        driver.set_progress_handler(self._has_passed, _STEPS_BETWEEN_TIME_CHECKS)
        self.restart()

    def restart(self) -> None:
        self._end = time.monotonic() + DEADLINE_SECONDS

    def _has_passed(self) -> bool:
        return time.monotonic() > self._end


@contextlib.contextmanager
def _reading(path: Path) -> Iterator[None]:
    """Say of an error of the old database what its owner can do; a backup of our store would not help."""
    try:
        yield
    except (sa.exc.DBAPIError, DatabaseRefused) as error:
        cause = error.orig if isinstance(error, sa.exc.DBAPIError) else error.__cause__
        code = getattr(cause, "sqlite_errorcode", 0) & 0xFF  # without its details
        if code == dbapi2.SQLITE_INTERRUPT:
            said = (
                f"gave no rows for {DEADLINE_SECONDS} seconds; copy the table `requests` into a new database, and "
                "import that"
            )
        elif code in {dbapi2.SQLITE_BUSY, dbapi2.SQLITE_LOCKED}:
            said = "another program holds a lock on it; stop that program, or import a copy of the file"
        elif "decode" in str(cause):
            said = "expected names of columns in UTF-8; rename the column that is not, in a copy, and import that"
        elif isinstance(error, DatabaseRefused) and error.reason != "corrupt":
            raise
        else:
            said = f"{_DAMAGED} ({cause}); {_RECOVER}"
        raise BadOldDatabase(f"{path}: {said}") from error


def _require_sqlite(path: Path) -> None:
    with path.open("rb") as file:
        is_sqlite = file.read(16) in {b"SQLite format 3\0", b""}
    if not is_sqlite:
        raise DatabaseRefused(
            "corrupt", f"{path}: is not an SQLite database; a CSV or Parquet file is read by `fraudctl import`"
        )


def _text_or_bytes(stored: bytes) -> str | bytes:
    try:
        return stored.decode()
    except UnicodeDecodeError:
        return stored


def _number(value: object) -> object:
    """Return the number in a text, which SQLite stores wherever an application wrote one; else the value itself."""
    if isinstance(value, bytes):
        return "a blob"
    if not isinstance(value, str):
        return value
    try:
        return read_number(value)
    except ValueError:
        return value


def _text(value: object) -> str:
    text = text_of(value)
    if text is None:
        raise ValueError("expected 0, 1 or nothing")
    return text


def _copy(rows: _Rows, store: Store, connection: sa.Connection, now: datetime, *, again: bool) -> Imported:
    if rows.count == 0:
        raise BadOldDatabase(f"{rows.path}: the table `requests` is empty")
    has_times = rows.table.ts is not None
    imported = import_rows(store, connection, rows.pages(), rows.path.name, now, again=again, has_times=has_times)
    # Last, because the digest needs every row: some may have been in the file's write-ahead log.
    remember_import(store, connection, rows.digest.hexdigest(), rows.path.name, now, again=again)
    return imported
