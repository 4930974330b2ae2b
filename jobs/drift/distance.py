"""Measures how far the values of a feature lie from a reference, and whether that is chance: pure arithmetic."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from fraud_detection.features import Matrix

CHANCE = 0.01  # a p-value below it is not chance
WARNED_D, DRIFTED_D = 0.05, 0.10  # in a normal feature a shift of 0.13 and 0.25 standard deviations

Numbers = NDArray[np.float64]


@dataclass(frozen=True)
class FeatureChange:
    """How far one feature of one window lies from the reference."""

    d: float  # two-sample Kolmogorov-Smirnov distance, 0 to 1
    p: float
    p_adjusted: float  # Benjamini-Hochberg over the features of the window
    psi: float  # over the deciles of the reference
    wasserstein_sigmas: float | None  # in standard deviations of the reference; None when that is 0

    @property
    def is_warned(self) -> bool:
        """Return whether it is not chance and large enough to look at."""
        return self.p_adjusted < CHANCE and self.d >= WARNED_D

    @property
    def is_drifted(self) -> bool:
        """Return whether it is not chance and large enough to act on."""
        return self.p_adjusted < CHANCE and self.d >= DRIFTED_D


def feature_changes(reference: Matrix, window: Matrix) -> list[FeatureChange]:
    """Compare each feature (column) of two sets of transactions, shapes (n, features) and (m, features).

    Values of `window` that are not finite are left out; the caller reports them. A column without a finite value has
    the largest distance: d 1, p 0.
    """
    columns = [(then, now[np.isfinite(now)]) for then, now in zip(reference.T, window.T, strict=True)]
    tests = [_kolmogorov_smirnov(then, now) for then, now in columns]
    # Of the features whose adjusted p is below a limit q, on average at most the share q is there by chance.
    adjusted: list[float] = stats.false_discovery_control([p for _, p in tests], method="bh").tolist()
    return [
        FeatureChange(d, p, p_adjusted, _feature_psi(then, now), _wasserstein_sigmas(then, now))
        for (then, now), (d, p), p_adjusted in zip(columns, tests, adjusted, strict=True)
    ]


def _kolmogorov_smirnov(then: Numbers, now: Numbers) -> tuple[float, float]:
    if len(now) == 0:
        return 1.0, 0.0
    # The exact p-value is slow, falls back with a warning on some sizes, and agrees from 500 rows on.
    test = stats.ks_2samp(then, now, method="asymp")
    return float(test.statistic), float(test.pvalue)


def _feature_psi(then: Numbers, now: Numbers) -> float:
    edges = np.unique(np.quantile(then, np.arange(1, 10) / 10))
    bins = len(edges) + 1
    expected, observed = (
        np.bincount(np.searchsorted(edges, column, side="right"), minlength=bins).tolist() for column in (then, now)
    )
    return population_stability_index(expected, observed)


def _wasserstein_sigmas(then: Numbers, now: Numbers) -> float | None:
    sigma = float(np.std(then))
    if sigma == 0 or len(now) == 0:
        return None
    return float(stats.wasserstein_distance(then, now)) / sigma


def population_stability_index(expected: Sequence[int], observed: Sequence[int]) -> float:
    """Return the sum of (q - p) ln(q / p) over bins, p and q the shares; adds half a row to each, so no share is 0.

    Without any change, chance alone gives about (bins - 1) (1 / n + 1 / m).

    >>> round(population_stability_index([500, 300, 200], [50, 30, 20]), 4)
    0.0
    >>> round(population_stability_index([500, 300, 200], [300, 300, 400]), 3)
    0.24
    """
    p, q = ((np.asarray(counts) + 0.5) / (sum(counts) + 0.5 * len(counts)) for counts in (expected, observed))
    return float(np.sum((q - p) * np.log(q / p)))
