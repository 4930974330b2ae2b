"""Age, drift and cooldown decide when a training is due."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from fraud_detection.model.manifest import Golden, Manifest, StoredFile
from fraud_detection.settings import JobSettings
from jobs.drift.report import DriftFinding
from jobs.training.due import Due, Judgement, after_judgement, due, last_judgement

NOW = datetime(2026, 6, 1, tzinfo=UTC)
DIGEST = "d" * 64
SETTINGS = JobSettings.from_env({"RETRAIN_AFTER_DAYS": "30", "RETRAIN_COOLDOWN_DAYS": "7"})


def manifest(trained_on: Any = "labels", created: str = "2026-05-20 00:00:00.000000") -> Manifest:
    return Manifest(
        created=created,
        features=["V1"],
        features_digest="f",
        threshold=0.4,
        trained_on=trained_on,
        golden=Golden([], []),
        files={"model.onnx": StoredFile(DIGEST, 1)},
    )


def decide(
    served: Manifest | None,
    *,
    judged_days_ago: float | None = None,
    answered: str | None = None,
    drift: str | None = None,
) -> Due:
    last = (
        None
        if judged_days_ago is None
        else Judgement(NOW - timedelta(days=judged_days_ago), "labels", answered, "reject")
    )
    finding = None if drift is None else DriftFinding(drift, "drift", retrain=True, reference_digest=DIGEST)
    return due(served, last, finding, SETTINGS, NOW)


@pytest.mark.parametrize(
    ("served", "facts", "is_due", "why"),
    [
        (None, {}, True, "no model that learned from real transactions serves yet"),
        (manifest("synthetic"), {}, True, "no model that learned from real transactions serves yet"),
        (manifest("synthetic"), {"judged_days_ago": 1}, True, "no model that learned"),
        (manifest(), {}, False, "no drift was reported, and the regular retraining is due on 2026-06-19"),
        (manifest(), {"drift": "a"}, True, "drift was reported"),
        (manifest("unknown"), {"drift": "a"}, True, "drift was reported"),
        (manifest(), {"drift": "a", "judged_days_ago": 8}, True, "drift was reported"),
        (
            manifest(),
            {"drift": "a", "judged_days_ago": 6},
            False,
            "(RETRAIN_COOLDOWN_DAYS) ends at 2026-06-02 00:00 UTC",
        ),
        (manifest(), {"drift": "a", "judged_days_ago": 8, "answered": "a"}, False, "answered the drift that was"),
        (manifest(), {"drift": "b", "judged_days_ago": 8, "answered": "a"}, True, "drift was reported"),
        (manifest(), {"judged_days_ago": 29}, False, "no drift was reported, and the regular retraining is due on"),
        (manifest(), {"judged_days_ago": 30}, True, "the last judgement is 30 days old"),
        (manifest(), {"drift": "a", "judged_days_ago": 30, "answered": "a"}, True, "the last judgement is 30 days old"),
        (manifest(created="2026-05-01 00:00:00.000000"), {}, True, "the current model is 31 days old"),
        (manifest(), {"judged_days_ago": -365}, True, "the last judgement has a time ahead of now"),
        (manifest(), {"drift": "a", "judged_days_ago": -365}, True, "the last judgement has a time ahead of now"),
        (manifest(created="2027-05-01 00:00:00.000000"), {}, True, "the current model has a time ahead of now"),
    ],
)
def test_training_is_due_by_the_table(served: Manifest | None, facts: dict[str, Any], is_due: bool, why: str) -> None:
    decision = decide(served, **facts)

    assert decision.is_due == is_due
    assert why in decision.why


def test_drift_from_a_former_model_makes_no_training_due() -> None:
    finding = DriftFinding("a", "drift", retrain=True, reference_digest="another model")

    decision = due(manifest(), None, finding, SETTINGS, NOW)

    assert decision.sentence.startswith("No retraining is due: the last drift report is about another model, and ")


def test_a_report_that_asks_for_nothing_makes_nothing_due() -> None:
    finding = DriftFinding("a", "drift", retrain=False, reference_digest=DIGEST)

    decision = due(manifest(), None, finding, SETTINGS, NOW)

    assert decision.sentence.startswith("No retraining is due: the last drift report asks for none, and ")


def test_a_run_that_could_compare_nothing_is_not_about_another_model() -> None:
    finding = DriftFinding("a", "error", retrain=False, reference_digest=None)

    decision = due(manifest(), None, finding, SETTINGS, NOW)

    assert decision.sentence.startswith("No retraining is due: no drift was reported, and ")


def test_a_judgement_says_when_the_next_retraining_can_follow() -> None:
    told = after_judgement(manifest(), SETTINGS, NOW)

    assert "from 2026-06-08 on, when the cooldown ends (RETRAIN_COOLDOWN_DAYS)." in told
    assert "Without drift it is due on 2026-07-01." in told
    assert decide(manifest(), judged_days_ago=7, drift="b").is_due
    assert not decide(manifest(), judged_days_ago=6.9, drift="b").is_due


@pytest.mark.parametrize("served", [None, manifest("synthetic")])
def test_without_a_real_model_the_next_retraining_waits_only_for_labels(served: Manifest | None) -> None:
    assert after_judgement(served, SETTINGS, NOW) == "The next retraining tries again when a label is new."


def test_the_last_judgement_is_the_newest_line_with_a_verdict_of_a_retraining() -> None:
    def line(event: str, day: int, verdict: dict[str, Any] | None) -> dict[str, Any]:
        return {"event": event, "at": f"2026-01-0{day}T00:00:00+00:00", "verdict": verdict}

    journal = [
        line("promoted", 1, {"labels": "old", "drift": "x"}),
        line("judged", 2, {"labels": "new", "drift": None, "decision": "reject"}),
        line("promoted", 3, None),
        {"event": "verified", "at": "2026-01-04T00:00:00+00:00"},
    ]

    assert last_judgement(journal) == Judgement(datetime(2026, 1, 2, tzinfo=UTC), "new", None, "reject")
    assert last_judgement(journal[2:]) is None
