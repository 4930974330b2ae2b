"""CSV files of transactions: the public credit-card layout, the same already scaled, or one's own features."""

import contextlib
import csv
import gzip
import io
import itertools
import re
import warnings
import zlib
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from operator import itemgetter
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fraud_detection.clock import timestamp
from fraud_detection.exit_codes import ExitCode, ExpectedError
from fraud_detection.features import FeatureList, InvalidTransactions, Matrix
from fraud_detection.model.manifest import AmountScaling

PAGE_ROWS = 1000
PUBLIC_START = datetime(2013, 9, 1, tzinfo=UTC)
"""When the public data set, whose Time counts seconds from its first transaction, was collected."""

SCALED_AMOUNT = "Amount_scaled"
TRANSACTION_ID = re.compile(r"(?!/)[\x21-\x7e]{1,128}")  # what the API takes and can look up
_TRUTHS = {"": None, "0": False, "1": True, "0.0": False, "1.0": True, "false": False, "true": True}


class BadTransactionFile(ExpectedError):
    """A file that cannot be read as transactions; the message names file, line and column."""

    exit_code = ExitCode.UNUSABLE


@dataclass(frozen=True)
class Layout:
    """Which column of a file holds what."""

    header: tuple[str, ...]
    feature_places: tuple[int, ...]
    """The column of each feature, in order."""
    amount_place: int | None
    """Place among the features whose value is a plain Amount, still to be scaled."""
    class_place: int | None
    time_place: int | None
    """Seconds after a start."""
    ts_place: int | None
    id_place: int | None

    @property
    def holds_only_numbers(self) -> bool:
        """Whether every column is read, and each as a number."""
        read = {*self.feature_places, self.class_place, self.time_place}
        return read >= set(range(len(self.header)))


@dataclass(frozen=True)
class Page:
    """Transactions that stand together in a file; columns of equal length, at most PAGE_ROWS."""

    lines: list[int]
    """The line on which each ends, counted from 1."""
    matrix: Matrix
    ts: list[str]
    is_fraud: list[bool | None]
    transaction_ids: list[str | None]
    bytes_read: int
    """How much of the file (as it lies on disk) was read so far."""


def read_layout(path: Path, features: FeatureList, *, ignored: Collection[str] = (), strict: bool = True) -> Layout:
    """Read the header of a CSV file, gzipped when its name ends in .gz.

    `strict` refuses a column that would be dropped unless it is `ignored`, and a file without `Class`.

    Raises BadTransactionFile.
    """
    with open_csv(path) as (reader, _):
        header = tuple(name.strip() for name in next(reader, []))
    places = {name: place for place, name in enumerate(header)}
    if len(places) < len(header):
        raise BadTransactionFile(f"{path}, line 1: a column name appears twice")
    wanted = ["Amount" if _to_be_scaled(name, places) else name for name in features.names]
    missing = [name for name in wanted if name not in places]
    if missing:
        raise BadTransactionFile(
            f"{path}, line 1: expected a header line with commas that names every feature, {missing[0]} is missing; "
            "for other transactions than the public data set's, `fraudctl features init` writes a FEATURES_FILE"
        )
    layout = Layout(
        header,
        tuple(places[name] for name in wanted),
        amount_place=next((index for index, name in enumerate(features.names) if name != wanted[index]), None),
        class_place=places.get("Class"),
        time_place=None if "Time" in features.names else places.get("Time"),
        ts_place=places.get("ts"),
        id_place=places.get("transaction_id"),
    )
    if strict:
        _refuse_to_drop(path, layout, features, ignored)
    return layout


def _to_be_scaled(name: str, places: Collection[str]) -> bool:
    return name == SCALED_AMOUNT and name not in places and "Amount" in places


def _refuse_to_drop(path: Path, layout: Layout, features: FeatureList, ignored: Collection[str]) -> None:
    if layout.class_place is None:
        raise BadTransactionFile(
            f"{path}, line 1: expected a column Class (1 fraud, 0 genuine, empty where nobody knows); "
            "transactions without it are scored by `fraudctl score`"
        )
    taken = {
        *layout.feature_places,
        *(layout.class_place, layout.time_place, layout.ts_place, layout.id_place),
    }
    for place, name in enumerate(layout.header):
        if place not in taken and name not in ignored:
            raise BadTransactionFile(
                f"{path}, line 1: column {name!r} is none of the {len(features)} features, nor Class, Time, ts or "
                f"transaction_id, and would be dropped; say so with `--ignore {name}`"
            )


def amount_scaling_of(path: Path, layout: Layout) -> AmountScaling:
    """Return mean and standard deviation (of the population) of the file's Amount.

    Raises BadTransactionFile.
    """
    if layout.amount_place is None:
        raise AssertionError("asked only for a file with a plain Amount")
    amounts = _column(path, layout.feature_places[layout.amount_place])
    finite = amounts[np.isfinite(amounts)]
    spread = float(finite.std()) if len(finite) else 0.0
    if spread == 0:
        raise BadTransactionFile(f"{path}: expected amounts that differ, to learn from them how to scale amounts")
    return AmountScaling(float(finite.mean()), spread)


def _column(path: Path, place: int) -> NDArray[np.float64]:
    """Return the numbers of a column; what is none is left out, for `pages` finds it and names its line."""
    with open_text(path) as (text, _):
        next(text)
        with contextlib.suppress(ValueError):
            return _numbers(text, usecols=(place,))[:, 0]
    numbers = []
    with open_csv(path) as (reader, _):
        next(reader)
        for line in reader:
            with contextlib.suppress(ValueError, IndexError):
                numbers.append(float(line[place]))
    return np.array(numbers)


def _numbers(lines: Iterable[str], *, usecols: tuple[int, ...] | None = None) -> NDArray[np.float64]:
    """Read lines that hold nothing but numbers, three times as fast as csv and float; raises ValueError."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="loadtxt: input contained no data")
        found: NDArray[np.float64] = np.loadtxt(
            lines, delimiter=",", quotechar='"', comments=None, ndmin=2, usecols=usecols
        )
    return found


def pages(
    path: Path,
    features: FeatureList,
    layout: Layout,
    *,
    scaling: AmountScaling | None = None,
    start: datetime = PUBLIC_START,
) -> Iterator[Page]:
    """Read the transactions of a file, a page at a time; `scaling` is needed where the Amount is plain.

    Without Time and ts the rows are taken to be a second apart, from `start`, in the order of the file.

    Raises BadTransactionFile at the first line that is no transaction.
    """
    parser = _Parser(path, features, layout, scaling, start)
    with open_text(path) as (text, raw):
        if layout.holds_only_numbers:
            done = 1
            next(text)
            while lines := list(itertools.islice(text, PAGE_ROWS)):
                yield from parser.page_of_numbers(done, lines, raw.tell())
                done += len(lines)
        else:
            reader = csv.reader(text, skipinitialspace=True)
            next(reader)
            for line in reader:
                parser.add(reader.line_num, line)
                if len(parser.rows) == PAGE_ROWS:
                    yield from parser.page(raw.tell())
            yield from parser.page(raw.tell())
    if parser.count == 0:
        raise BadTransactionFile(f"{path}: holds no transactions")


class _Parser:
    """Collects the lines of one page."""

    def __init__(
        self, path: Path, features: FeatureList, layout: Layout, scaling: AmountScaling | None, start: datetime
    ) -> None:
        self.path, self.features, self.layout, self.scaling, self.start = path, features, layout, scaling, start
        self.numbers_of = itemgetter(*layout.feature_places, layout.feature_places[0])  # never a single value
        self.count = 0
        self.clear()

    def clear(self) -> None:
        self.rows: list[tuple[str, ...]] = []
        self.lines: list[int] = []
        self.ts: list[str] = []
        self.is_fraud: list[bool | None] = []
        self.transaction_ids: list[str | None] = []

    def page_of_numbers(self, done: int, lines: list[str], bytes_read: int) -> Iterator[Page]:
        """Give the page of some lines, which follow the first `done` ones; only where there are but numbers."""
        try:
            yield self.quickly(done, lines, bytes_read)
        except (ValueError, OverflowError, InvalidTransactions):  # a line to be named, or only something unusual
            reader = csv.reader(lines, skipinitialspace=True)
            for line in reader:
                self.add(done + reader.line_num, line)
            yield from self.page(bytes_read)

    def quickly(self, done: int, lines: list[str], bytes_read: int) -> Page:
        layout, rows = self.layout, len(lines)
        columns = _numbers(lines)
        if columns.shape != (rows, len(layout.header)):
            raise ValueError("blank lines, or another number of columns")
        is_fraud: list[bool | None] = [None] * rows
        if layout.class_place is not None:
            if not np.isin(columns[:, layout.class_place], (0, 1)).all():
                raise ValueError("a class that is none")
            is_fraud = (columns[:, layout.class_place] == 1).tolist()
        seconds = range(self.count, self.count + rows)
        if layout.time_place is not None:
            seconds = columns[:, layout.time_place].tolist()
        page = Page(
            list(range(done + 1, done + rows + 1)),
            self.matrix(columns[:, layout.feature_places]),
            [timestamp(self.start + timedelta(seconds=since)) for since in seconds],
            is_fraud,
            [None] * rows,
            bytes_read,
        )
        self.count += rows
        return page

    def add(self, number: int, line: list[str]) -> None:
        layout = self.layout
        if not line:  # csv gives an empty list for a blank line
            return
        if len(line) != len(layout.header):
            raise self.bad(number, f"expected {len(layout.header)} columns, got {len(line)}")
        self.rows.append(self.numbers_of(line))
        self.lines.append(number)
        self.ts.append(self.time(number, line))
        self.is_fraud.append(None if layout.class_place is None else self.truth(number, line[layout.class_place]))
        self.transaction_ids.append(None if layout.id_place is None else self.id(number, line[layout.id_place]))
        self.count += 1

    def page(self, bytes_read: int) -> Iterator[Page]:
        """Give what was added as a page, if there is any."""
        if not self.rows:
            return
        try:
            matrix = self.matrix(np.array(self.rows, dtype=np.float64)[:, :-1])
        except (ValueError, InvalidTransactions):
            self.name_the_bad_line()
            raise
        yield Page(self.lines, matrix, self.ts, self.is_fraud, self.transaction_ids, bytes_read)
        self.clear()

    def matrix(self, numbers: NDArray[np.float64]) -> Matrix:
        if self.layout.amount_place is not None and self.scaling is not None:
            amounts = numbers[:, self.layout.amount_place]
            amounts -= self.scaling.mean
            amounts /= self.scaling.standard_deviation
        return self.features.to_matrix(numbers.tolist())

    def name_the_bad_line(self) -> None:
        for number, row in zip(self.lines, self.rows, strict=True):
            for place, text in zip(self.layout.feature_places, row, strict=False):
                try:
                    float(text)
                except ValueError:
                    raise self.bad(number, f"column {self.layout.header[place]}: expected a number") from None
            try:
                self.matrix(np.array([row], dtype=np.float64)[:, :-1])
            except InvalidTransactions as error:
                raise self.bad(number, str(error).removeprefix("row 0, ")) from error

    def truth(self, number: int, text: str) -> bool | None:
        try:
            return read_truth(text)
        except ValueError as error:
            raise self.bad(number, f"column Class: {error}") from None

    def time(self, number: int, line: list[str]) -> str:
        layout = self.layout
        if layout.ts_place is not None:
            try:
                return stored_time(line[layout.ts_place])
            except ValueError:
                raise self.bad(number, "column ts: expected a time such as 2026-08-22 10:15:30") from None
        if layout.time_place is None:
            return timestamp(self.start + timedelta(seconds=self.count))
        try:
            return timestamp(self.start + timedelta(seconds=float(line[layout.time_place])))
        except (ValueError, OverflowError):
            raise self.bad(number, "column Time: expected a number of seconds after the start") from None

    def id(self, number: int, text: str) -> str | None:
        if text and not TRANSACTION_ID.fullmatch(text):
            raise self.bad(number, "column transaction_id: expected 1 to 128 visible ASCII characters without spaces")
        return text or None

    def bad(self, number: int, what: str) -> BadTransactionFile:
        return BadTransactionFile(f"{self.path}, line {number}: {what}")


def read_truth(text: str) -> bool | None:
    """Return whether a field says fraud, None when it is empty; raises ValueError.

    >>> read_truth("1"), read_truth("false"), read_truth("")
    (True, False, None)
    """
    try:
        return _TRUTHS[text.strip().strip("'").lower()]  # one mirror of the public set writes '0' in quotes
    except KeyError:
        raise ValueError("expected 0, 1 or nothing") from None


def stored_time(text: str) -> str:
    """Return an ISO 8601 time as it is stored; without an offset it is UTC. Raises ValueError.

    >>> stored_time("2026-08-22T10:15:30+02:00")
    '2026-08-22 08:15:30.000000'
    """
    moment = datetime.fromisoformat(text.strip())
    return timestamp(moment if moment.tzinfo else moment.replace(tzinfo=UTC))


@contextlib.contextmanager
def open_csv(path: Path) -> Iterator[tuple[Any, io.BufferedReader]]:
    """Give a reader of the lines, and the file as it lies on disk, whose position tells how far it is read.

    Raises BadTransactionFile, also for what goes wrong while the block reads.
    """
    with open_text(path) as (text, raw):
        yield csv.reader(text, skipinitialspace=True), raw


@contextlib.contextmanager
def open_text(path: Path) -> Iterator[tuple[io.TextIOWrapper, io.BufferedReader]]:
    """As open_csv, but the text itself."""
    try:
        with (
            path.open("rb") as raw,
            gzip.open(raw) if path.suffix == ".gz" else contextlib.nullcontext(raw) as unpacked,
            io.TextIOWrapper(unpacked, encoding="utf-8-sig", newline="") as text,
        ):
            yield text, raw
    except UnicodeDecodeError as error:
        raise BadTransactionFile(f"{path}: is no UTF-8 text ({error.reason})") from error
    except (csv.Error, gzip.BadGzipFile, zlib.error, EOFError) as error:
        raise BadTransactionFile(f"{path}: cannot be read as CSV ({error})") from error
    except OSError as error:
        raise BadTransactionFile(f"{path}: cannot be read ({error.strerror})") from error
