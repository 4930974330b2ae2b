"""Selects the stored transactions that may train or judge a model: those with mature labels."""

from dataclasses import dataclass
from datetime import datetime, timedelta

import numpy as np
from numpy.typing import NDArray

from fraud_detection.clock import parse_timestamp, timestamp
from fraud_detection.store.history import History

MATURED = "matured"
DERIVED = "derived"
EXTERNAL = "external"

HOLDOUT_SHARE = 0.3
COVERAGE_AGES = {"under_7_days": 0, "7_to_30_days": 7, "30_to_90_days": 30, "over_90_days": 90}
"""Age groups of label_coverage, each with its lower limit in days."""


@dataclass(frozen=True)
class Known:
    """Transactions in order of time, each with one label: `is_fraud` and `source` have one entry per transaction."""

    history: History
    is_fraud: NDArray[np.bool_]
    source: NDArray[np.str_]

    def __len__(self) -> int:
        return len(self.history)

    @property
    def frauds(self) -> int:
        """Return the number of frauds."""
        return int(self.is_fraud.sum())

    @property
    def sources(self) -> dict[str, int]:
        """Return the number of labels per source, without sources that gave none."""
        names, counts = np.unique(self.source, return_counts=True)
        return dict(zip(names.tolist(), counts.tolist(), strict=True))

    @property
    def days(self) -> float:
        """Return the time they span, in days, at least 1 so that rates per day stay meaningful."""
        if len(self) == 0:
            return 1.0
        first, last = (parse_timestamp(str(self.history.ts[place])) for place in (0, -1))
        return max((last - first) / timedelta(days=1), 1.0)

    @property
    def window(self) -> tuple[str, str] | None:
        """Return the time of the first and of the last; None if there are none."""
        return (str(self.history.ts[0]), str(self.history.ts[-1])) if len(self) else None

    def take(self, rows: NDArray[np.bool_] | NDArray[np.int64]) -> "Known":
        """Return those that a mask or an index selects."""
        return Known(self.history.take(rows), self.is_fraud[rows], self.source[rows])


@dataclass(frozen=True)
class Split:
    """What trains the challenger, and the later transactions that judge it."""

    training: Known
    holdout: Known


def truly_labelled(history: History, *, cutoff: datetime, maturity_days: float, negatives_by_maturity: bool) -> Known:
    """Select the transactions with a label that is mature.

    A transaction newer than `cutoff` - `maturity_days` counts only if it is a confirmed fraud, because its report may
    still arrive and the newest transactions would look falsely genuine.

    With `negatives_by_maturity` an older one without any report is genuine, source `matured`, unless it was flagged (a
    blocked transaction is never reported, so silence says nothing) or never scored (then it is unknown whether it was).

    The order in which rows and labels arrived does not matter.
    """
    oldest_unsettled = timestamp(cutoff - timedelta(days=maturity_days))
    settled = history.ts <= oldest_unsettled
    label = history.is_fraud.copy()
    source = history.label_source.astype("U16")
    if negatives_by_maturity:
        was_scored = ~np.isnan(history.fraud_probability)
        silent = settled & (label < 0) & was_scored & ~history.is_flagged
        label[silent] = 0
        source[silent] = MATURED
    counts = (label == 1) | (settled & (label == 0))
    return _known(history, counts, label == 1, source)


def derived_labels(history: History) -> Known:
    """Label every scored transaction without a true label with the decision that is stored with it.

    A model trained on these learns to agree with the previous one, so they never judge. Never mix them with true ones.
    """
    counts = ~np.isnan(history.fraud_probability) & (history.is_fraud < 0)
    return _known(history, counts, history.is_flagged, np.full(len(history), DERIVED))


def split(known: Known, *, trained_until: str | None, min_frauds: int) -> Split:
    """Cut truly labelled transactions by time: the newest part judges, everything older trains.

    The hold-out is the newest 30 %, extended back until it has `min_frauds` frauds as long as at least half of all
    frauds stay for training. It starts after `trained_until`, where the training of the current model ended (None:
    it learned from none of these), because a model is not judged on what it has seen; that may leave it too small, or
    empty. Transactions of one moment are never divided.
    """
    rows = len(known)
    if rows == 0:
        return Split(known, known)
    ts = known.history.ts
    start = int(rows * (1 - HOLDOUT_SHARE))
    frauds_from = np.cumsum(known.is_fraud[::-1])[::-1]  # frauds in the part that starts at each row
    enough = np.flatnonzero(frauds_from >= min_frauds)
    if frauds_from[start] < min_frauds and len(enough) and 2 * frauds_from[enough[-1]] <= known.frauds:
        start = int(enough[-1])
    start = int(np.searchsorted(ts, ts[start], side="left"))
    if trained_until is not None:
        start = max(start, int(np.searchsorted(ts, np.str_(trained_until), side="right")))
    return Split(known.take(np.arange(start)), known.take(np.arange(start, rows)))


def label_coverage(history: History, now: datetime) -> dict[str, float]:
    """Return the share of transactions with a true label in each age group that has any; 0 to 1.

    All metrics of a model rest on the labelled ones.
    """
    is_labelled = history.is_fraud >= 0
    coverage = {}
    younger_than = np.full(len(history), True)
    for name, days in reversed(COVERAGE_AGES.items()):
        in_group = younger_than & (history.ts <= timestamp(now - timedelta(days=days)))
        younger_than &= ~in_group
        if in_group.any():
            coverage[name] = float(is_labelled[in_group].mean())
    return coverage


def _known(history: History, counts: NDArray[np.bool_], is_fraud: NDArray[np.bool_], source: NDArray[np.str_]) -> Known:
    rows = np.flatnonzero(counts)
    # Two stores may be joined, and rows of one moment are stored in any order.
    order = np.lexsort((history.row_index[rows], history.request_id[rows], history.ts[rows]))
    return Known(history, is_fraud, source).take(rows[order])
