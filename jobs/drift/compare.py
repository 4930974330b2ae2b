"""Compares the newest transactions with those that the current model was trained on: pure arithmetic."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from fraud_detection.counted import counted
from fraud_detection.features import FeatureList, Matrix
from fraud_detection.model.manifest import Holdout, holdout_of
from jobs.drift.distance import CHANCE, FeatureChange, Numbers, feature_changes, population_stability_index
from jobs.drift.report import AlertRate, DriftReport, FeatureDrift, Reason, State, WindowBounds

PERIOD = timedelta(days=14)  # older transactions say little about today
MANY_WARNED = 3
DRIFTED_ALERT_RATIO = 1.5
SCORE_PSI_WARN, SCORE_PSI_DRIFT = 0.10, 0.25
SCORE_PSI_ROWS = 5_000  # below it the scores of a window may warn, but not decide
INDEPENDENT_ROWS = "rows are treated as independent; many rows of one card can look like a change"


@dataclass(frozen=True)
class Reference:
    """Rows that the current model was trained on, and how it scored its hold-out."""

    rows: Matrix
    holdout: Holdout | None
    is_baseline: bool  # trained on synthetic data, which always differs from real traffic


@dataclass(frozen=True)
class Window:
    """Consecutive transactions; `scores` holds those of the reference's model alone, so it may be shorter."""

    rows: Matrix
    scores: Numbers
    start: str | None
    end: str | None
    schema_version: NDArray[np.int64]  # of each row: earlier versions had wider bounds


@dataclass(frozen=True)
class Decisions:
    """Every decision of the reference's model in the PERIOD, not only in the two windows."""

    rows: int
    alerts: int
    thresholds: tuple[float, ...]  # each that was in use, once


@dataclass(frozen=True)
class _Finding:
    state: State
    reason: Reason
    retrain: bool
    sentence: str


def compare(
    reference: Reference,
    older: Window,
    newer: Window,
    *,
    features: FeatureList,
    decisions: Decisions,
    min_rows: int,
    first_reference: Matrix | None = None,
) -> DriftReport:
    """Compare two consecutive windows with the reference; the first line that holds gives the state.

    1. a window with fewer than `min_rows` rows: insufficient_data
    2. a feature constant where the reference varies, or outside its bounds: drift, but no retraining, which
       would bake a broken feed into the next model
    3. in both windows a drifted feature or three warned ones: drift, retrain
    4. alert rate higher or lower by a factor of 1.5, and not by chance: drift, retrain
    5. score PSI of at least 0.25 in both windows, 5,000 scored rows each: drift, retrain
    6. a warned feature or a score PSI of at least 0.10 in either window: warn
    7. otherwise: ok

    While the current model was trained on synthetic data the state is `warn` at most, and says why.

    Raises ValueError if the reference has no rows, another width, or a value that is not finite.

    >>> from fraud_detection.features import Feature
    >>> random = np.random.default_rng(1)
    >>> def window(shift):
    ...     rows = random.normal(size=(1000, 2)) + [0, shift]
    ...     return Window(rows, np.zeros(0), "2026-01-01", "2026-01-02", schema_version=np.full(1000, 5))
    >>> reference = Reference(random.normal(size=(5000, 2)), holdout=None, is_baseline=False)
    >>> def state_and_reasons(older, newer):
    ...     names = FeatureList((Feature("a"), Feature("b")))
    ...     report = compare(reference, older, newer, features=names, decisions=Decisions(0, 0, ()), min_rows=500)
    ...     return report.state, report.reasons, report.warned
    >>> state_and_reasons(window(0.0), window(0.0))
    ('ok', (), ())
    >>> state_and_reasons(window(0.0), window(0.5))
    ('warn', ('features',), ('b',))
    >>> state_and_reasons(window(0.5), window(0.5))
    ('drift', ('features',), ('b',))
    """
    _check_reference(reference.rows, len(features))
    bounds = [WindowBounds(len(each.rows), len(each.scores), each.start, each.end) for each in (older, newer)]
    fewest = min(len(older.rows), len(newer.rows))
    if fewest < max(min_rows, 1):
        few = _Finding("insufficient_data", "insufficient_data", False, _too_few_sentence(fewest, min_rows))
        return _report([few], reference, bounds)

    changes = _feature_drifts(reference.rows, older.rows, newer.rows, features.names, first_reference)
    alert_rate = _alert_rate(reference.holdout, decisions)
    psis = [_score_psi(reference.holdout, each.scores, min_rows) for each in (older, newer)]
    made = "trained" if reference.is_baseline else "judged"  # no transactions ever judged the baseline
    findings = [
        *_quality_findings(reference.rows, (older, newer), features),
        *_feature_findings(changes),
        *_alert_findings(alert_rate, made),
        *_score_findings(psis, min(len(older.scores), len(newer.scores)), made),
    ]
    findings.sort(key=lambda finding: finding.state != "drift")  # stable: the order of the lines above
    if reference.is_baseline:
        findings = [_BASELINE, *(_Finding("warn", f.reason, False, f.sentence) for f in findings)]
    return _report(
        findings,
        reference,
        bounds,
        notes=(INDEPENDENT_ROWS, *_notes(alert_rate, psis, made)),
        features=changes,
        alert_rate=alert_rate,
        score_psi_older=psis[0],
        score_psi_newer=psis[1],
    )


_BASELINE = _Finding(
    "warn",
    "baseline_reference",
    False,
    "The current model was trained on synthetic data, which always differs from real transactions. "
    "Import history or label transactions, then retrain: drift is judged in full after that.",
)


def _report(findings: list[_Finding], reference: Reference, bounds: list[WindowBounds], **figures: Any) -> DriftReport:
    state: State = findings[0].state if findings else "ok"
    winning = [finding for finding in findings if finding.state == state]
    return DriftReport(
        state=state,
        reasons=tuple(finding.reason for finding in winning),
        retrain=bool(winning) and winning[0].retrain,
        explanation=tuple(finding.sentence for finding in winning),
        reference_rows=len(reference.rows),
        older=bounds[0],
        newer=bounds[1],
        **figures,
    )


def _check_reference(rows: Matrix, width: int) -> None:
    if rows.ndim != 2 or len(rows) == 0 or rows.shape[1] != width:
        raise ValueError(f"expected reference rows of {width} features, got shape {rows.shape}")
    if not np.isfinite(rows).all():
        raise ValueError("expected finite numbers in the reference, got at least one that is not")


def _too_few_sentence(fewest: int, min_rows: int) -> str:
    return (
        f"Each window needs {min_rows} recent scored transactions, the smaller one has {fewest}: "
        "too few to distinguish a change from chance."
    )


def _feature_drifts(
    reference: Matrix, older: Matrix, newer: Matrix, names: Sequence[str], first: Matrix | None
) -> tuple[FeatureDrift, ...]:
    older_changes = feature_changes(reference, older)
    newer_changes = feature_changes(reference, newer)
    since_first: list[float | None] = [None] * len(names)
    if first is not None:
        since_first = [change.d for change in feature_changes(first, newer)]
    return tuple(
        FeatureDrift(*figures) for figures in zip(names, older_changes, newer_changes, since_first, strict=True)
    )


def _quality_findings(reference: Matrix, windows: tuple[Window, Window], features: FeatureList) -> list[_Finding]:
    complaints = []
    outside_in = [np.sum(features.outside(window.rows, window.schema_version), axis=0) for window in windows]
    for place, feature in enumerate(features.features):
        for window, outside in zip(windows, outside_in, strict=True):
            column = window.rows[:, place]
            if outside[place]:
                complaints.append(f"{feature.name} is outside its bounds in {counted(int(outside[place]), 'row')}")
            elif _is_stuck(reference[:, place], column, chance=CHANCE / len(features)):
                complaints.append(f"{feature.name} was {column[0]:g} in every row from {window.start} to {window.end}")
    if not complaints:
        return []
    more = f"; and {len(complaints) - 5} more" if len(complaints) > 5 else ""
    sentence = f"The feed looks broken: {'; '.join(complaints[:5])}{more}. Repair it."
    return [_Finding("drift", "data_quality", False, sentence)]


def _is_stuck(then: Numbers, now: Numbers, chance: float) -> bool:
    """Return whether one value fills `now`, although the reference makes that less likely than `chance`."""
    share_then = float(np.mean(then == now[0]))
    return bool(np.all(now == now[0])) and share_then ** len(now) < chance


def _feature_findings(changes: tuple[FeatureDrift, ...]) -> list[_Finding]:
    ordered = sorted((change for change in changes if change.is_warned), key=lambda c: c.d, reverse=True)
    if not ordered:
        return []
    named = ", ".join(f"{change.name} (D {change.d:.2f})" for change in ordered[:3])
    more = f" and {len(ordered) - 3} more" if len(ordered) > 3 else ""
    if all(
        _window_drifts(changes_of_one) for changes_of_one in zip(*((c.older, c.newer) for c in changes), strict=True)
    ):
        sentence = f"In both windows transactions differ from the reference: {named}{more}."
        return [_Finding("drift", "features", True, sentence)]
    sentence = f"Some features moved, but not far enough or not in both windows: {named}{more}."
    return [_Finding("warn", "features", False, sentence)]


def _window_drifts(changes: Sequence[FeatureChange]) -> bool:
    warned = sum(change.is_warned for change in changes)
    return warned >= MANY_WARNED or any(change.is_drifted for change in changes)


def _alert_rate(holdout: Holdout | None, now: Decisions) -> AlertRate | None:
    if holdout is None or holdout.rows == 0 or now.rows == 0:
        return None
    table = np.array([[now.alerts, now.rows - now.alerts], [holdout.alerts, holdout.rows - holdout.alerts]])
    p = float(stats.fisher_exact(table).pvalue)
    rate, rate_then = now.alerts / now.rows, holdout.alerts / holdout.rows
    is_far = rate >= DRIFTED_ALERT_RATIO * rate_then or rate * DRIFTED_ALERT_RATIO <= rate_then
    threshold_differs = any(threshold != holdout.threshold for threshold in now.thresholds)
    return AlertRate(
        holdout_rows=holdout.rows,
        holdout_alerts=holdout.alerts,
        rows=now.rows,
        alerts=now.alerts,
        ratio=rate / rate_then if rate_then else None,
        p=p,
        threshold_differs=threshold_differs,
        is_changed=p < CHANCE and is_far and not threshold_differs,
    )


def _alert_findings(alert_rate: AlertRate | None, made: str) -> list[_Finding]:
    if alert_rate is None or not alert_rate.is_changed:
        return []
    sentence = (
        f"In the last {PERIOD.days} days the model flagged {alert_rate.alerts / alert_rate.rows:.3%} of transactions; "
        f"when it was {made} it flagged {alert_rate.holdout_alerts / alert_rate.holdout_rows:.3%}."
    )
    return [_Finding("drift", "alert_rate", True, sentence)]


def _score_psi(holdout: Holdout | None, scores: Numbers, min_rows: int) -> float | None:
    if holdout is None or min(sum(holdout.score_bands), len(scores)) < min_rows:
        return None
    return population_stability_index(holdout.score_bands, holdout_of(scores, holdout.threshold).score_bands)


def _score_findings(psis: list[float | None], fewest_scores: int, made: str) -> list[_Finding]:
    known = [psi for psi in psis if psi is not None]
    if not known or max(known) < SCORE_PSI_WARN:
        return []
    sentence = f"The score distribution has changed since the model was {made} (PSI up to {max(known):.2f})."
    if len(known) == 2 and min(known) >= SCORE_PSI_DRIFT and fewest_scores >= SCORE_PSI_ROWS:
        return [_Finding("drift", "score", True, sentence)]
    return [_Finding("warn", "score", False, sentence)]


def _notes(alert_rate: AlertRate | None, psis: list[float | None], made: str) -> list[str]:
    notes = []
    if alert_rate is None:
        notes.append("the alert rate was not compared: this model has no decisions or no hold-out")
    elif alert_rate.threshold_differs:
        notes.append(f"the alert rate was not compared: FRAUD_THRESHOLD has changed since the model was {made}")
    if None in psis:
        notes.append("scores were not compared: this model has too few, here or in its hold-out")
    return notes
