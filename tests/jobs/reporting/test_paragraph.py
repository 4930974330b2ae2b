"""The paragraph of a retraining says what happened, and why."""

import dataclasses

from fraud_detection.model.manifest import Golden, Manifest
from jobs.evaluation.gate import Check, Verdict
from jobs.reporting import paragraph as explanation

MANIFEST = Manifest(
    created="2026-01-02 00:00:00.000000",
    features=["V1"],
    features_digest="f",
    threshold=0.4,
    trained_on="labels",
    golden=Golden([], []),
    parent="20260101T000000Z-abc",
)
VERDICT = Verdict(
    (
        Check("enough_frauds", 60, 50, passed=True, sentence="The hold-out has 60 known frauds, 50 are needed."),
        Check("recall", 0.5, 0.75, passed=False, sentence="The new model flags 50% of the frauds, the old one 80%."),
    )
)


def test_a_promotion_says_only_how_the_new_model_compares() -> None:
    passed = Verdict(tuple(dataclasses.replace(check, passed=True) for check in VERDICT.checks))

    told = explanation.promoted("20260102T000000Z-def", "It learned.", passed, MANIFEST)

    assert told == (
        "It learned. The new model flags 50% of the frauds, the old one 80%. "
        "It now serves as 20260102T000000Z-def in place of 20260101T000000Z-abc."
    )


def test_a_rejection_says_only_what_failed_and_what_keeps_serving() -> None:
    told = explanation.rejected("A new model learned.", VERDICT, "20260101T000000Z-abc")

    assert told.startswith(
        "A new model learned. It was not good enough: The new model flags 50% of the frauds, the old one 80%. "
        "20260101T000000Z-abc keeps serving."
    )
    assert "60 known frauds" not in told


def test_without_a_current_model_it_says_so() -> None:
    assert "There is still no current model." in explanation.rejected("It learned.", VERDICT, None)
