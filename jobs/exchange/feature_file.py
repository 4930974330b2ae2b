"""Writes a first FEATURES_FILE from a table: names from its header, generous bounds from its values."""

import dataclasses
import json
import math
import shlex
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

from fraud_detection.counted import counted
from fraud_detection.features import LIMIT, Feature, FeatureList
from jobs.exchange.column_values import ColumnValues, Values
from jobs.exchange.feature_problems import COMPANIONS, cell_problems, meant_companion, name_problems
from jobs.exchange.read_table import open_table
from jobs.exchange.table import BadTransactionFile, instead_of_names

_NAMES_OF_THE_TRUTH = frozenset({"fraud", "is_fraud", "isfraud", "label", "target", "truth"})
_SPANS = 10.0  # beyond the values in the file; a bound must stop broken feeds, not rare customers


@dataclass(frozen=True)
class Draft:
    """A first feature list, and what its writer should know before using it."""

    features: FeatureList
    warnings: tuple[str, ...]
    """Columns that are perhaps no features, each kind with a reason and a way out."""
    has_labels: bool
    """Whether the file has a column Class, which an import needs."""


def draft_of(path: Path, *, left_out: Collection[str] = ()) -> Draft:
    """Return a feature for each column that is neither left out nor Class, Time, ts or transaction_id.

    The bounds lie ten times the spread beyond the values. If no value is negative, the lower bound is 0. A column of
    0 and 1 is bound to them.

    Raises BadTransactionFile, whose message lists every problem of the file, and what `warnings` would say.
    """
    with open_table(path) as table:
        header = table.header
        where = "line 1: " if table.unit == "line" else ""
        if not header:
            raise BadTransactionFile(f"{path}: is empty; expected a header line that names the features")
        instead = instead_of_names(table)
        if instead:
            raise BadTransactionFile(f"{table.header_place}: expected names of columns{instead}")
        used = [place for place, name in enumerate(header) if name not in left_out]
        once = [place for place in used if header[place] and header.count(header[place]) == 1]
        read = ColumnValues(
            table,
            [place for place in once if header[place] not in COMPANIONS],
            [place for place in once if header[place] in COMPANIONS],
        )
    problems = name_problems(header, used, left_out, where)
    if read.broken_row is not None:
        broken_row = read.broken_row.removeprefix(f"{path}, ")
        problems.append(f"{broken_row}; correct it first, because reading ended there")
    elif once and not read.rows:
        problems.append("is empty below its header; it holds no transactions")
    if read.bad:
        problems += cell_problems(path, sorted(read.bad))
    values = read.of_features()
    warnings = _warnings(values)
    if problems:
        listed = "".join(f"\n- {problem}" for problem in problems)
        warned = "".join(f"\nWarning: {warning}" for warning in warnings)
        raise BadTransactionFile(f"{path}: {counted(len(problems), 'problem')}:{listed}{warned}")
    return Draft(FeatureList(tuple(map(_feature, values))), warnings, has_labels="Class" in header)


def _warnings(values: Sequence[Values]) -> tuple[str, ...]:
    says_class = [each.name for each in values if each.says_class]
    perhaps_the_truth = [
        each.name
        for each in values
        if (each.is_binary or each.name.lower() in _NAMES_OF_THE_TRUTH)
        and not each.says_class
        and meant_companion(each.name) is None
    ]
    times = [each.name for each in values if meant_companion(each.name) == "Time"]
    left_out = " ".join(f"--leave-out {shlex.quote(name)}" for name in says_class)
    found = (
        (
            says_class,
            "looks like the truth, whatever its name: it has one value in every fraud and another one in every genuine "
            f"transaction. As a feature it tells the answer; leave it out (`{left_out}`).",
        ),
        (
            perhaps_the_truth,
            "holds only 0 and 1, or is named like a label. Unless it is a category that you encoded, check that it "
            "does not say which transactions were fraud. If it does, rename it Class or leave it out: as a feature it "
            "tells the answer.",
        ),
        (times, "becomes a feature. If it says when a transaction took place, name it Time (seconds) or ts (a time)."),
    )
    return tuple(f"{', '.join(names)}: {said}" for names, said in found if names)


def _feature(values: Values) -> Feature:
    if values.is_binary:
        return Feature(values.name, minimum=0.0, maximum=1.0, description="0 or 1")
    low, high = values.lowest, values.highest
    span = (high - low) or abs(high) or 1.0
    minimum = 0.0 if low >= 0 else max(-LIMIT, _outward(low - _SPANS * span, math.floor))
    maximum = min(LIMIT, _outward(high + _SPANS * span, math.ceil))
    return Feature(values.name, minimum, maximum, description=f"seen from {low:g} to {high:g}")


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
