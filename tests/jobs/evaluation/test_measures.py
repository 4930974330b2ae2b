"""Measures agree with scikit-learn, and their intervals with resampling row by row."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score

from jobs.evaluation.measures import (
    average_precision,
    calibration_error,
    evaluate,
    resampled_average_precisions,
)

TRUTHS = np.array([True, True, False, False, False, False, False, False, False, False])
SCORES = np.array([0.9, 0.2, 0.7, 0.4, 0.3, 0.1, 0.1, 0.0, 0.0, 0.0])


def test_counts_what_is_flagged_at_the_threshold_and_above() -> None:
    result = evaluate(SCORES, TRUTHS, threshold=0.4, days=2, seed=1, reviews_per_day=1)

    assert (result.true_positives, result.false_positives) == (1, 2)
    assert (result.false_negatives, result.true_negatives) == (1, 6)
    assert (result.rows, result.frauds, result.alerts, result.alerts_per_day) == (10, 2, 3, 1.5)
    assert result.recall == 0.5
    assert result.precision == pytest.approx(1 / 3)
    assert (result.accuracy, result.trivial_accuracy) == (0.7, 0.8)


def test_a_useless_model_is_as_accurate_as_the_trivial_one() -> None:
    result = evaluate(np.zeros(10), TRUTHS, threshold=0.4, days=1, seed=1)

    assert result.accuracy == result.trivial_accuracy == 0.8
    assert (result.recall, result.precision) == (0, None)
    assert result.average_precision == 0.2


def test_without_frauds_there_is_no_recall_and_no_average_precision() -> None:
    result = evaluate(SCORES, np.zeros(10, dtype=bool), threshold=0.4, days=1, seed=1)

    assert (result.recall, result.average_precision, result.average_precision_interval) == (None, None, None)


def test_without_rows_nothing_is_known() -> None:
    result = evaluate(np.zeros(0), np.zeros(0, dtype=bool), threshold=0.4, days=1, seed=1)

    assert (result.accuracy, result.precision_at_reviews, result.calibration_error) == (None, None, None)


@pytest.mark.parametrize(
    ("scores", "days", "message"),
    [
        (SCORES[:9], 1, "as many scores as truths"),
        (SCORES + 0.2, 1, "from 0 to 1"),
        (np.full(10, np.nan), 1, "from 0 to 1"),
        (SCORES, 0, "positive number of days"),
        (SCORES, float("nan"), "positive number of days"),
    ],
)
def test_refuses_what_cannot_be_measured(scores: np.ndarray, days: float, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        evaluate(scores, TRUTHS, threshold=0.4, days=days, seed=1)


def test_the_interval_holds_the_figure_and_is_the_same_each_time() -> None:
    random = np.random.default_rng(0)
    is_fraud = random.random(3000) < 0.05
    scores = np.clip(random.normal(0.2 + 0.2 * is_fraud, 0.15), 0, 1)

    results = [evaluate(scores, is_fraud, threshold=0.4, days=1, seed=5) for _ in range(2)]

    assert results[0] == results[1]
    assert results[0].average_precision_interval is not None
    low, high = results[0].average_precision_interval
    assert low < (results[0].average_precision or 0) < high
    assert 0.03 < high - low < 0.3


@pytest.mark.parametrize(
    ("reviews", "precision"),
    [(1, 1.0), (2, 0.5), (5, 0.4), (10, 0.2), (99, 0.2)],
)
def test_precision_among_the_reviewed_counts_the_highest_scores(reviews: int, precision: float) -> None:
    result = evaluate(SCORES, TRUTHS, threshold=0.4, days=1, seed=1, reviews_per_day=reviews)

    assert result.precision_at_reviews == pytest.approx(precision)


@pytest.mark.parametrize(("reviews", "precision"), [(2, (1 + 1 / 3) / 2), (3, (1 + 2 / 3) / 3), (4, 0.5)])
def test_equal_scores_at_the_edge_of_the_reviewed_count_by_their_share(reviews: int, precision: float) -> None:
    scores, is_fraud = np.array([0.9, 0.5, 0.5, 0.5]), np.array([True, False, False, True])

    result = evaluate(scores, is_fraud, threshold=0.4, days=1, seed=1, reviews_per_day=reviews)

    assert result.precision_at_reviews == pytest.approx(precision)


def test_calibration_error_is_the_gap_between_score_and_share() -> None:
    scores = np.array([0.05] * 100 + [1.0] * 10)
    is_fraud = np.array([False] * 95 + [True] * 5 + [True] * 5 + [False] * 5)

    assert calibration_error(scores, is_fraud) == pytest.approx(0.5 * 10 / 110)


@given(st.lists(st.tuples(st.integers(0, 6), st.booleans()), min_size=1, max_size=40))
def test_average_precision_is_that_of_scikit_learn(rows: list[tuple[int, bool]]) -> None:
    scores = np.array([score / 6 for score, _ in rows])
    is_fraud = np.array([fraud for _, fraud in rows])

    if is_fraud.any():
        assert average_precision(scores, is_fraud) == pytest.approx(average_precision_score(is_fraud, scores))
    else:
        assert average_precision(scores, is_fraud) is None


def test_resampling_by_cells_is_resampling_by_rows() -> None:
    """Mean and spread agree with 1,000 resamples drawn row by row and measured by scikit-learn."""
    random = np.random.default_rng(2)
    is_fraud = random.random(800) < 0.05
    one, other = (np.clip(random.normal(0.2 + shift * is_fraud, 0.15), 0, 1).round(2) for shift in (0.2, 0.3))
    by_row = []
    for _ in range(1000):
        drawn = random.integers(0, 800, 800)
        by_row.append([average_precision_score(is_fraud[drawn], scores[drawn]) for scores in (one, other)])
    differences_by_row = np.diff(np.array(by_row), axis=1)

    paired = resampled_average_precisions([one, other], is_fraud, seed=3)
    differences = np.diff(paired, axis=1)

    assert np.mean(paired, axis=0) == pytest.approx(np.mean(by_row, axis=0), abs=0.012)
    assert np.std(differences) == pytest.approx(np.std(differences_by_row), rel=0.1)
    assert np.quantile(differences, 0.05) == pytest.approx(np.quantile(differences_by_row, 0.05), abs=0.03)


def test_many_frauds_are_resampled_in_blocks_with_nothing_left_out() -> None:
    random = np.random.default_rng(4)
    is_fraud = random.random(3000) < 0.5
    scores = random.random(3000)

    paired = resampled_average_precisions([scores], is_fraud, seed=1, resamples=700)

    assert paired.shape == (700, 1)
    assert len(np.unique(paired)) == 700
    assert np.mean(paired) == pytest.approx(average_precision(scores, is_fraud), abs=0.01)


def test_a_resample_without_a_fraud_says_nothing() -> None:
    is_fraud = np.zeros(50, dtype=bool)
    is_fraud[0] = True

    paired = resampled_average_precisions([np.linspace(1, 0, 50)], is_fraud, seed=1)

    assert np.isnan(paired).mean() == pytest.approx((1 - 1 / 50) ** 50, abs=0.04)
    assert np.nanmin(paired) == 1
    assert np.isnan(resampled_average_precisions([np.zeros(5)], np.zeros(5, dtype=bool), seed=1)).all()
