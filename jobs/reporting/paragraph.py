"""Writes the paragraph that ends every retraining, for a fraud analyst: what happened, why, and what to do."""

from fraud_detection.counted import counted
from fraud_detection.model.manifest import Manifest
from fraud_detection.model.read import Model
from jobs.evaluation.gate import Verdict
from jobs.evaluation.measures import Evaluation
from jobs.training.challenger import Challenger
from jobs.training.selection import Selection

_TELLING = {"better_or_equal", "replaces_baseline", "better_than_guessing", "alerts_per_day", "alert_ratio"}
"""The checks that say more on quality than recall and precision; of the others only a failure is reported."""


def what_was_tried(challenger: Challenger, selection: Selection) -> str:
    """Return what the new model was trained on, and recall and precision of it and of the current model."""
    training, holdout = selection.training, selection.holdout
    first, last = challenger.manifest.training_window or ("", "")
    learned = (
        f"A new model learned from {counted(len(training), 'transaction')} ({counted(training.frauds, 'fraud')}) "
        f"from {first[:10]} to {last[:10]}"
    )
    if selection.label_source == "derived":
        return (
            f"{learned} without true labels: it learned the decisions of the current model (ALLOW_DERIVED_LABELS). "
            "How good it is, is unknown."
        )
    tried = (
        f"{learned} and was judged on {counted(len(holdout), 'later transaction')} with "
        f"{counted(holdout.frauds, 'fraud')}. {_measured('The new model', challenger.evaluation)}"
    )
    if challenger.champion_evaluation is not None:
        tried += f" {_measured('The current model', challenger.champion_evaluation)}"
    if selection.holdout.sources.get("external"):
        tried += (
            f" Of these labels, {holdout.sources['external']:,} came into the table by hand, "
            "without a reporter on record."
        )
    return tried


def pending(tried: str, verdict: Verdict) -> str:
    """Return that a new model passed and is not rolled out yet."""
    return f"{tried} {_comparison(verdict)} It passed every check and does not serve yet."


def promoted(version: str, tried: str, verdict: Verdict, manifest: Manifest, next_retraining: str) -> str:
    """Return that a new model is current; what was seen of the API is known only afterwards."""
    told = f"{tried} {_comparison(verdict)} The new model is now current as {version}"
    told += f" in place of {manifest.parent}." if manifest.parent else ", the first model of this installation."
    if manifest.trained_on == "derived":
        told += (
            " It was never judged against the truth: label transactions, and go back with `fraudctl models rollback` "
            "if alerts change."
        )
    return f"{told} {next_retraining}"


def rejected(tried: str, verdict: Verdict, served: Model | None, next_retraining: str) -> str:
    """Return that a new model was not good enough."""
    told = f"{tried} The new model was not good enough: {_failures(verdict)} {stays(served)}"
    if served is None or served.manifest.trained_on == "synthetic":
        return f"{told} Label more transactions or import history. {next_retraining}"
    return f"{told} No action is needed. {next_retraining} If a model is rejected again, check recent labels."


def stays(served: Model | None) -> str:
    """Return which model keeps serving, and that it is no real one if it learned from synthetic transactions only."""
    if served is None:
        return "There is still no model; `fraudctl serve --first-time` creates a first one."
    learned = " It has learned from synthetic transactions only." if served.manifest.trained_on == "synthetic" else ""
    return f"{served.version} keeps serving.{learned}"


def _measured(model: str, evaluation: Evaluation) -> str:
    if evaluation.recall is None or evaluation.precision is None:
        return f"{model} flags none of them, so it finds no fraud and has no precision."
    return (
        f"{model} flags {evaluation.recall:.1%} of these frauds (recall), and {evaluation.precision:.1%} of what it "
        "flags is fraud (precision)."
    )


def _comparison(verdict: Verdict) -> str:
    return " ".join(check.sentence for check in verdict.checks if check.name in _TELLING)


def _failures(verdict: Verdict) -> str:
    return " ".join(check.sentence for check in verdict.checks if not check.passed)
