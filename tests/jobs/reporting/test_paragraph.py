"""The paragraph of a retraining says what happened, and why."""

import dataclasses
from collections.abc import Callable
from pathlib import Path

import pytest

from fraud_detection.features import FeatureList
from fraud_detection.model.manifest import Golden, Manifest
from fraud_detection.model.read import Model, read_version
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
        Check("alerts_per_day", 9, 3, passed=False, sentence="The new model would raise 9 alerts per day."),
    )
)
NEXT = "The next one comes."


@pytest.fixture
def baseline(tmp_path: Path, make_version: Callable[..., str], features: FeatureList) -> Model:
    version = make_version(tmp_path / "models", trained_on="synthetic")
    return read_version(tmp_path / "models" / version, features)


def test_a_promotion_says_only_how_the_new_model_compares() -> None:
    passed = Verdict(tuple(dataclasses.replace(check, passed=True) for check in VERDICT.checks))

    told = explanation.promoted("20260102T000000Z-def", "It learned.", passed, MANIFEST, NEXT)

    assert told == (
        "It learned. The new model would raise 9 alerts per day. "
        "The new model is now current as 20260102T000000Z-def in place of 20260101T000000Z-abc. The next one comes."
    )


def test_a_rejection_says_only_what_failed_and_what_keeps_serving(model: Model) -> None:
    told = explanation.rejected("A new model learned.", VERDICT, model, NEXT)

    assert told == (
        "A new model learned. The new model was not good enough: The new model would raise 9 alerts per day. "
        f"{model.version} keeps serving. No action is needed. The next one comes. "
        "If a model is rejected again, check recent labels."
    )


def test_while_a_synthetic_model_serves_labels_are_needed(baseline: Model) -> None:
    told = explanation.rejected("It learned.", VERDICT, baseline, NEXT)

    assert told.endswith(
        f"{baseline.version} keeps serving. It has learned from synthetic transactions only. "
        "Label more transactions or import history. The next one comes."
    )


def test_without_a_current_model_it_says_so() -> None:
    told = explanation.rejected("It learned.", VERDICT, None, NEXT)

    assert told.endswith(
        "There is still no model; `fraudctl serve --first-time` creates a first one. "
        "Label more transactions or import history. The next one comes."
    )
