"""A run in MLflow has the parameters, metrics and plots of its training."""

import dataclasses

import numpy as np
import pytest

from fraud_detection.model.files import ONNX, PICKLE, REFERENCE
from jobs.evaluation.gate import Verdict
from jobs.reporting import mlflow_run as run_record
from jobs.reporting import paragraph as explanation
from jobs.training.challenger import Challenger, train, with_verdict
from jobs.training.read_history import read_history
from jobs.training.selection import Selection, select
from tests.support.installation import NOW, SmallInstallation, made_up


@pytest.fixture(scope="module")
def installation(tmp_path_factory: pytest.TempPathFactory) -> SmallInstallation:
    made = SmallInstallation(tmp_path_factory.mktemp("recorded")).make()
    made.import_labelled(*made_up(1000, seed=1), age_days=100)
    return made


@pytest.fixture(scope="module")
def selection(installation: SmallInstallation) -> Selection:
    return select(read_history(installation.here)[0], None, installation.settings, NOW)


@pytest.fixture(scope="module")
def challenger(installation: SmallInstallation, selection: Selection) -> Challenger:
    history, scaling = read_history(installation.here)
    return train(selection, history, None, installation.here, scaling=scaling, now=NOW)


def test_params_say_how_it_was_trained_and_by_which_rules_it_was_judged(
    challenger: Challenger, selection: Selection, installation: SmallInstallation
) -> None:
    params = run_record.params(challenger, selection, installation.settings)

    assert params["n_estimators"] == 100
    assert (params["training_rows"], params["holdout_rows"], params["holdout_frauds"]) == (700, 300, 30)
    assert params["features"] == "amount_eur,distance_km,hour"
    assert (params["gate_min_frauds"], params["allow_derived_labels"]) == (20, False)


def test_metrics_without_a_current_model_are_those_of_the_new_one_alone(challenger: Challenger) -> None:
    metrics = run_record.metrics(challenger)

    assert metrics["average_precision"] == challenger.evaluation.average_precision
    assert metrics["validation_frauds"] == 14
    assert not [name for name in metrics if name.startswith("champion_")]


def test_a_figure_that_could_not_be_computed_is_left_out(challenger: Challenger) -> None:
    silent = dataclasses.replace(challenger, evaluation=dataclasses.replace(challenger.evaluation, precision=None))

    assert "precision" not in run_record.metrics(silent)


def test_a_hold_out_without_frauds_has_no_curve(challenger: Challenger, selection: Selection) -> None:
    """Derived labels have no fraud if the current model flagged nothing recently."""
    holdout = dataclasses.replace(selection.holdout, is_fraud=np.zeros(300, dtype=np.bool_))
    manifest = with_verdict(challenger.manifest, Verdict(()), {})

    files = run_record.files(challenger, manifest, dataclasses.replace(selection, holdout=holdout))

    assert "plots/precision_recall.png" not in files
    assert {"plots/scores.png", "verdict.json", f"model/{ONNX}", f"model/{PICKLE}"} <= files.keys()
    assert f"model/{REFERENCE}" not in files  # transactions stay on the volume


def test_labels_written_by_hand_are_counted_in_the_description(challenger: Challenger, selection: Selection) -> None:
    sources = np.where(np.arange(300) < 12, "external", selection.holdout.source)
    holdout = dataclasses.replace(selection.holdout, source=sources)

    told = explanation.what_was_tried(challenger, dataclasses.replace(selection, holdout=holdout))

    assert "Of these labels, 12 came into the table by hand, without a reporter on record." in told
