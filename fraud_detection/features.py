"""Defines a transaction: the list of its features, and the check that turns rows into a matrix."""

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fraud_detection.contract import PLAIN_AMOUNT, SCALED_AMOUNT
from fraud_detection.counted import counted
from fraud_detection.exit_codes import ExitCode, ExpectedError
from fraud_detection.model.files import NAMED_LIMIT_BYTES, read_regular
from fraud_detection.model.manifest import AmountScaling
from fraud_detection.public_ranges import PUBLIC_RANGES
from fraud_detection.schema import RESERVED_NAMES

Matrix = NDArray[np.float64]
"""Shape (transactions, features), float64, every value finite, columns in the order of the FeatureList."""

LIMIT = 1e9  # beyond it float32, in which the forest computes, is coarser than 64 units

MAX_FEATURES = 500
"""Maximum features of a list."""

PUBLIC_BOUNDS_REVISION = 5
"""The first `schema_version` of rows within the built-in list's bounds; earlier rows were accepted up to LIMIT."""
_BOUND_TIMES_RANGE = 10  # a bound must stop broken feeds, not rare customers

_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,62}")
_BOUNDS = ("minimum", "maximum", "seen_minimum", "seen_maximum")
_NUMBER_TYPES = frozenset({float, int})  # excludes bool, so True is no number
_ROW_BY_NAME = "send the row by name, with Amount in place of Amount_scaled"


class BadFeatureList(ExpectedError):
    """A feature list that cannot be used; the message names the position and what was expected."""

    exit_code = ExitCode.BAD_CONFIGURATION


class InvalidTransactions(Exception):
    """Rows that are not transactions; the message names row and feature and never repeats the value."""


@dataclass(frozen=True)
class Feature:
    """One number of a transaction, with the bounds outside which the API rejects a value."""

    name: str
    minimum: float = -LIMIT
    maximum: float = LIMIT
    description: str = ""
    seen_minimum: float = -LIMIT
    """The smallest value in known transactions; a row below it is suspicious."""
    seen_maximum: float = LIMIT


def name_problem(name: str) -> str | None:
    """Return why a name can be no column of a store and no JSON key, None if it can."""
    if not _NAME.fullmatch(name):
        return f"expected a name of letters, digits and _ that starts with a letter, 63 at most, got {name!r}"
    if name.lower() in RESERVED_NAMES:
        return f"{name!r} is a column of every store"
    return None


@dataclass(frozen=True)
class FeatureList:
    """The features of every transaction of one installation, in order.

    Raises BadFeatureList if names repeat, are no identifiers, or are names of other columns of a store.
    """

    features: tuple[Feature, ...]

    def __post_init__(self) -> None:
        """Reject what cannot become a column and a JSON key."""
        if not 1 <= len(self.features) <= MAX_FEATURES:
            raise BadFeatureList(f"expected 1 to {MAX_FEATURES} features, got {len(self.features)}")
        seen: set[str] = set()
        for place, feature in enumerate(self.features):
            lowered = feature.name.lower()
            wrong = name_problem(feature.name)
            if wrong is not None:
                raise BadFeatureList(f"feature {place}: {wrong}; rename it")
            if lowered in seen:
                raise BadFeatureList(f"feature {place}: {feature.name!r} appears twice (case does not count)")
            if not -LIMIT <= feature.minimum < feature.maximum <= LIMIT:
                raise BadFeatureList(
                    f"feature {feature.name}: expected {-LIMIT:g} <= minimum < maximum <= {LIMIT:g}, "
                    f"got {feature.minimum:g} and {feature.maximum:g}"
                )
            if not feature.seen_minimum <= feature.seen_maximum:
                raise BadFeatureList(
                    f"feature {feature.name}: expected seen_minimum <= seen_maximum, "
                    f"got {feature.seen_minimum:g} and {feature.seen_maximum:g}"
                )
            seen.add(lowered)

    def __len__(self) -> int:
        return len(self.features)

    @cached_property
    def names(self) -> tuple[str, ...]:
        """Return the names, in order."""
        return tuple(feature.name for feature in self.features)

    @cached_property
    def scales_amounts(self) -> bool:
        """Return whether a row by name may carry Amount in place of Amount_scaled."""
        return SCALED_AMOUNT in self.names and PLAIN_AMOUNT not in self.names

    @cached_property
    def digest(self) -> str:
        """Return the sha256 of the names in order, to which a store and a model belong; bounds do not count."""
        return hashlib.sha256(json.dumps(self.names).encode()).hexdigest()

    @cached_property
    def minimums(self) -> NDArray[np.float64]:
        """Return the lower bounds, one per feature."""
        return np.array([feature.minimum for feature in self.features])

    @cached_property
    def maximums(self) -> NDArray[np.float64]:
        """Return the upper bounds, one per feature."""
        return np.array([feature.maximum for feature in self.features])

    @cached_property
    def _seen_minimums(self) -> NDArray[np.float64]:
        return np.array([max(feature.seen_minimum, feature.minimum) for feature in self.features])

    @cached_property
    def _seen_maximums(self) -> NDArray[np.float64]:
        return np.array([min(feature.seen_maximum, feature.maximum) for feature in self.features])

    def to_matrix(self, rows: object) -> Matrix:
        """Check parsed JSON and return it as a Matrix.

        Each row is a list in feature order or an object that names every feature; the two do not mix.

        Raises InvalidTransactions, naming row and feature, for anything but finite numbers in range.

        >>> two = FeatureList((Feature("amount", minimum=0), Feature("age_days")))
        >>> two.to_matrix([[12.5, 3]])
        array([[12.5,  3. ]])
        >>> two.to_matrix([{"age_days": 3, "amount": 12.5}])
        array([[12.5,  3. ]])
        >>> two.to_matrix([[12.5, True]])  # doctest: +ELLIPSIS
        Traceback (most recent call last):
        ...
        fraud_detection.features.InvalidTransactions: row 0, feature age_days: expected a number, got ...
        """
        matrix = self.to_numbers(rows, amount_scaling=None)
        self.check(matrix)
        return matrix

    def to_numbers(self, rows: object, amount_scaling: AmountScaling | None) -> Matrix:
        """Return parsed JSON as `to_matrix` does, but before `check`: the numbers may be outside their bounds.

        An object may carry Amount in place of the feature Amount_scaled, which then comes from `amount_scaling`.

        Raises InvalidTransactions.
        """
        if not isinstance(rows, list) or not rows:
            raise InvalidTransactions("expected a list of at least one row")
        if isinstance(rows[0], dict):
            rows = [self._in_order(index, row, amount_scaling) for index, row in enumerate(rows)]
        width = len(self.features)
        for index, row in enumerate(rows):
            if not isinstance(row, list) or len(row) != width or not _NUMBER_TYPES.issuperset(map(type, row)):
                raise InvalidTransactions(self._complaint(index, row))
        try:
            matrix = np.array(rows, dtype=np.float64)
        except OverflowError:  # an integer beyond the range of float64
            matrix = np.array([[_to_float(value) for value in row] for row in rows], dtype=np.float64)
        return matrix

    def check(self, matrix: Matrix, *, if_unscaled: str = _ROW_BY_NAME) -> int:
        """Return how many rows are suspicious: a value was never seen, although it is within its bounds.

        `if_unscaled` says what the sender can do if an Amount_scaled above its bound is in units of the currency.

        Raises InvalidTransactions, naming row and feature of the first value that is not finite and within its bounds.
        """
        # NaN compares as false, so the one comparison finds it, infinities and values out of range.
        was_seen = (matrix >= self._seen_minimums) & (matrix <= self._seen_maximums)
        if np.count_nonzero(was_seen) == was_seen.size:  # of a few rows it takes a tenth of the time of all()
            return 0
        accepted = (matrix >= self.minimums) & (matrix <= self.maximums)
        if not accepted.all():
            index, place = (int(number) for number in np.argwhere(~accepted)[0])
            feature, value = self.features[place], matrix[index, place]
            is_perhaps_unscaled = feature.name == SCALED_AMOUNT and self.scales_amounts and value > 0
            unscaled = f". If it is in units of the currency, {if_unscaled}" if is_perhaps_unscaled else ""
            raise InvalidTransactions(
                f"row {index}, feature {feature.name}: expected a finite number "
                f"from {feature.minimum:g} to {feature.maximum:g}{unscaled}{_way_out(value)}"
            )
        return int(np.count_nonzero(~was_seen.all(axis=1)))

    def outside(self, matrix: Matrix, schema_version: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Return which values of stored rows lie outside the bounds by which their version accepted the rows.

        For the names of the built-in list, rows before PUBLIC_BOUNDS_REVISION may have any value up to LIMIT.
        """
        inside = (matrix >= self.minimums) & (matrix <= self.maximums)
        if self.digest == default_features().digest:
            is_older = schema_version < PUBLIC_BOUNDS_REVISION
            inside |= is_older[:, np.newaxis] & (np.abs(matrix) <= LIMIT)
        return ~inside

    def _in_order(self, index: int, row: object, scaling: AmountScaling | None) -> list[object]:
        if not isinstance(row, dict):
            raise InvalidTransactions(f"row {index}: row 0 is an object, so every row must be one")
        if PLAIN_AMOUNT in row and PLAIN_AMOUNT not in self.names:
            row = self._with_scaled_amount(index, row, scaling)
        if row.keys() != self._name_set:
            raise InvalidTransactions(f"row {index}: {self._wrong_names(row)}")
        return [row[name] for name in self.names]

    @cached_property
    def _name_set(self) -> frozenset[str]:
        return frozenset(self.names)

    def _with_scaled_amount(self, index: int, row: dict[str, Any], scaling: AmountScaling | None) -> dict[str, Any]:
        if not self.scales_amounts:
            raise InvalidTransactions(
                f"row {index}: Amount is not a feature here; the API scales an amount only for the feature "
                "Amount_scaled"
            )
        if SCALED_AMOUNT in row:
            raise InvalidTransactions(f"row {index}: expected either Amount or Amount_scaled, got both")
        if scaling is None:
            raise InvalidTransactions(
                f"row {index}: the current model does not say how to scale Amount; send Amount_scaled"
            )
        amount = row[PLAIN_AMOUNT]
        if type(amount) not in _NUMBER_TYPES:
            raise InvalidTransactions(f"row {index}, Amount: expected a number, got {_json_type(amount)}")
        scaled = scaling.scaled(_to_float(amount))
        wrong = self.amount_problem(scaled, scaling)
        if wrong is not None:
            raise InvalidTransactions(f"row {index}, Amount: {wrong}")
        return {**{name: value for name, value in row.items() if name != PLAIN_AMOUNT}, SCALED_AMOUNT: scaled}

    def amount_problem(self, scaled: float, scaling: AmountScaling) -> str | None:
        """Return what was expected of an Amount that becomes this Amount_scaled, None if that is within its bounds."""
        feature = self.features[self.names.index(SCALED_AMOUNT)]
        if feature.minimum <= scaled <= feature.maximum:
            return None
        lowest, highest = (
            bound * scaling.standard_deviation + scaling.mean for bound in (feature.minimum, feature.maximum)
        )
        return (
            f"expected a finite number from {lowest:g} to {highest:g}, which is Amount_scaled "
            f"from {feature.minimum:g} to {feature.maximum:g}{_way_out(scaled)}"
        )

    def _wrong_names(self, row: dict[str, Any]) -> str:
        missing = [
            f"{name} (or Amount)" if name == SCALED_AMOUNT and self.scales_amounts else name
            for name in self.names
            if name not in row
        ]
        # A name that no feature can have is not repeated: a client's key can hold anything.
        unknown = [
            name if _NAME.fullmatch(name) else "a name that no feature can have"
            for name in row
            if name not in self._name_set
        ]
        wrong = [
            f"{kind}: {_first_few(names)}" for kind, names in (("missing", missing), ("unknown", unknown)) if names
        ]
        return f"expected {counted(len(self.features), 'feature')} by name; {'; '.join(wrong)}"

    def _complaint(self, index: int, row: object) -> str:
        if not isinstance(row, list):
            return f"row {index}: expected a list of {counted(len(self.features), 'number')}, got {_json_type(row)}"
        if len(row) != len(self.features):
            return f"row {index}: expected {counted(len(self.features), 'number')} ({self._ends()}), got {len(row)}"
        name, value = next(
            (name, value) for name, value in zip(self.names, row, strict=True) if type(value) not in _NUMBER_TYPES
        )
        return f"row {index}, feature {name}: expected a number, got {_json_type(value)}"

    def _ends(self) -> str:
        return self.names[0] if len(self.names) == 1 else f"{self.names[0]} to {self.names[-1]}"


def _first_few(names: Sequence[str]) -> str:
    more = f" and {len(names) - 5} more" if len(names) > 5 else ""
    return f"{', '.join(names[:5])}{more}"


def _to_float(value: Any) -> float:
    try:
        return float(value)
    except OverflowError:
        return float("inf")


def _json_type(value: object) -> str:
    names = {bool: "a boolean", str: "a string", list: "a list", dict: "an object", type(None): "null"}
    return names.get(type(value), "a number")


def _way_out(value: float) -> str:
    """Return what the operator can do to accept a value that is outside its bounds; nothing helps beyond LIMIT."""
    if not abs(value) <= LIMIT:
        return ""
    return (
        ". If the value is right, set FEATURES_FILE to a list with the same names and wider bounds; "
        "`fraudctl features show --json` prints the present list"
    )


def default_features() -> FeatureList:
    """Return the 29 features of the public credit-card data set: V1…V28 and the scaled amount.

    The bounds are ten times the smallest and the largest value of PUBLIC_RANGES.
    """
    amount = "(Amount - mean) / standard deviation; GET /model returns both"
    return FeatureList(
        tuple(
            Feature(
                name,
                minimum=round(_BOUND_TIMES_RANGE * lowest, 1),
                maximum=round(_BOUND_TIMES_RANGE * highest, 1),
                description=amount if name == SCALED_AMOUNT else f"principal component {name[1:]}",
                seen_minimum=lowest,
                seen_maximum=highest,
            )
            for name, (lowest, highest) in PUBLIC_RANGES.items()
        )
    )


def load_features(path: Path | None) -> FeatureList:
    """Read a FEATURES_FILE; None is the default list.

    Its format: `{"features": [{"name": "…", "minimum"?: 0, "maximum"?: 9, "description"?: "…", "seen_minimum"?: 1,
    "seen_maximum"?: 2}, …]}`.

    Raises BadFeatureList, naming the file.
    """
    if path is None:
        return default_features()
    try:
        document = json.loads(read_regular(path, NAMED_LIMIT_BYTES).decode())
    except OSError as error:
        raise BadFeatureList(
            f"{path}: cannot be read ({error.strerror}); restore it, or let FEATURES_FILE name the feature list"
        ) from error
    except (ValueError, RecursionError) as error:  # RecursionError: thousands of nested brackets
        raise BadFeatureList(f"{path}: is not JSON ({error})") from error
    try:
        return FeatureList(tuple(_feature(place, entry) for place, entry in enumerate(_entries(document))))
    except BadFeatureList as error:
        raise BadFeatureList(f"{path}: {error}") from error


def _entries(document: object) -> Sequence[object]:
    if not isinstance(document, dict) or not isinstance(document.get("features"), list) or len(document) != 1:
        raise BadFeatureList('expected {"features": [{"name": …}, …]} and no other key')
    entries: list[object] = document["features"]
    return entries


def _feature(place: int, entry: object) -> Feature:
    if not isinstance(entry, Mapping) or not isinstance(entry.get("name"), str):
        raise BadFeatureList(f'feature {place}: expected an object with a "name"')
    unknown = sorted(set(entry) - {"name", "description", *_BOUNDS})
    if unknown:
        raise BadFeatureList(
            f"feature {place}: expected name, minimum, maximum, description, seen_minimum and seen_maximum, "
            f"got {unknown[0]!r}"
        )
    bounds = {}
    for bound in _BOUNDS:
        if bound in entry:
            if type(entry[bound]) not in _NUMBER_TYPES:
                raise BadFeatureList(f"feature {place}: expected a number as {bound}, got {_json_type(entry[bound])}")
            bounds[bound] = _to_float(entry[bound])
    description = entry.get("description", "")
    if not isinstance(description, str):
        raise BadFeatureList(f"feature {place}: expected a text as description, got {_json_type(description)}")
    return Feature(entry["name"], description=description, **bounds)
