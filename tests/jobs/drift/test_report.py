"""The result file and the paragraph of a comparison say everything that it found."""

import hashlib
import json
from dataclasses import replace
from pathlib import Path

import pytest

from jobs.drift.distance import FeatureChange
from jobs.drift.report import (
    AlertRate,
    DriftFinding,
    DriftReport,
    FeatureDrift,
    Provenance,
    State,
    WindowBounds,
    paragraph,
    read_finding,
    to_json,
    unable_to_compare,
)

CALM = FeatureChange(d=0.01, p=0.5, p_adjusted=0.9, psi=0.001, wasserstein_sigmas=0.02)
MOVED = FeatureChange(d=0.2, p=1e-9, p_adjusted=1e-8, psi=0.2, wasserstein_sigmas=None)
REPORT = DriftReport(
    state="drift",
    reasons=("features", "alert_rate"),
    retrain=True,
    explanation=("V1 moved.", "The model flags more."),
    notes=("rows are treated as independent",),
    provenance=Provenance("v1", reference_digest="aa", served_digest="bb", seed=7),
    reference_rows=10_000,
    older=WindowBounds(600, 500, "2026-01-01", "2026-01-02"),
    newer=WindowBounds(600, 600, "2026-01-02", "2026-01-03"),
    features=(FeatureDrift("V1", CALM, MOVED, 0.3), FeatureDrift("V2", CALM, CALM, None)),
    alert_rate=AlertRate(1000, 0, 5000, 60, ratio=None, p=0.001, threshold_differs=False, is_changed=True),
    score_psi_older=0.02,
    score_psi_newer=None,
)


def test_the_result_file_says_everything() -> None:
    document = json.loads(to_json(REPORT), parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))

    assert document["schema_version"] == 1
    assert (document["drift"], document["state"], document["retrain"]) == (True, "drift", True)
    assert document["reasons"] == ["features", "alert_rate"]
    assert document["provenance"] == {
        "model_version": "v1", "reference_digest": "aa", "served_digest": "bb", "seed": 7
    }  # fmt: skip
    assert document["older"] == {"rows": 600, "scored_rows": 500, "start": "2026-01-01", "end": "2026-01-02"}
    assert document["features"][0]["newer"] == {
        "d": 0.2, "p": 1e-9, "p_adjusted": 1e-8, "psi": 0.2, "wasserstein_sigmas": None
    }  # fmt: skip
    assert document["alert_rate"]["ratio"] is None
    assert (document["score_psi_older"], document["score_psi_newer"]) == (0.02, None)
    assert (document["warned"], document["d_max"], document["d_since_first"]) == (["V1"], 0.2, 0.3)


@pytest.mark.parametrize("state", ["ok", "warn", "insufficient_data", "error"])
def test_only_drift_says_drift(state: State) -> None:
    assert json.loads(to_json(replace(REPORT, state=state)))["drift"] is False


def test_not_a_number_is_never_written() -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        to_json(replace(REPORT, score_psi_older=float("nan")))


def test_what_could_not_be_compared_is_an_error_without_figures() -> None:
    report = unable_to_compare("no model")

    assert (report.state, report.reasons, report.retrain) == ("error", ("error",), False)
    assert (report.warned, report.d_max, report.d_since_first, report.score_psi) == ((), None, None, None)


@pytest.mark.parametrize(
    ("report", "words"),
    [
        (REPORT, "The model flags more. Label those of the newest transactions that have no label: a retraining"),
        (replace(REPORT, retrain=False), "Repair the feed before the next retraining, which would learn from it."),
        (replace(REPORT, state="ok", explanation=()), "No action is needed."),
        (replace(REPORT, state="warn"), "it starts no retraining. V1 moved."),
        (replace(REPORT, state="warn", reasons=("baseline_reference",)), "Drift cannot be judged in full yet. V1"),
        (replace(REPORT, state="insufficient_data"), "could not be judged yet."),
    ],
)
def test_the_paragraph_says_what_follows(report: DriftReport, words: str) -> None:
    told = paragraph(report, "No retraining is due: no drift was reported.")

    assert words in told
    assert told.endswith(" No retraining is due: no drift was reported.")


def test_what_a_report_asks_for_is_read_back(tmp_path: Path) -> None:
    path = tmp_path / "drift_result.json"
    assert read_finding(path) is None

    path.write_text(to_json(REPORT))

    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    assert read_finding(path) == DriftFinding(sha256, "drift", retrain=True, reference_digest="aa")


@pytest.mark.parametrize("content", ["{", "[]", '{"retrain": true}', '{"retrain": true, "provenance": 1}'])
def test_a_file_that_is_no_report_asks_for_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, content: str
) -> None:
    path = tmp_path / "drift_result.json"
    path.write_text(content)

    assert read_finding(path) is None
    assert "drift_result.json is not valid" in caplog.text
