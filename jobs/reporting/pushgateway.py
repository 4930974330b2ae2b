"""Pushes the jobs' metrics to a Pushgateway, because a job ends before Prometheus can scrape it."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from http.client import HTTPException

from prometheus_client import CollectorRegistry, Gauge
from prometheus_client.exposition import push_to_gateway, pushadd_to_gateway

from fraud_detection.environment import what_failed
from fraud_detection.proxies import bypass_proxy_inside
from jobs.drift.report import REASONS, STATES, DriftReport
from jobs.training.outcome import RETRAIN_OUTCOMES, RetrainFigures, RetrainOutcome

METRICS = {
    "fraud_job_last_attempt_timestamp_seconds": "When the last run ended.",
    "fraud_job_last_success_timestamp_seconds": "When a run last succeeded, or had nothing to do.",
    "fraud_job_duration_seconds": "How long the last run took.",
    "fraud_job_succeeded": "Whether the last run succeeded, or had nothing to do: 1 or 0.",
    "fraud_drift_state": "State of the last drift report: 1 for the one that holds, 0 for the others.",
    "fraud_drift_reason": "Why the last drift report says so: 1 for each reason that holds, 0 for the others.",
    "fraud_drift_d_max": "Largest Kolmogorov-Smirnov distance of a feature from the reference.",
    "fraud_drift_d_since_first": "Largest Kolmogorov-Smirnov distance from the oldest kept reference.",
    "fraud_drift_features_warned": "Features warned in either window.",
    "fraud_drift_feature_d": "Larger distance of the two windows, of the warned features that differ most.",
    "fraud_drift_alert_rate_ratio": "Share of flagged transactions, now / when the model was judged.",
    "fraud_drift_score_psi": "Population stability index of the scores, the larger of both windows.",
    "fraud_retrain_outcome": "What the last retraining did: 1 for the outcome that holds, 0 for the others.",
    "fraud_retrain_rejections_in_a_row": "New models that the gate rejected since the last promotion.",
    "model_accuracy": "Accuracy of the newest model on its hold-out; if fraud is rare it says little.",
    "fraud_trivial_accuracy": "Accuracy of never saying fraud, on the same transactions.",
    "fraud_average_precision": "Average precision on the hold-out.",
    "fraud_precision": "Share of flagged transactions that are frauds, at the threshold.",
    "fraud_recall": "Share of frauds that are flagged, at the threshold.",
    "fraud_alerts_per_day": "Flagged transactions per day in the hold-out.",
    "fraud_precision_at_reviews": "Share of frauds among as many of the highest scores as can be reviewed.",
    "fraud_calibration_error": "Expected calibration error of the scores.",
    "fraud_holdout_frauds": "Known frauds in the hold-out, on which these metrics rest.",
    "fraud_model_label_ratio": "Share of the newest model's training labels that came from each source.",
    "fraud_label_coverage_ratio": "Share of transactions with a true label, by age.",
}
"""Every name that the jobs publish, with its meaning; the names without prefix are the contract's."""

MOST_FEATURES = 20
"""How many warned features have a series, because a feature list of 500 may be warned whole."""
DRIFT_JOB, RETRAIN_JOB = "fraud-drift", "fraud-retrain"  # the only grouping keys, because a gateway never forgets one
TIMEOUT_SECONDS = 2.0

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Run:
    """One run of a job; its times are seconds since 1970."""

    started: float
    finished: float
    succeeded: bool  # it succeeded, or had nothing to do


def push_drift(url: str | None, report: DriftReport, run: Run) -> bool:
    """Publish a drift report and return whether the gateway accepted it.

    Best effort: without a URL nothing happens, and a gateway that is away or slow (2 s) is only logged. A report of
    state `error` leaves the metrics of the previous one unchanged; every other one replaces them all, so that a feature
    which is no longer warned leaves no series.
    """
    numbers = _Numbers(run)
    for state in STATES:
        numbers.set("fraud_drift_state", float(state == report.state), state=state)
    for reason in REASONS:
        numbers.set("fraud_drift_reason", float(reason in report.reasons), reason=reason)
    if report.state != "error":
        numbers.set("fraud_drift_d_max", report.d_max)
        numbers.set("fraud_drift_d_since_first", report.d_since_first)
        numbers.set("fraud_drift_features_warned", len(report.warned))
        warned = sorted((each for each in report.features if each.is_warned), key=lambda each: -each.d)
        for feature in warned[:MOST_FEATURES]:
            numbers.set("fraud_drift_feature_d", feature.d, feature=feature.name)
        numbers.set("fraud_drift_alert_rate_ratio", report.alert_rate.ratio if report.alert_rate else None)
        numbers.set("fraud_drift_score_psi", report.score_psi)
    return _push(url, DRIFT_JOB, numbers, replace=report.state != "error")


def push_retrain(
    url: str | None,
    outcome: RetrainOutcome,
    run: Run,
    *,
    figures: RetrainFigures | None = None,
    label_coverage: Mapping[str, float] | None = None,
    rejections_in_a_row: int | None = None,
) -> bool:
    """Publish what a retraining did and return whether the gateway accepted it; best effort, like push_drift.

    A run that judged nothing, or failed, leaves the figures of the last judgement where they are.
    """
    numbers = _Numbers(run)
    for each in RETRAIN_OUTCOMES:
        numbers.set("fraud_retrain_outcome", float(each == outcome), outcome=each)
    numbers.set("fraud_retrain_rejections_in_a_row", rejections_in_a_row)
    for age, ratio in (label_coverage or {}).items():
        numbers.set("fraud_label_coverage_ratio", ratio, age=age)
    if figures is not None:
        _judged(numbers, figures)
    return _push(url, RETRAIN_JOB, numbers, replace=figures is not None and run.succeeded)


class _Numbers:
    """The gauges of one push, in a registry of their own."""

    def __init__(self, run: Run) -> None:
        self.registry = CollectorRegistry()
        self._gauges: dict[str, Gauge] = {}
        self.set("fraud_job_last_attempt_timestamp_seconds", run.finished)
        self.set("fraud_job_duration_seconds", run.finished - run.started)
        self.set("fraud_job_succeeded", float(run.succeeded))
        if run.succeeded:
            self.set("fraud_job_last_success_timestamp_seconds", run.finished)

    def set(self, name: str, value: float | None, **labels: str) -> None:
        """Set the value of a series; None creates no series, because 0 would be a claim."""
        if value is None:
            return
        if name not in self._gauges:
            self._gauges[name] = Gauge(name, METRICS[name], list(labels), registry=self.registry)
        gauge = self._gauges[name].labels(**labels) if labels else self._gauges[name]
        gauge.set(value)


def _judged(numbers: _Numbers, figures: RetrainFigures) -> None:
    numbers.set("model_accuracy", figures.challenger.accuracy, label_source=figures.label_source)
    numbers.set("fraud_trivial_accuracy", figures.challenger.trivial_accuracy)
    numbers.set("fraud_holdout_frauds", figures.challenger.frauds)
    for model, evaluation in (("challenger", figures.challenger), ("champion", figures.champion)):
        if evaluation is not None:
            numbers.set("fraud_average_precision", evaluation.average_precision, model=model)
            numbers.set("fraud_precision", evaluation.precision, model=model)
            numbers.set("fraud_recall", evaluation.recall, model=model)
            numbers.set("fraud_alerts_per_day", evaluation.alerts_per_day, model=model)
            numbers.set("fraud_precision_at_reviews", evaluation.precision_at_reviews, model=model)
            numbers.set("fraud_calibration_error", evaluation.calibration_error, model=model)
    labels = sum(figures.training_labels.values())
    for source, count in figures.training_labels.items():
        numbers.set("fraud_model_label_ratio", count / labels, source=source)


def _push(url: str | None, job: str, numbers: _Numbers, *, replace: bool) -> bool:
    if url is None:
        return False
    bypass_proxy_inside(url)
    # PUT deletes older series of the group, POST keeps those that this push does not name.
    push = push_to_gateway if replace else pushadd_to_gateway
    try:
        push(url, job=job, registry=numbers.registry, timeout=TIMEOUT_SECONDS)
    except (OSError, HTTPException) as error:
        logger.warning("the Pushgateway did not take the numbers of %s: %s", job, what_failed(error, url))
        return False
    logger.info("pushed the numbers of %s", job)
    return True
