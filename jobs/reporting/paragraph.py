"""Writes the paragraph that ends every retraining, for a fraud analyst: what happened, why, and what to do."""

from fraud_detection.model.manifest import Manifest
from jobs.evaluation.gate import Verdict
from jobs.training.challenger import Challenger
from jobs.training.selection import Selection

_TELLING = {"better_or_equal", "replaces_baseline", "better_than_guessing", "recall", "alerts_per_day", "alert_ratio"}
"""The checks that describe the model's quality; of the others only a failure is reported."""


def what_was_tried(challenger: Challenger, selection: Selection) -> str:
    """Return what the new model was trained on and how well it did."""
    training, holdout, measured = selection.training, selection.holdout, challenger.evaluation
    first, last = challenger.manifest.training_window or ("", "")
    learned = (
        f"A new model learned from {len(training):,} transactions ({training.frauds:,} frauds) "
        f"from {first[:10]} to {last[:10]}"
    )
    if selection.label_source == "derived":
        return (
            f"{learned} without true labels: it learned the decisions of the current model (ALLOW_DERIVED_LABELS). "
            "How good it is, is unknown."
        )
    tried = f"{learned} and was judged on {len(holdout):,} later ones with {holdout.frauds:,} frauds."
    if measured.recall is not None and measured.precision is not None:
        tried += (
            f" It flags {measured.recall:.0%} of these frauds, and {measured.precision:.0%} of what it flags is fraud."
        )
    if selection.holdout.sources.get("external"):
        tried += (
            f" Of these labels, {holdout.sources['external']:,} came into the table by hand, "
            "without a reporter on record."
        )
    return tried


def pending(tried: str, verdict: Verdict) -> str:
    """Return that a new model passed and is not rolled out yet."""
    return f"{tried} {_comparison(verdict)} It passed every check and does not serve yet."


def promoted(version: str, tried: str, verdict: Verdict, manifest: Manifest) -> str:
    """Return that a new model serves."""
    told = f"{tried} {_comparison(verdict)} It now serves as {version}"
    told += f" in place of {manifest.parent}." if manifest.parent else ", the first model of this installation."
    if manifest.trained_on == "derived":
        told += (
            " It was never judged against the truth: label transactions, and go back with `fraudctl models rollback` "
            "if alerts change."
        )
    return told


def rejected(tried: str, verdict: Verdict, served: str | None) -> str:
    """Return that a new model was not good enough."""
    return (
        f"{tried} It was not good enough: {_failures(verdict)} {stays(served)} No action is needed: "
        "the next retraining will have more data. If it is rejected again, check recent labels."
    )


def stays(served: str | None) -> str:
    """Return which model keeps serving."""
    return f"{served} keeps serving." if served else "There is still no current model."


def _comparison(verdict: Verdict) -> str:
    return " ".join(check.sentence for check in verdict.checks if check.name in _TELLING)


def _failures(verdict: Verdict) -> str:
    return " ".join(check.sentence for check in verdict.checks if not check.passed)
