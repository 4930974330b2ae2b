"""Defines every metric of a model: how good its scores are on labelled transactions."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fraud_detection.decision import flagged

Numbers = NDArray[np.float64]
Truths = NDArray[np.bool_]

REVIEWS_PER_DAY = 100  # alerts that a review team of about five handles in a day
RESAMPLES = 2_000
_NUMBERS_AT_ONCE = 1_000_000  # in memory while resampling: 8 MB an array


@dataclass(frozen=True)
class Evaluation:
    """Metrics of a model on n labelled transactions; None if the rows cannot give a metric."""

    rows: int
    frauds: int
    days: float
    threshold: float
    average_precision: float | None
    average_precision_interval: tuple[float, float] | None  # 90 %, bootstrap over rows
    recall: float | None  # share of frauds that are flagged
    precision: float | None  # share of flagged ones that are frauds
    accuracy: float | None  # reported only; no decision uses it
    trivial_accuracy: float | None  # of the model that never says fraud, on the same rows
    true_positives: int
    false_positives: int
    false_negatives: int
    true_negatives: int
    alerts_per_day: float
    reviews_per_day: int
    precision_at_reviews: float | None  # among the highest scores, as many as are reviewed in the time
    calibration_error: float | None

    @property
    def alerts(self) -> int:
        """Return the number of transactions at or above the threshold."""
        return self.true_positives + self.false_positives

    @property
    def summary(self) -> dict[str, float | None]:
        """Return the figures by which people compare models."""
        return {"average_precision": self.average_precision, "recall": self.recall, "precision": self.precision}


def evaluate(
    scores: Numbers,
    is_fraud: Truths,
    *,
    threshold: float,
    days: float,
    seed: int,
    reviews_per_day: int = REVIEWS_PER_DAY,
) -> Evaluation:
    """Measure scores (shape (n,), 0 to 1) against the truth of the same transactions over a period of `days`.

    Raises ValueError if the shapes differ, a score is not a number from 0 to 1, or `days` is not positive.

    >>> random = np.random.default_rng(1)
    >>> is_fraud = random.random(10_000) < 0.01
    >>> scores = np.clip(random.normal(0.1 + 0.4 * is_fraud, 0.1), 0, 1)
    >>> result = evaluate(scores, is_fraud, threshold=0.4, days=10, seed=1, reviews_per_day=5)
    >>> result.frauds, result.alerts, result.alerts_per_day
    (98, 91, 9.1)
    >>> [round(value, 3) for value in (result.average_precision, result.recall, result.precision)]
    [0.905, 0.776, 0.835]
    >>> [round(value, 4) for value in (result.accuracy, result.trivial_accuracy)]
    [0.9963, 0.9902]
    """
    check_scores(scores, is_fraud)
    if not 0 < days < float("inf"):
        raise ValueError(f"expected a positive number of days, got {days}")
    alerts = flagged(scores, threshold)
    tp, fp = int((alerts & is_fraud).sum()), int((alerts & ~is_fraud).sum())
    fn, tn = int((~alerts & is_fraud).sum()), int((~alerts & ~is_fraud).sum())
    rows, frauds = len(scores), tp + fn
    return Evaluation(
        rows=rows,
        frauds=frauds,
        days=days,
        threshold=threshold,
        average_precision=average_precision(scores, is_fraud),
        average_precision_interval=_average_precision_interval(scores, is_fraud, seed),
        recall=_share(tp, frauds),
        precision=_share(tp, tp + fp),
        accuracy=_share(tp + tn, rows),
        trivial_accuracy=_share(rows - frauds, rows),
        true_positives=tp,
        false_positives=fp,
        false_negatives=fn,
        true_negatives=tn,
        alerts_per_day=(tp + fp) / days,
        reviews_per_day=reviews_per_day,
        precision_at_reviews=_precision_at(scores, is_fraud, max(1, round(reviews_per_day * days))),
        calibration_error=calibration_error(scores, is_fraud),
    )


def average_precision(scores: Numbers, is_fraud: Truths) -> float | None:
    """Return the sum of precision times gained recall over falling scores, ties together; None without frauds.

    >>> average_precision(np.array([0.9, 0.8, 0.7, 0.1]), np.array([True, False, True, False]))
    0.8333333333333333
    """
    if not is_fraud.any():
        return None
    cells = _Cells.of([scores], is_fraud)
    return float(cells.average_precisions(cells.counts[np.newaxis, :])[0, 0])


def resampled_average_precisions(
    scores: Sequence[Numbers], is_fraud: Truths, *, seed: int, resamples: int = RESAMPLES
) -> Numbers:
    """Return the average precision of several models on the same bootstrap resamples, shape (resamples, models).

    The resamples are paired: in each, every model is measured on the same rows. A resample without a fraud
    is NaN.

    Average precision changes only from one score of a fraud to the next, so rows between the same two are drawn by
    their number; that is the same distribution as drawing rows one by one, in a fraction of the time.

    >>> random = np.random.default_rng(1)
    >>> is_fraud = random.random(2_000) < 0.05
    >>> better, worse = (random.normal(shift * is_fraud, 1) for shift in (3, 2))
    >>> paired = resampled_average_precisions([better, worse], is_fraud, seed=1)
    >>> paired.shape, round(float(np.mean(paired[:, 0] > paired[:, 1])), 2)
    ((2000, 2), 1.0)
    """
    if not is_fraud.any():
        return np.full((resamples, len(scores)), np.nan)
    random = np.random.default_rng(seed)
    cells = _Cells.of(scores, is_fraud)
    rows = len(is_fraud)
    block = max(1, _NUMBERS_AT_ONCE // len(cells.counts))
    parts = [
        cells.average_precisions(random.multinomial(rows, cells.counts / rows, size=min(block, resamples - start)))
        for start in range(0, resamples, block)
    ]
    return np.concatenate(parts)


def calibration_error(scores: Numbers, is_fraud: Truths) -> float | None:
    """Return the mean distance between score and share of frauds over ten score bands, by rows; None without rows.

    Naeini, Cooper and Hauskrecht, AAAI (2015): the expected calibration error.

    >>> calibration_error(np.array([0.25, 0.25, 0.25, 0.25]), np.array([True, False, False, False]))
    0.0
    """
    if len(scores) == 0:
        return None
    band = np.minimum((scores * 10).astype(np.int64), 9)
    gaps = np.bincount(band, weights=scores - is_fraud, minlength=10)
    return float(np.abs(gaps).sum() / len(scores))


def check_scores(scores: Numbers, is_fraud: Truths) -> None:
    """Raise ValueError unless both have shape (n,) and every score is a number from 0 to 1."""
    if scores.ndim != 1 or scores.shape != is_fraud.shape:
        raise ValueError(f"expected as many scores as truths, got shapes {scores.shape} and {is_fraud.shape}")
    if not ((scores >= 0) & (scores <= 1)).all():
        raise ValueError("expected scores from 0 to 1, got at least one that is not")


@dataclass(frozen=True)
class _Cells:
    """Rows that no model ranks apart from each other, counted together."""

    counts: NDArray[np.int64]
    is_fraud: Truths
    steps: NDArray[np.int64]  # shape (models, cells): how many distinct scores of frauds lie above the cell

    @classmethod
    def of(cls, scores: Sequence[Numbers], is_fraud: Truths) -> "_Cells":
        steps = [_steps_from_the_top(one, is_fraud) for one in scores]
        cells, counts = np.unique(np.column_stack([is_fraud, *steps]), axis=0, return_counts=True)
        return cls(counts, cells[:, 0] == 1, cells[:, 1:].T)

    def average_precisions(self, weights: NDArray[np.int64]) -> Numbers:
        """Return the average precision of each model, shape (n, models), for weights of shape (n, cells)."""
        return np.column_stack([self._average_precision(steps, weights) for steps in self.steps])

    def _average_precision(self, steps: NDArray[np.int64], weights: NDArray[np.int64]) -> Numbers:
        order = np.argsort(steps, kind="stable")
        last_of_step = np.searchsorted(steps[order], np.unique(steps[self.is_fraud]), side="right") - 1
        ranked = weights[:, order]
        seen = np.cumsum(ranked, axis=1)[:, last_of_step]
        frauds_seen = np.cumsum(ranked * self.is_fraud[order], axis=1)[:, last_of_step]
        frauds_gained = np.diff(frauds_seen, axis=1, prepend=0)
        precision = frauds_seen / np.maximum(seen, 1)
        frauds = frauds_seen[:, -1].astype(np.float64)
        frauds[frauds == 0] = np.nan
        result: Numbers = (frauds_gained * precision).sum(axis=1) / frauds
        return result


def _steps_from_the_top(scores: Numbers, is_fraud: Truths) -> NDArray[np.int64]:
    steps = np.unique(scores[is_fraud])
    return np.int64(len(steps)) - np.searchsorted(steps, scores, side="right")


def _average_precision_interval(scores: Numbers, is_fraud: Truths, seed: int) -> tuple[float, float] | None:
    if not is_fraud.any():
        return None
    low, high = np.nanquantile(resampled_average_precisions([scores], is_fraud, seed=seed), [0.05, 0.95])
    return float(low), float(high)


def _precision_at(scores: Numbers, is_fraud: Truths, reviewed: int) -> float | None:
    """Return the share of frauds among the `reviewed` highest scores; ties at the edge count by their share."""
    if len(scores) == 0:
        return None
    reviewed = min(reviewed, len(scores))
    edge = np.partition(scores, -reviewed)[-reviewed]
    above, at = scores > edge, scores == edge
    found = is_fraud[above].sum() + is_fraud[at].mean() * (reviewed - above.sum())
    return float(found / reviewed)


def _share(part: int, whole: int) -> float | None:
    return part / whole if whole else None
