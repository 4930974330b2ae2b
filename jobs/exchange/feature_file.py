"""Writes a first FEATURES_FILE from a table: names from its header, generous bounds from its values."""

import json
import math
import shlex
from collections.abc import Callable, Collection
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fraud_detection.features import LIMIT, Feature, FeatureList
from jobs.exchange.read_table import open_table
from jobs.exchange.table import BadTransactionFile, WrongColumnType, bad_row

NO_FEATURES = frozenset({"Class", "Time", "ts", "transaction_id"})
_SPANS = 10.0  # beyond the values in the file; a bound must stop broken feeds, not rare customers


def feature_list_of(path: Path, *, left_out: Collection[str] = ()) -> FeatureList:
    """Return a feature for each column that is neither left out nor Class, Time, ts or transaction_id.

    The bounds lie ten times the spread beyond the values. If no value is negative, the lower bound is 0.

    Raises BadTransactionFile, BadFeatureList.
    """
    lowest: NDArray[np.float64] | None = None
    highest: NDArray[np.float64] | None = None
    with open_table(path) as table:
        header = table.header
        places = [place for place, name in enumerate(header) if name not in {*NO_FEATURES, *left_out}]
        unnamed = next((place + 1 for place in places if not header[place]), None)
        if unnamed is not None:
            raise BadTransactionFile(
                f"{table.header_place}: column {unnamed} has no name (an index that pandas wrote?); leave it out with "
                "`--leave-out ''`"
            )
        if not places:
            raise BadTransactionFile(f"{table.header_place}: expected a header line that names the features")
        try:
            for chunk in table.chunks(places, []):
                bad = np.argwhere(~np.isfinite(chunk.numbers))
                if len(bad):
                    row, column = bad[0].tolist()
                    name = header[places[column]]
                    expected = "expected a number, because a feature is one number"
                    raise bad_row(table, chunk.lines[row], f"column {name}: {expected}; {_way_out(name)}")
                lowest, highest = _extended(lowest, highest, chunk.numbers)
        except WrongColumnType as error:
            raise BadTransactionFile(f"{error}; {_way_out(error.column)}") from error
    if lowest is None or highest is None:
        raise BadTransactionFile(f"{path}: holds no transactions")
    bounds = zip(places, lowest.tolist(), highest.tolist(), strict=True)
    return FeatureList(tuple(_feature(header[place], low, high) for place, low, high in bounds))


def _way_out(name: str) -> str:
    return f"encode it as numbers, or leave it out (`--leave-out {shlex.quote(name)}`)"


def _extended(
    lowest: NDArray[np.float64] | None, highest: NDArray[np.float64] | None, page: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    low, high = np.min(page, axis=0), np.max(page, axis=0)
    if lowest is None or highest is None:
        return low, high
    return np.minimum(low, lowest), np.maximum(high, highest)


def _feature(name: str, low: float, high: float) -> Feature:
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
    lines = [
        json.dumps(
            {
                "name": feature.name,
                "minimum": feature.minimum,
                "maximum": feature.maximum,
                "description": feature.description,
            },
            ensure_ascii=False,
        )
        for feature in features.features
    ]
    return '{"features": [\n  ' + ",\n  ".join(lines) + "\n]}\n"
