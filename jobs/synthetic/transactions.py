"""Generates synthetic transactions from a small table of statistics: enough to train on, and of no real person."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from fraud_detection.features import Matrix
from jobs.synthetic.statistics import LEVELS, PUBLIC_STATISTICS, ClassStatistics, Statistics, read_statistics


@dataclass(frozen=True)
class Transactions:
    """Labelled transactions without an order of time: shapes (n, features) and (n,)."""

    matrix: Matrix
    is_fraud: NDArray[np.bool_]


def synthetic(
    rows: int, seed: int, *, fraud_share: float | None = None, statistics: Statistics | None = None
) -> Transactions:
    """Generate transactions; the same seed gives the same transactions.

    `fraud_share` (between 0 and 1) defaults to the share in `statistics`, which default to the public data set's.
    The result has at least one transaction of each class.

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
    # eigh does not read the upper triangle; rounding may have left an eigenvalue just below zero
    eigenvalues, vectors = np.linalg.eigh(correlations, UPLO="L")
    normal = random.normal(size=(rows, width)) @ (vectors * np.sqrt(np.maximum(eigenvalues, 0))).T
    levels = stats.norm.cdf(normal)
    columns = [np.interp(levels[:, place], LEVELS, known.quantiles[name]) for place, name in enumerate(known.quantiles)]
    return np.column_stack(columns)
