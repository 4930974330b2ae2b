"""Distances and p-values are those of the published statistics."""

import numpy as np
import pytest
from scipy import stats

from fraud_detection.features import Matrix
from jobs.drift.distance import FeatureChange, feature_changes, population_stability_index


def rows(seed: int, count: int, shift: float = 0.0) -> Matrix:
    matrix = np.random.default_rng(seed).normal(size=(count, 2))
    matrix[:, 0] += shift
    return matrix


def test_distances_are_in_their_documented_units() -> None:
    """A mean shift of 0.5 standard deviations is D 0.20, PSI 0.24 and Wasserstein 0.5 sigmas."""
    moved, same = feature_changes(rows(0, 20_000), rows(1, 20_000, 0.5))

    assert moved.d == pytest.approx(0.20, abs=0.01)
    assert moved.psi == pytest.approx(0.237, abs=0.03)
    assert moved.wasserstein_sigmas == pytest.approx(0.50, abs=0.02)
    assert max(same.d, same.psi, same.wasserstein_sigmas or 1) < 0.03


def test_distance_and_p_are_those_of_the_test() -> None:
    reference, window = rows(0, 3000), rows(1, 700, 0.1)

    changes = feature_changes(reference, window)

    for place, change in enumerate(changes):
        exact = stats.ks_2samp(reference[:, place], window[:, place], method="exact")
        assert change.d == pytest.approx(exact.statistic)
        assert change.p == pytest.approx(exact.pvalue, rel=0.1)


@pytest.mark.parametrize(
    ("d", "p_adjusted", "is_warned", "is_drifted"),
    [
        (0.05, 0.009, True, False),
        (0.049, 0.0, False, False),
        (0.10, 0.009, True, True),
        (0.099, 0.0, True, False),
        (0.90, 0.01, False, False),
    ],
)
def test_only_what_is_large_and_not_chance_counts(
    d: float, p_adjusted: float, is_warned: bool, is_drifted: bool
) -> None:
    change = FeatureChange(d, p=0.0, p_adjusted=p_adjusted, psi=0.0, wasserstein_sigmas=None)

    assert (change.is_warned, change.is_drifted) == (is_warned, is_drifted)


def test_a_feature_without_one_usable_number_is_as_far_away_as_can_be() -> None:
    window = rows(1, 700)
    window[:, 0] = np.nan

    unusable, usable = feature_changes(rows(0, 3000), window)

    assert (unusable.d, unusable.p, unusable.wasserstein_sigmas) == (1, 0, None)
    assert usable.d < 0.1


def test_a_constant_reference_has_no_standard_deviation() -> None:
    constant = np.ones((500, 1))

    assert feature_changes(constant, constant)[0] == FeatureChange(0.0, 1.0, 1.0, 0.0, None)


def published_adjustment(p_values: list[float]) -> list[float]:
    """Adjust as Benjamini and Hochberg do, J. R. Statist. Soc. B 57 (1995).

    Of n p-values the i-th smallest becomes the least n p(j) / j with j >= i.
    """
    ordered = sorted(p_values)
    candidates = [len(ordered) * p / (place + 1) for place, p in enumerate(ordered)]
    return [min(candidates[ordered.index(p) :]) for p in p_values]


def test_p_values_are_adjusted_over_all_features_of_a_window() -> None:
    random = np.random.default_rng(0)
    shifts = np.linspace(0, 0.2, 29)

    changes = feature_changes(random.normal(size=(3000, 29)), random.normal(size=(700, 29)) + shifts)

    assert [change.p_adjusted for change in changes] == pytest.approx(
        published_adjustment([change.p for change in changes]), rel=1e-15
    )


@pytest.mark.parametrize("seed", range(20))
def test_the_adjustment_of_scipy_is_the_published_one(seed: int) -> None:
    p_values = np.random.default_rng(seed).random(29) ** 3

    adjusted = stats.false_discovery_control(p_values, method="bh")

    assert adjusted.tolist() == pytest.approx(published_adjustment(p_values.tolist()), abs=2.5e-16, rel=0)


def test_a_stability_index_counts_an_empty_bin() -> None:
    assert 0 < population_stability_index([10, 0], [5, 5]) < 2


def test_a_stability_index_without_a_change_is_what_chance_gives() -> None:
    """Ten bins of 500 against 500 rows: 9 (1 / 500 + 1 / 500) = 0.036."""
    random = np.random.default_rng(1)
    indexes = [
        population_stability_index(*(random.multinomial(500, [0.1] * 10).tolist() for _ in range(2)))
        for _ in range(300)
    ]

    assert np.mean(indexes) == pytest.approx(0.036, rel=0.1)
