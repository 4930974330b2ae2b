"""A challenger is judged on rows that it never saw, with a manifest of where it comes from."""

import dataclasses
import shutil
from datetime import timedelta
from pathlib import Path

import numpy as np
import pytest

from fraud_detection.model.files import ONNX, PICKLE
from fraud_detection.model.manifest import AmountScaling, Manifest, StoredFile
from fraud_detection.model.read import Model, load
from fraud_detection.store.history import History
from jobs.evaluation.gate import Verdict
from jobs.training.challenger import Challenger, train, verdict_on, with_verdict
from jobs.training.read_history import read_history
from jobs.training.selection import Selection, select
from tests.support.installation import FEATURES, NOW, SmallInstallation, made_up


@pytest.fixture(scope="module")
def grown(tmp_path_factory: pytest.TempPathFactory, _trained: Path) -> SmallInstallation:
    """An installation whose first model has served for a while; its transactions are labelled."""
    folder = tmp_path_factory.mktemp("grown")
    shutil.copytree(_trained, folder, symlinks=True, dirs_exist_ok=True)
    installation = SmallInstallation(folder)
    matrix, is_fraud = made_up(1000, seed=2)
    installation.score(matrix, age_days=35, truths=is_fraud)
    return installation


@pytest.fixture(scope="module")
def served(grown: SmallInstallation) -> Model:
    return load(grown.settings.model_path, FEATURES)


@pytest.fixture(scope="module")
def history(grown: SmallInstallation) -> History:
    return read_history(grown.here)[0]


@pytest.fixture(scope="module")
def selection(grown: SmallInstallation, served: Model, history: History) -> Selection:
    return select(history, served.manifest, grown.settings, NOW)


@pytest.fixture(scope="module")
def challenger(grown: SmallInstallation, served: Model, history: History, selection: Selection) -> Challenger:
    scaling = AmountScaling(20.0, 5.0)
    return train(selection, history, served, grown.here, scaling=scaling, now=NOW)


def names(verdict: Verdict, *, passed: bool) -> list[str]:
    return [check.name for check in verdict.checks if check.passed == passed]


def test_the_challenger_never_sees_what_it_is_judged_on(challenger: Challenger, selection: Selection) -> None:
    window = challenger.manifest.training_window

    assert window is not None
    assert window[1] < str(selection.holdout.history.ts[0])
    assert sum(challenger.manifest.rows.values()) == len(selection.training)


def test_the_manifest_says_where_the_model_comes_from(challenger: Challenger, served: Model) -> None:
    manifest = challenger.manifest

    assert (manifest.trained_on, manifest.parent, manifest.verdict) == ("labels", served.version, None)
    assert manifest.amount_scaling == AmountScaling(20.0, 5.0)
    assert manifest.label_sources == {"chargeback": 400, "import": 1000}
    assert len(manifest.golden.rows) >= 20
    assert "scikit-learn" in manifest.libraries


def test_equal_input_gives_an_equal_model(
    challenger: Challenger, grown: SmallInstallation, served: Model, history: History, selection: Selection
) -> None:
    later = NOW + timedelta(days=1)

    again = train(selection, history, served, grown.here, scaling=None, now=later)

    assert again.digest == challenger.digest
    assert again.manifest.golden == challenger.manifest.golden


def test_a_good_challenger_passes_every_check(
    challenger: Challenger, grown: SmallInstallation, served: Model, selection: Selection
) -> None:
    verdict = verdict_on(challenger, selection, served, grown.settings)

    assert verdict.decision == "promote"
    assert {"better_or_equal", "onnx_equals_pickle", "loads"} <= set(names(verdict, passed=True))


@pytest.mark.usefixtures("checked_here")
def test_files_that_disagree_fail_the_verdict(
    challenger: Challenger, grown: SmallInstallation, served: Model, selection: Selection
) -> None:
    other = (grown.models_dir / served.version / PICKLE).read_bytes()
    mixed = dataclasses.replace(challenger, files=challenger.files | {PICKLE: other})

    verdict = verdict_on(mixed, selection, served, grown.settings)

    assert verdict.decision == "reject"
    assert names(verdict, passed=False) == ["onnx_equals_pickle", "loads"]


@pytest.mark.usefixtures("checked_here")
def test_scores_that_are_no_numbers_fail_the_verdict(
    challenger: Challenger, grown: SmallInstallation, served: Model, selection: Selection
) -> None:
    broken = dataclasses.replace(challenger, scores=np.full(len(selection.holdout), np.nan))

    assert verdict_on(broken, selection, served, grown.settings).decision == "reject"


def derived(selection: Selection) -> Selection:
    return dataclasses.replace(selection, label_source="derived")


@pytest.mark.usefixtures("checked_here")
@pytest.mark.parametrize(
    ("champion_alerts", "decision", "failed"),
    [
        (10, "reject", ["alert_ratio"]),
        (40, "promote", []),
        (120, "reject", ["alert_ratio"]),
    ],
)
def test_a_model_of_derived_labels_must_flag_about_as_much_as_the_current_model(
    challenger: Challenger,
    grown: SmallInstallation,
    served: Model,
    selection: Selection,
    *,
    champion_alerts: int,
    decision: str,
    failed: list[str],
) -> None:
    assert challenger.champion_evaluation is not None
    before = dataclasses.replace(challenger.champion_evaluation, true_positives=champion_alerts, false_positives=0)
    after = dataclasses.replace(challenger.evaluation, true_positives=40, false_positives=10)
    replayed = dataclasses.replace(challenger, evaluation=after, champion_evaluation=before)

    verdict = verdict_on(replayed, derived(selection), served, grown.settings)

    assert (verdict.decision, names(verdict, passed=False)) == (decision, failed)
    assert not {"better_or_equal", "better_than_guessing", "recall"} & {check.name for check in verdict.checks}


@pytest.mark.usefixtures("checked_here")
def test_a_model_of_derived_labels_that_flags_nothing_fails(
    challenger: Challenger, grown: SmallInstallation, served: Model, selection: Selection
) -> None:
    after = dataclasses.replace(challenger.evaluation, true_positives=0, false_positives=0)
    silent = dataclasses.replace(challenger, evaluation=after)

    verdict = verdict_on(silent, derived(selection), served, grown.settings)

    assert names(verdict, passed=False) == ["both_classes", "alert_ratio"]


@pytest.mark.usefixtures("checked_here")
def test_without_a_current_model_derived_labels_cannot_be_checked(
    challenger: Challenger, grown: SmallInstallation, selection: Selection
) -> None:
    alone = dataclasses.replace(challenger, champion_scores=None, champion_evaluation=None)

    verdict = verdict_on(alone, derived(selection), None, grown.settings)

    assert verdict.decision == "reject"
    assert "cannot be compared with the current model" in verdict.checks[1].sentence


def test_the_verdict_in_the_manifest_carries_the_facts_of_the_run(challenger: Challenger) -> None:
    manifest = with_verdict(challenger.manifest, Verdict(()), {"labels": "abc", "drift": None})

    assert manifest.verdict == {"decision": "hold", "checks": [], "labels": "abc", "drift": None}
    assert (
        Manifest.from_json(dataclasses.replace(manifest, files={ONNX: StoredFile("a", 1)}).to_json().encode()).verdict
        == manifest.verdict
    )
