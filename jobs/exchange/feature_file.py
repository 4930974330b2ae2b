"""Writes a first FEATURES_FILE from a CSV file: names from its header, generous bounds from its values."""

import json
import math
from collections.abc import Callable, Collection
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fraud_detection.features import LIMIT, Feature, FeatureList
from jobs.exchange.transaction_file import BadTransactionFile, open_csv

NO_FEATURES = frozenset({"Class", "Time", "ts", "transaction_id"})
_SPANS = 10.0  # beyond what the file shows; a bound is for broken feeds, not for rare customers
_PAGE_ROWS = 10_000


def feature_list_of(path: Path, *, left_out: Collection[str] = ()) -> FeatureList:
    """Return a feature for each column that is neither left out nor Class, Time, ts or transaction_id.

    The bounds are ten times the spread of the values away from them; 0 below where nothing is negative.

    Raises BadTransactionFile, BadFeatureList.
    """
    lowest: NDArray[np.float64] | None = None
    highest: NDArray[np.float64] | None = None
    with open_csv(path) as (reader, _):
        header = [name.strip() for name in next(reader, [])]
        places = [place for place, name in enumerate(header) if name not in {*NO_FEATURES, *left_out}]
        if not places:
            raise BadTransactionFile(f"{path}, line 1: expected a header line that names the features")
        page: list[list[float]] = []
        for line in reader:
            if line:
                page.append(_numbers(path, reader.line_num, header, line, places))
            if len(page) == _PAGE_ROWS:
                lowest, highest = _extended(lowest, highest, page)
                page = []
        if page:
            lowest, highest = _extended(lowest, highest, page)
    if lowest is None or highest is None:
        raise BadTransactionFile(f"{path}: holds no transactions")
    bounds = zip(places, lowest.tolist(), highest.tolist(), strict=True)
    return FeatureList(tuple(_feature(header[place], low, high) for place, low, high in bounds))


def _numbers(path: Path, number: int, header: list[str], line: list[str], places: list[int]) -> list[float]:
    if len(line) != len(header):
        raise BadTransactionFile(f"{path}, line {number}: expected {len(header)} columns, got {len(line)}")
    numbers = []
    for place in places:
        try:
            value = float(line[place])
        except ValueError:
            value = math.nan
        if not math.isfinite(value):
            raise BadTransactionFile(
                f"{path}, line {number}: column {header[place]}: expected a number; a feature is one number, so turn "
                f"it into one or more, or leave it out (`--leave-out {header[place]}`)"
            )
        numbers.append(value)
    return numbers


def _extended(
    lowest: NDArray[np.float64] | None, highest: NDArray[np.float64] | None, page: list[list[float]]
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
    """Round to two digits, away from the values that were seen.

    >>> _outward(1234.5, math.ceil), _outward(-0.0371, math.floor)
    (1300.0, -0.038)
    """
    if value == 0:
        return 0.0
    unit = 10.0 ** (math.floor(math.log10(abs(value))) - 1)
    return float(f"{towards(value / unit) * unit:.2g}")


def to_json(features: FeatureList) -> str:
    """Render a FEATURES_FILE, a line for each feature."""
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
