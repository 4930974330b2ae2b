"""Chooses, computes, reads and writes the table of statistics that synthetic transactions are drawn from.

It holds, for each class, quantiles of every feature and how the features move together (a Gaussian copula).
"""

import json
import re
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from fraud_detection.counted import counted
from fraud_detection.database import DatabaseRefused
from fraud_detection.exit_codes import ExitCode, ExpectedError
from fraud_detection.features import FeatureList, Matrix, default_features
from fraud_detection.model.files import NAMED_LIMIT_BYTES, read_regular
from fraud_detection.model.manifest import AmountScaling
from jobs.installation import Installation
from jobs.training.read_history import read_history

PUBLIC_STATISTICS = Path(__file__).with_name("public_statistics.json")
PUBLIC_SCALING = AmountScaling(88.35, 250.12)  # of the whole public data set, 284,807 transactions
LEVELS = (0.001, 0.01, *(level / 20 for level in range(1, 20)), 0.99, 0.999)
_MIN_ROWS = 50


class BadStatistics(ExpectedError):
    """A table of statistics that cannot be used or computed; the message says what was expected."""

    exit_code = ExitCode.UNUSABLE


@dataclass(frozen=True)
class ClassStatistics:
    """Statistics of the transactions of one class."""

    quantiles: dict[str, list[float]]
    """For each feature, its values at LEVELS."""
    correlations: list[list[float]]
    """Lower triangle, without the diagonal, of the correlations of the normal scores of the features' ranks."""


@dataclass(frozen=True)
class Statistics:
    """Statistics of the transactions of a data set, without any single transaction."""

    source: str
    fraud_share: float
    amount_scaling: AmountScaling | None
    genuine: ClassStatistics
    fraud: ClassStatistics


def statistics_for(here: Installation) -> Statistics:
    """Return the statistics that an installation's synthetic transactions are drawn from.

    The 29 default features use the public data set's statistics. Other features use those of the labelled history in
    the store: the baseline then depends on a table of quantiles, not on single transactions.

    Raises BadStatistics, saying what to do, if the store has too few labels; DatabaseRefused.
    """
    if here.features.digest == default_features().digest:
        return read_statistics(PUBLIC_STATISTICS)
    try:
        history, scaling = read_history(here)
        known = history.take(history.is_fraud >= 0)
        return describe(known.matrix, known.is_fraud == 1, here.features, source="the store", amount_scaling=scaling)
    except (BadStatistics, DatabaseRefused) as error:
        if isinstance(error, DatabaseRefused) and error.reason != "missing":
            raise
        raise BadStatistics(
            f"no baseline can be trained for the {counted(len(here.features), 'feature')} of FEATURES_FILE ({error}): "
            "import labelled history first (`fraudctl import FILE.csv`), or write a table with "
            "`python -m jobs.describe FILE.csv --out statistics.json` and name it "
            "(`python -m jobs.seed --statistics statistics.json`)"
        ) from error


def describe(
    matrix: Matrix,
    is_fraud: NDArray[np.bool_],
    features: FeatureList,
    *,
    source: str,
    fraud_share: float | None = None,
    amount_scaling: AmountScaling | None = None,
) -> Statistics:
    """Return the statistics of labelled transactions, shapes (n, features) and (n,).

    Give `fraud_share` if the share of fraud among these rows differs from that of real traffic.

    Raises BadStatistics if a class has so few rows that its statistics would reveal single transactions.
    """
    for name, rows in (("fraud", is_fraud.sum()), ("genuine", (~is_fraud).sum())):
        if rows < _MIN_ROWS:
            raise BadStatistics(f"expected at least {_MIN_ROWS} {name} rows, got {rows}")
    return Statistics(
        source=source,
        fraud_share=float(is_fraud.mean()) if fraud_share is None else fraud_share,
        amount_scaling=amount_scaling,
        genuine=_describe_class(matrix[~is_fraud], features),
        fraud=_describe_class(matrix[is_fraud], features),
    )


def _describe_class(matrix: Matrix, features: FeatureList) -> ClassStatistics:
    quantiles = np.quantile(matrix, LEVELS, axis=0)
    scores = stats.norm.ppf(stats.rankdata(matrix, axis=0) / (len(matrix) + 1))
    spread = scores.std(axis=0)
    centred = (scores - scores.mean(axis=0)) / np.where(spread > 0, spread, 1)  # a constant is correlated with nothing
    correlations = centred.T @ centred / len(matrix)
    return ClassStatistics(
        quantiles={
            name: [float(f"{value:.4g}") for value in quantiles[:, place]] for place, name in enumerate(features.names)
        },
        correlations=[
            [round(float(value), 3) for value in correlations[place, :place]] for place in range(len(features))
        ],
    )


def read_statistics(path: Path) -> Statistics:
    """Read a table of statistics.

    Raises BadStatistics, naming the file.
    """
    try:
        table = json.loads(read_regular(path, NAMED_LIMIT_BYTES).decode())
        scaling = table["amount_scaling"]
        return Statistics(
            source=table["source"],
            fraud_share=table["fraud_share"],
            amount_scaling=None if scaling is None else AmountScaling(**scaling),
            genuine=ClassStatistics(**table["genuine"]),
            fraud=ClassStatistics(**table["fraud"]),
        )
    except OSError as error:
        raise BadStatistics(f"{path}: cannot be read ({error.strerror})") from error
    except (ValueError, KeyError, TypeError) as error:
        raise BadStatistics(f"{path}: is not a table of `python -m jobs.describe` ({error})") from error


def to_json(statistics: Statistics) -> str:
    """Render a table of statistics with one line per innermost list, so that people can read and compare it."""
    text = json.dumps(asdict(statistics), indent=1)
    return re.sub(r"\[[^\[\]{}]*\]", lambda line: " ".join(line[0].split()), text) + "\n"
