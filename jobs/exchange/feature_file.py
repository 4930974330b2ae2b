"""Writes a first FEATURES_FILE from a table: names from its header, generous bounds from its values."""

import dataclasses
import json
import math
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fraud_detection.counted import counted
from fraud_detection.features import LIMIT, Feature, FeatureList
from jobs.exchange.feature_problems import cell_problems, name_problems
from jobs.exchange.read_table import open_table
from jobs.exchange.table import BadTransactionFile, Table, WrongColumnType

NO_FEATURES = frozenset({"Class", "Time", "ts", "transaction_id"})
_NAMES_OF_THE_TRUTH = frozenset({"fraud", "is_fraud", "isfraud", "label", "target", "truth"})
_SPANS = 10.0  # beyond the values in the file; a bound must stop broken feeds, not rare customers


@dataclass(frozen=True)
class Draft:
    """A first feature list, and what its writer should know before using it."""

    features: FeatureList
    perhaps_the_truth: tuple[str, ...]
    """Features that hold 0 and 1 and nothing else, or whose name says that they are the label."""
    has_labels: bool
    """Whether the file has a column Class, which an import needs."""


def draft_of(path: Path, *, left_out: Collection[str] = ()) -> Draft:
    """Return a feature for each column that is neither left out nor Class, Time, ts or transaction_id.

    The bounds lie ten times the spread beyond the values. If no value is negative, the lower bound is 0. A column of
    0 and 1 is bound to them.

    Raises BadTransactionFile, whose message lists every problem of the file; raises BadFeatureList.
    """
    with open_table(path) as table:
        header = table.header
        if not header:
            raise BadTransactionFile(f"{path}: is empty; expected a header line that names the features")
        where = "line 1: " if table.unit == "line" else ""
        columns = [place for place, name in enumerate(header) if name not in {*NO_FEATURES, *left_out}]
        problems = name_problems(header, columns, left_out, where)
        if not columns:
            problems.append(f"{where}expected a header line that names the features")
        once = [place for place in columns if header[place] and header.count(header[place]) == 1]
        values = _Values(table, once)
    if values.broken_row is not None:
        problems.append(values.broken_row.removeprefix(f"{path}, "))
    if values.not_numbers:
        problems += cell_problems(path, sorted(values.not_numbers))
    if problems:
        listed = "".join(f"\n- {problem}" for problem in problems)
        raise BadTransactionFile(f"{path}: {counted(len(problems), 'problem')}:{listed}")
    if not values.rows:
        raise BadTransactionFile(f"{path}: is empty below its header; it holds no transactions")
    names = [header[place] for place in columns]
    are_binary = values.are_binary.tolist()
    found = zip(names, values.lowest.tolist(), values.highest.tolist(), are_binary, strict=True)
    return Draft(
        FeatureList(tuple(_feature(*each) for each in found)),
        perhaps_the_truth=tuple(
            name
            for name, is_binary in zip(names, are_binary, strict=True)
            if is_binary or name.lower() in _NAMES_OF_THE_TRUTH
        ),
        has_labels="Class" in header,
    )


class _Values:
    """What columns of numbers hold, read once from the first row to the last."""

    def __init__(self, table: Table, places: Sequence[int]) -> None:
        self.rows = 0
        self.lowest = np.full(len(places), np.inf)
        self.highest = np.full(len(places), -np.inf)
        self._only_0_and_1 = np.ones(len(places), dtype=np.bool_)
        self.broken_row: str | None = None
        """Why reading ended at a row."""
        self.not_numbers: list[int] = []
        """Columns with a cell that holds no finite number."""
        readable = list(places)
        while readable:
            try:
                for chunk in table.chunks(readable, []):
                    self._read(chunk.numbers, readable)
            except WrongColumnType as error:  # before any row, and only of Parquet, whose columns have types
                place = table.header.index(error.column)
                self.not_numbers.append(place)
                readable.remove(place)
            except BadTransactionFile as error:
                self.broken_row = f"{error}; correct it first, because reading ended there"
                return
            else:
                return

    @property
    def are_binary(self) -> NDArray[np.bool_]:
        """Return which columns hold both 0 and 1, and nothing else."""
        return self._only_0_and_1 & (self.lowest < self.highest)

    def _read(self, numbers: NDArray[np.float64], places: Sequence[int]) -> None:
        self.rows += len(numbers)
        bad = ~np.isfinite(numbers).all(axis=0)
        self.not_numbers += [place for place in np.array(places)[bad].tolist() if place not in self.not_numbers]
        if not self.not_numbers:
            self.lowest = np.minimum(self.lowest, numbers.min(axis=0))
            self.highest = np.maximum(self.highest, numbers.max(axis=0))
            self._only_0_and_1 &= np.isin(numbers, (0, 1)).all(axis=0)


def _feature(name: str, low: float, high: float, is_binary: bool) -> Feature:
    if is_binary:
        return Feature(name, minimum=0.0, maximum=1.0, description="0 or 1")
    span = (high - low) or abs(high) or 1.0
    minimum = 0.0 if low >= 0 else max(-LIMIT, _outward(low - _SPANS * span, math.floor))
    maximum = min(LIMIT, _outward(high + _SPANS * span, math.ceil))
    return Feature(name, minimum, maximum, description=f"seen from {low:g} to {high:g}")


def _outward(value: float, towards: Callable[[float], int]) -> float:
    """Round to two digits, away from the values in the file.

    >>> _outward(1234.5, math.ceil), _outward(-0.0371, math.floor)
    (1300.0, -0.038)
    """
    if value == 0:
        return 0.0
    unit = 10.0 ** (math.floor(math.log10(abs(value))) - 1)
    return float(f"{towards(value / unit) * unit:.2g}")


def to_json(features: FeatureList) -> str:
    """Render a FEATURES_FILE with one line per feature."""
    lines = []
    for feature in features.features:
        entry = dataclasses.asdict(feature)
        if (feature.seen_minimum, feature.seen_maximum) == (-LIMIT, LIMIT):  # not known
            del entry["seen_minimum"], entry["seen_maximum"]
        lines.append(json.dumps(entry, ensure_ascii=False))
    return '{"features": [\n  ' + ",\n  ".join(lines) + "\n]}\n"
