"""Made-up transactions from a small table of statistics: enough to learn from, and nobody's.

The table keeps, for each class, quantiles of every feature and how the features move together (a Gaussian copula).
"""

import json
import re
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from fraud_detection.features import FeatureList, Matrix
from fraud_detection.model import AmountScaling

PUBLIC_STATISTICS = Path(__file__).with_name("public_statistics.json")
LEVELS = (0.001, 0.01, *(level / 20 for level in range(1, 20)), 0.99, 0.999)
_MIN_ROWS = 50


class BadStatistics(Exception):
    """A table of statistics that cannot be used or made; the message says what was expected."""


@dataclass(frozen=True)
class ClassStatistics:
    """What the transactions of one class look like."""

    quantiles: dict[str, list[float]]
    """For each feature, its values at LEVELS."""
    correlations: list[list[float]]
    """Lower triangle, without the diagonal, of the correlations of the normal scores of the features' ranks."""


@dataclass(frozen=True)
class Statistics:
    """What the transactions of a data set look like, without any of them."""

    source: str
    fraud_share: float
    amount_scaling: AmountScaling | None
    genuine: ClassStatistics
    fraud: ClassStatistics


@dataclass(frozen=True)
class Transactions:
    """Transactions in no particular order of time, with the truth: shapes (n, features) and (n,)."""

    matrix: Matrix
    is_fraud: NDArray[np.bool_]


def synthetic(
    rows: int, seed: int, *, fraud_share: float | None = None, statistics: Statistics | None = None
) -> Transactions:
    """Make up transactions; the same seed gives the same ones.

    `fraud_share` (between 0 and 1) defaults to the share in `statistics`, and these to the public data set's.
    At least one transaction of each class is made.

    >>> made = synthetic(1000, seed=1, fraud_share=0.02)
    >>> made.matrix.shape, int(made.is_fraud.sum())
    ((1000, 29), 20)
    """
    known = statistics or read_statistics(PUBLIC_STATISTICS)
    frauds = min(max(round(rows * (known.fraud_share if fraud_share is None else fraud_share)), 1), rows - 1)
    random = np.random.default_rng(seed)
    matrix = np.vstack([_draw(known.genuine, rows - frauds, random), _draw(known.fraud, frauds, random)])
    order = random.permutation(rows)
    return Transactions(matrix[order], (np.arange(rows) >= rows - frauds)[order])


def _draw(known: ClassStatistics, rows: int, random: np.random.Generator) -> Matrix:
    width = len(known.quantiles)
    correlations = np.eye(width)
    correlations[np.tril_indices(width, -1)] = [value for line in known.correlations for value in line]
    # the upper triangle is not read; rounding may have left an eigenvalue just below zero
    eigenvalues, vectors = np.linalg.eigh(correlations, UPLO="L")
    normal = random.normal(size=(rows, width)) @ (vectors * np.sqrt(np.maximum(eigenvalues, 0))).T
    levels = stats.norm.cdf(normal)
    columns = [np.interp(levels[:, place], LEVELS, known.quantiles[name]) for place, name in enumerate(known.quantiles)]
    return np.column_stack(columns)


def describe(
    transactions: Transactions,
    features: FeatureList,
    *,
    source: str,
    fraud_share: float | None = None,
    amount_scaling: AmountScaling | None = None,
) -> Statistics:
    """Return the statistics of labelled transactions.

    `fraud_share` is given when the share among these rows is not that of the traffic they were taken from.

    Raises BadStatistics when a class has too few rows to be described without describing its members.
    """
    is_fraud = transactions.is_fraud
    for name, rows in (("fraud", is_fraud.sum()), ("genuine", (~is_fraud).sum())):
        if rows < _MIN_ROWS:
            raise BadStatistics(f"expected at least {_MIN_ROWS} {name} rows, got {rows}")
    return Statistics(
        source=source,
        fraud_share=float(is_fraud.mean()) if fraud_share is None else fraud_share,
        amount_scaling=amount_scaling,
        genuine=_describe_class(transactions.matrix[~is_fraud], features),
        fraud=_describe_class(transactions.matrix[is_fraud], features),
    )


def _describe_class(matrix: Matrix, features: FeatureList) -> ClassStatistics:
    quantiles = np.quantile(matrix, LEVELS, axis=0)
    scores = stats.norm.ppf(stats.rankdata(matrix, axis=0) / (len(matrix) + 1))
    spread = scores.std(axis=0)
    centred = (scores - scores.mean(axis=0)) / np.where(spread > 0, spread, 1)  # a constant moves with nothing
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
        table = json.loads(path.read_text(encoding="utf-8"))
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
        raise BadStatistics(f"{path}: is no table of `python -m jobs.describe` ({error})") from error


def to_json(statistics: Statistics) -> str:
    """Render a table of statistics, a line for each innermost list, so that people can read and compare it."""
    text = json.dumps(asdict(statistics), indent=1)
    return re.sub(r"\[[^\[\]{}]*\]", lambda line: " ".join(line[0].split()), text) + "\n"
