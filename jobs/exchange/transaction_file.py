"""Reads files of transactions: the public credit-card layout, the same already scaled, or your own features."""

import shlex
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from fraud_detection.clock import TIME_FORM, stored_time, timestamp
from fraud_detection.contract import PLAIN_AMOUNT, SCALED_AMOUNT, TRANSACTION_ID_FORM
from fraud_detection.features import FeatureList, InvalidTransactions, Matrix
from fraud_detection.model.manifest import AmountScaling
from jobs.exchange.cell import read_id, read_truth
from jobs.exchange.read_table import open_table
from jobs.exchange.table import BadTransactionFile, Chunk, Table, bad_row, instead_of_names, repeated_column

T = TypeVar("T")
R = TypeVar("R")

PUBLIC_START = datetime(2013, 9, 1, tzinfo=UTC)
"""When the public data set, whose Time counts seconds from its first transaction, was collected."""

_PLAIN_COLUMN = f"name the column {PLAIN_AMOUNT} in place of {SCALED_AMOUNT}, and the import scales it"
_NO_SECONDS = "column Time: expected a number of seconds after the start"


@dataclass(frozen=True)
class Layout:
    """The meaning of each column of a file."""

    header: tuple[str, ...]
    unit: str
    """What the places of its rows count: "line" or "row"."""
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
    def has_times(self) -> bool:
        """Return whether the file says when each transaction took place."""
        return self.time_place is not None or self.ts_place is not None

    @property
    def number_places(self) -> list[int]:
        """Return the columns that hold numbers: the features, then Time."""
        return [*self.feature_places, *_known(self.time_place)]

    @property
    def text_places(self) -> list[int]:
        """Return the columns that hold text."""
        return _known(self.class_place, self.ts_place, self.id_place)


@dataclass(frozen=True)
class Page:
    """Consecutive transactions of a file; columns of equal length, at most CHUNK_ROWS."""

    lines: list[int]
    """The line on which each ends, or its row in a Parquet file, counted from 1."""
    matrix: Matrix
    ts: list[str]
    is_fraud: list[bool | None]
    transaction_ids: list[str | None]
    bytes_read: int
    """Bytes of the file (as on disk) that were read so far."""


def read_layout(path: Path, features: FeatureList, *, ignored: Collection[str] = (), strict: bool = True) -> Layout:
    """Read from the header of a file the meaning of each column.

    `strict` rejects a file without `Class`, and a column that would be dropped unless it is `ignored`.

    Raises BadTransactionFile.
    """
    with open_table(path) as table:
        header, where, unit = table.header, table.header_place, table.unit
        instead = instead_of_names(table)
        expected = "a header line with commas that names" if unit == "line" else "a column for"
    places = {name: place for place, name in enumerate(header)}
    repeated = next((name for name, count in Counter(header).items() if name and count > 1), None)
    if repeated is not None:
        raise repeated_column(where, repeated)
    wanted = [PLAIN_AMOUNT if _to_be_scaled(name, places) else name for name in features.names]
    missing = [name for name in wanted if name not in places]
    if missing:
        raise BadTransactionFile(
            f"{where}: expected {expected} every feature, {missing[0]} is missing"
            + (
                instead
                or "; if your transactions have other features, write a FEATURES_FILE with `fraudctl features init`"
            )
        )
    layout = Layout(
        header,
        unit,
        tuple(places[name] for name in wanted),
        amount_place=next((index for index, name in enumerate(features.names) if name != wanted[index]), None),
        class_place=places.get("Class"),
        time_place=None if "Time" in features.names else places.get("Time"),
        ts_place=places.get("ts"),
        id_place=places.get("transaction_id"),
    )
    if strict:
        _refuse_to_drop(where, layout, ignored)
    return layout


def _to_be_scaled(name: str, places: Collection[str]) -> bool:
    return name == SCALED_AMOUNT and name not in places and PLAIN_AMOUNT in places


def _known(*places: int | None) -> list[int]:
    return [place for place in places if place is not None]


def _refuse_to_drop(where: str, layout: Layout, ignored: Collection[str]) -> None:
    if layout.class_place is None:
        other_case = next((name for name in layout.header if name.lower() == "class"), None)
        raise BadTransactionFile(
            f"{where}: expected a column Class (1 fraud, 0 genuine, empty if unknown)"
            + (
                "; to score transactions without it, use `fraudctl score`"
                if other_case is None
                else f", got {other_case}; rename it"
            )
        )
    taken = {*layout.number_places, *layout.text_places}
    unnamed = [place + 1 for place, name in enumerate(layout.header) if not name]
    for place, name in enumerate(layout.header):
        if place not in taken and name not in ignored:
            if unnamed == [place + 1]:
                raise BadTransactionFile(
                    f"{where}: column {place + 1} has no name (an index that pandas wrote?) and would be dropped; "
                    "to drop it, add `--ignore ''`"
                )
            if not name:
                raise BadTransactionFile(
                    f"{where}: columns {', '.join(map(str, unnamed[:5]))}{' …' * (len(unnamed) > 5)} have no name "
                    "(commas at the ends of lines?) and would be dropped; to drop them, add `--ignore ''`"
                )
            raise BadTransactionFile(
                f"{where}: column {name!r} is neither a feature nor Class, Time, ts or transaction_id, "
                f"and would be dropped; to drop it, add `--ignore {shlex.quote(name)}`"
            )


def amount_scaling_of(path: Path, layout: Layout) -> AmountScaling:
    """Return mean and standard deviation (of the population) of the file's Amount.

    A cell without a number is left out, because `pages` finds it and names its line.

    Raises BadTransactionFile.
    """
    if layout.amount_place is None:
        raise AssertionError("asked only for a file with a plain Amount")
    with open_table(path) as table:
        chunks = table.chunks([layout.feature_places[layout.amount_place]], [])
        amounts = np.concatenate([np.empty(0), *(chunk.numbers[:, 0] for chunk in chunks)])
    finite = amounts[np.isfinite(amounts)]
    spread = float(finite.std()) if len(finite) else 0.0
    if spread == 0:
        raise BadTransactionFile(f"{path}: expected amounts that differ, because the scaling is computed from them")
    return AmountScaling(float(finite.mean()), spread)


def pages(
    path: Path,
    features: FeatureList,
    layout: Layout,
    *,
    scaling: AmountScaling | None = None,
    start: datetime = PUBLIC_START,
) -> Iterator[Page]:
    """Read the transactions of a file in pages; `scaling` is needed if the Amount is plain.

    Without Time and ts the rows are dated one second apart, from `start`, in the order of the file.

    Raises BadTransactionFile at the first line that is not a transaction.
    """
    with open_table(path) as table:
        parser = _Parser(table, features, layout, scaling, start)
        for chunk in table.chunks(layout.number_places, layout.text_places):
            yield parser.page(chunk)
    if parser.count == 0:
        raise BadTransactionFile(f"{path}: holds no transactions")


class _Parser:
    """Turns chunks into pages, and counts their rows."""

    def __init__(
        self,
        table: Table,
        features: FeatureList,
        layout: Layout,
        scaling: AmountScaling | None,
        start: datetime,
    ) -> None:
        self.table, self.features = table, features
        self.layout, self.scaling, self.start = layout, scaling, start
        self.count = 0

    def page(self, chunk: Chunk) -> Page:
        layout = self.layout
        if chunk.unreadable.any():
            row, column = np.argwhere(chunk.unreadable)[0].tolist()
            raise self.bad(chunk, row, self.no_number(layout.number_places[column]))
        texts = dict(zip(layout.text_places, chunk.texts, strict=True))
        page = Page(
            chunk.lines,
            self.matrix(chunk),
            self.times(chunk, texts),
            self.truths(chunk, texts),
            self.ids(chunk, texts),
            chunk.bytes_read,
        )
        self.count += len(chunk.lines)
        return page

    def no_number(self, place: int) -> str:
        if place == self.layout.time_place:
            return _NO_SECONDS
        return f"column {self.layout.header[place]}: expected a number"

    def matrix(self, chunk: Chunk) -> Matrix:
        numbers = chunk.numbers[:, : len(self.features)].copy()
        if self.layout.amount_place is not None and self.scaling is not None:
            place = self.layout.amount_place
            numbers[:, place] = self.scaling.scaled(numbers[:, place])
        try:
            self.features.check(numbers)
        except InvalidTransactions:
            for row in range(len(numbers)):
                try:
                    self.features.check(numbers[row : row + 1], if_unscaled=_PLAIN_COLUMN)
                except InvalidTransactions as error:
                    wrong = self.wrong_amount(numbers[row]) or str(error).removeprefix("row 0, ")
                    raise self.bad(chunk, row, wrong) from error
            raise
        return numbers

    def wrong_amount(self, row: NDArray[np.float64]) -> str | None:
        """Return what is wrong with a plain Amount in its own units, None if nothing is."""
        place = self.layout.amount_place
        if place is None or self.scaling is None:
            return None
        wrong = self.features.amount_problem(float(row[place]), self.scaling)
        return None if wrong is None else f"column {PLAIN_AMOUNT}: {wrong}"

    def truths(self, chunk: Chunk, texts: dict[int, list[str]]) -> list[bool | None]:
        if self.layout.class_place is None:
            return [None] * len(chunk.lines)
        return self.each(chunk, texts[self.layout.class_place], read_truth, "column Class: expected 0, 1 or nothing")

    def times(self, chunk: Chunk, texts: dict[int, list[str]]) -> list[str]:
        if self.layout.ts_place is not None:
            expected = f"column ts: expected {TIME_FORM}"
            return self.each(chunk, texts[self.layout.ts_place], stored_time, expected)
        seconds: Iterable[float] = range(self.count, self.count + len(chunk.lines))
        if self.layout.time_place is not None:
            seconds = chunk.numbers[:, -1].tolist()
        return self.each(chunk, seconds, self.after_start, _NO_SECONDS)

    def after_start(self, seconds: float) -> str:
        return timestamp(self.start + timedelta(seconds=seconds))

    def ids(self, chunk: Chunk, texts: dict[int, list[str]]) -> list[str | None]:
        if self.layout.id_place is None:
            return [None] * len(chunk.lines)
        expected = f"column transaction_id: expected {TRANSACTION_ID_FORM}"
        return self.each(chunk, texts[self.layout.id_place], read_id, expected)

    def each(self, chunk: Chunk, values: Iterable[T], read: Callable[[T], R], expected: str) -> list[R]:
        """Read every value of a column; raises the error of the first row whose value `read` rejects."""
        found: list[R] = []
        try:
            for value in values:
                found.append(read(value))
        except (ValueError, OverflowError):
            raise self.bad(chunk, len(found), expected) from None
        return found

    def bad(self, chunk: Chunk, row: int, what: str) -> BadTransactionFile:
        return bad_row(self.table, chunk.lines[row], what)
