"""Reads once what the columns of a table hold: their ranges, and whether a feature says what Class says."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fraud_detection.features import LIMIT
from jobs.exchange.feature_problems import COMPANIONS
from jobs.exchange.table import BadTransactionFile, Chunk, Table, WrongColumnType


@dataclass(frozen=True)
class Values:
    """What the column of a feature holds; its range is NaN if a cell has no number."""

    name: str
    lowest: float
    highest: float
    is_binary: bool
    """It holds both 0 and 1, and nothing else."""
    says_class: bool
    """It has one value in every fraud and another one in every genuine transaction."""


class ColumnValues:
    """The values of columns, read from the first row to the last."""

    def __init__(self, table: Table, features: Sequence[int], companions: Sequence[int]) -> None:
        self.bad: list[int] = []
        """Columns with a cell that is not as expected."""
        self.broken_row: str | None = None
        """Why reading ended at a row."""
        self._header = table.header
        self._features = list(features)
        self._seconds = [place for place in companions if table.header[place] == "Time"]
        self._texts = [place for place in companions if table.header[place] != "Time"]
        self._begin()
        self._read_table(table)

    @property
    def rows(self) -> int:
        """Return how many rows were read."""
        return self._counts[0]

    def of_features(self) -> list[Values]:
        """Return what was read of each feature, in order, but for columns whose type is no number."""
        lowest, genuine_lowest, fraud_lowest = self._lowest
        highest, genuine_highest, fraud_highest = self._highest
        is_binary = self._only_0_and_1 & (lowest < highest)
        _, genuine, frauds = self._counts
        # Of one fraud, any column that is constant otherwise would say so.
        says_class = (is_binary | (min(genuine, frauds) > 1)) & (genuine_lowest != fraud_lowest)
        says_class &= (genuine_lowest == genuine_highest) & (fraud_lowest == fraud_highest)
        names = [self._header[place] for place in self._features]
        columns = (column.tolist() for column in (lowest, highest, is_binary, says_class))
        return [Values(*of_one) for of_one in zip(names, *columns, strict=True)]

    def _begin(self) -> None:
        # Each of all rows, of the genuine ones, and of the frauds.
        self._counts = [0, 0, 0]
        self._lowest = np.full((3, len(self._features)), np.inf)
        self._highest = np.full((3, len(self._features)), -np.inf)
        self._only_0_and_1 = np.ones(len(self._features), dtype=np.bool_)

    def _read_table(self, table: Table) -> None:
        while self._features or self._seconds or self._texts:
            try:
                for chunk in table.chunks([*self._features, *self._seconds], self._texts):
                    self._read(chunk)
            except WrongColumnType as error:  # before any row, and only of Parquet, whose columns have types
                place = table.header.index(error.column)
                self.bad.append(place)
                for places in (self._features, self._seconds, self._texts):
                    places[:] = [each for each in places if each != place]
                self._begin()
            except BadTransactionFile as error:
                self.broken_row = str(error)
                return
            else:
                return

    def _read(self, chunk: Chunk) -> None:
        limits = np.array([LIMIT] * len(self._features) + [np.finfo(np.float64).max] * len(self._seconds))
        is_bad = ~(np.abs(chunk.numbers) <= limits).all(axis=0)  # which NaN is not, either
        self._mark(np.array([*self._features, *self._seconds])[is_bad].tolist())
        truths = self._read_texts(chunk)
        numbers = chunk.numbers[:, : len(self._features)]
        self._only_0_and_1 &= np.isin(numbers, (0, 1)).all(axis=0)
        for group, rows in enumerate((numbers, numbers[truths == 0], numbers[truths == 1])):
            self._counts[group] += len(rows)
            if len(rows):
                self._lowest[group] = np.minimum(self._lowest[group], rows.min(axis=0))
                self._highest[group] = np.maximum(self._highest[group], rows.max(axis=0))

    def _read_texts(self, chunk: Chunk) -> NDArray[np.int64]:
        """Look at the cells of companions; return of each row 1 for fraud, 0 for genuine, -1 for unknown."""
        truths: list[object] = []
        for place, cells in zip(self._texts, chunk.texts, strict=True):
            try:
                found = [COMPANIONS[self._header[place]].read(cell) for cell in cells]
            except ValueError:
                self._mark([place])
                continue
            if self._header[place] == "Class":
                truths = found
        unknown = [None] * len(chunk.lines)
        return np.array([-1 if truth is None else int(bool(truth)) for truth in truths or unknown], dtype=np.int64)

    def _mark(self, places: Sequence[int]) -> None:
        self.bad += [place for place in places if place not in self.bad]
