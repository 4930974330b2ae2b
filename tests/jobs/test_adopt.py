"""A model of the user is adopted only if its scores survive the conversion."""

import os
import pickle
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pytest
from sklearn.ensemble import ExtraTreesClassifier, RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from fraud_detection.child import NoAnswer
from fraud_detection.features import FeatureList
from fraud_detection.model.files import PICKLE, REFERENCE
from fraud_detection.model.manifest import AmountScaling
from fraud_detection.model.read import current_version, journal, load, versions
from fraud_detection.model.write import promote
from fraud_detection.settings import JobSettings
from jobs.adopt import COMPARED_ROWS, Adopted, adopt
from jobs.drift.reference import read_reference
from jobs.installation import Installation
from jobs.rollout.promotion import tracking_of
from jobs.rollout.tracking import TrackingFailed
from jobs.synthetic.statistics import PUBLIC_SCALING, BadStatistics
from jobs.synthetic.transactions import synthetic
from jobs.training.foreign import CannotAdopt
from tests.support.installation import FEATURES, NOW, SmallInstallation, made_up

pytestmark = pytest.mark.long_file


def bring_in(path: Path, installation: SmallInstallation) -> Adopted:
    return adopt(path, installation.here, actor="an analyst", now=NOW)


def save(classifier: Any, path: Path, *, write: Callable[[Any, Any], object] = joblib.dump) -> Path:
    with path.open("wb") as file:
        write(classifier, file)
    return path


def forest(**parameters: Any) -> RandomForestClassifier:
    matrix, is_fraud = made_up(500, seed=1)
    return RandomForestClassifier(20, random_state=1, **parameters).fit(matrix, is_fraud.astype(int))


@pytest.fixture
def stocked(installation: SmallInstallation) -> SmallInstallation:
    """An installation with a thousand stored transactions without labels."""
    matrix, _ = made_up(1200, seed=5)
    installation.import_labelled(matrix, np.array([None] * 1200), age_days=10)
    return installation


@pytest.mark.parametrize("write", [joblib.dump, pickle.dump])
def test_a_pickle_of_either_kind_is_promoted(
    stocked: SmallInstallation, tmp_path: Path, write: Callable[[Any, Any], object]
) -> None:
    classifier = forest()

    adopted = bring_in(save(classifier, tmp_path / "theirs.pkl", write=write), stocked)

    model = load(stocked.settings.model_path, FEATURES)
    assert model.version == adopted.version
    rows = made_up(100, seed=9)[0]
    assert np.abs(model.score(rows) - classifier.predict_proba(rows)[:, 1]).max() < 1e-6
    assert np.array_equal(joblib.load(stocked.settings.model_path).predict_proba(rows), classifier.predict_proba(rows))
    assert (adopted.kind, adopted.compared_rows, adopted.notes) == ("RandomForestClassifier", 1200, ())
    assert adopted.largest_difference < 1e-6
    assert (model.manifest.trained_on, model.manifest.holdout) == ("unknown", None)
    assert read_reference(stocked.models_dir / model.version, FEATURES).shape == (1200, 3)
    assert [(entry["event"], entry["actor"]) for entry in journal(stocked.models_dir)] == [
        ("promoted", "an analyst"),
        ("verified", "an analyst"),
    ]
    assert tracking_of(stocked.here).champion() == model.digest


@pytest.mark.parametrize(
    "make",
    [
        lambda: ExtraTreesClassifier(10, random_state=1),
        LogisticRegression,
        lambda: make_pipeline(StandardScaler(), RandomForestClassifier(10, random_state=1)),
    ],
)
def test_other_classifiers_are_adopted_too(stocked: SmallInstallation, tmp_path: Path, make: Callable[[], Any]) -> None:
    matrix, is_fraud = made_up(500, seed=1)

    adopted = bring_in(save(make().fit(matrix, is_fraud.astype(int)), tmp_path / "theirs.pkl"), stocked)

    assert adopted.largest_difference <= 1e-6


def test_one_that_keeps_its_training_rows_says_so_on_the_terminal_and_in_the_journal(
    stocked: SmallInstallation, tmp_path: Path
) -> None:
    matrix, is_fraud = made_up(200, seed=1)
    neighbours = KNeighborsClassifier().fit(matrix, is_fraud.astype(int))

    adopted = bring_in(save(neighbours, tmp_path / "theirs.pkl"), stocked)

    (note,) = adopted.notes
    assert note.startswith("Its KNeighborsClassifier keeps rows that it was trained on")
    promoted, _ = journal(stocked.models_dir)
    assert "its KNeighborsClassifier keeps rows" in promoted["reason"]


def test_one_that_was_trained_on_a_table_of_these_columns_comes_in(stocked: SmallInstallation, tmp_path: Path) -> None:
    classifier = forest()
    classifier.feature_names_in_ = np.array(FEATURES.names, dtype=object)  # as if it had been trained on a table

    adopted = bring_in(save(classifier, tmp_path / "theirs.pkl"), stocked)

    assert stocked.served().digest.startswith(adopted.version[-12:])


def test_what_a_payload_would_do_is_not_done_and_nothing_changes(stocked: SmallInstallation, tmp_path: Path) -> None:
    class Payload:
        def __reduce__(self) -> Any:
            return os.system, (f"touch {tmp_path / 'ran'}",)

    path = tmp_path / "theirs.pkl"
    joblib.dump({"model": forest(), "note": Payload()}, path, compress=("gzip", 3))

    with pytest.raises(CannotAdopt, match=r"theirs.pkl: names posix\.system, which is no estimator of scikit-learn"):
        bring_in(path, stocked)

    assert versions(stocked.models_dir) == []
    assert not (tmp_path / "ran").exists()
    joblib.load(path)
    assert (tmp_path / "ran").exists()


def test_other_jobs_may_change_the_models_while_a_file_is_converted(
    stocked: SmallInstallation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lock = stocked.models_dir / ".lock"
    with stocked.here.promoter():
        taken = subprocess.run(["flock", "--nonblock", lock, "true"], check=False)
    program = tmp_path / "python"
    program.write_text(f"#!/bin/sh\nflock --nonblock {lock} touch {tmp_path}/free\n")
    program.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(program))

    with pytest.raises(NoAnswer, match=r"its conversion in a new process gave no verdict: it ended and left no reply"):
        bring_in(save(forest(), tmp_path / "theirs.pkl"), stocked)

    assert (tmp_path / "free").exists()
    assert taken.returncode == 1


def test_a_model_whose_check_gives_no_verdict_is_not_promoted(
    stocked: SmallInstallation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("jobs.training.foreign.CHECK_SECONDS", 0.01)

    with pytest.raises(NoAnswer, match=r"theirs\.pkl: its check in a new process gave no verdict: no answer within"):
        bring_in(save(forest(), tmp_path / "theirs.pkl"), stocked)

    assert current_version(stocked.models_dir) is None
    assert versions(stocked.models_dir) == []


def test_a_model_that_mlflow_rejects_leaves_no_version(stocked: SmallInstallation, tmp_path: Path) -> None:
    (stocked.settings.latest_db.parent / "mlartifacts").write_text("a file where a folder should be")

    with pytest.raises(TrackingFailed):
        bring_in(save(forest(), tmp_path / "theirs.pkl"), stocked)

    assert versions(stocked.models_dir) == []


def test_adopting_the_current_model_again_keeps_it(stocked: SmallInstallation, tmp_path: Path) -> None:
    path = save(forest(), tmp_path / "theirs.pkl")
    adopted = bring_in(path, stocked)
    artifacts = stocked.settings.latest_db.parent / "mlartifacts"
    artifacts.rename(artifacts.with_name("away"))
    artifacts.write_text("a file where a folder should be")

    with pytest.raises(TrackingFailed):
        bring_in(path, stocked)

    assert load(stocked.settings.model_path, FEATURES).version == adopted.version


def test_warnings_of_the_loader_are_passed_on(stocked: SmallInstallation, tmp_path: Path) -> None:
    content = pickle.dumps(forest()).replace(b"_sklearn_version\x94\x8c\x051.9", b"_sklearn_version\x94\x8c\x050.9")
    (tmp_path / "theirs.pkl").write_bytes(content)

    adopted = bring_in(tmp_path / "theirs.pkl", stocked)

    assert any("Trying to unpickle estimator" in note for note in adopted.notes)


def test_other_features_without_stored_transactions_leave_nothing_to_compare_on(
    installation: SmallInstallation, tmp_path: Path
) -> None:
    with pytest.raises(BadStatistics, match="import labelled history first"):
        bring_in(save(forest(), tmp_path / "theirs.pkl"), installation)


def test_a_classic_pickle_of_the_public_features_needs_no_history(
    tmp_path: Path, features: FeatureList, with_mlflow: Callable[[Path], None]
) -> None:
    with_mlflow(tmp_path / "data")
    settings = JobSettings.from_env(
        {
            "MODEL_PATH": str(tmp_path / "models" / PICKLE),
            "LATEST_DB": str(tmp_path / "data" / "requests.db"),
            "TRAIN_DB": str(tmp_path / "data" / "requests.db"),
        }
    )
    drawn = synthetic(1000, seed=3, fraud_share=0.1)
    classic = RandomForestClassifier(10, random_state=1).fit(drawn.matrix, drawn.is_fraud.astype(int))

    adopted = adopt(save(classic, tmp_path / "rf.pkl"), Installation(settings, features), actor="me", now=NOW)

    manifest = load(settings.model_path, features).manifest
    assert manifest.amount_scaling == PUBLIC_SCALING
    assert adopted.compared_rows == COMPARED_ROWS
    assert "so drift has no reference until" in adopted.notes[0]
    assert REFERENCE not in manifest.files


def test_the_scaling_of_the_current_model_is_kept(
    tmp_path: Path, features: FeatureList, make_version: Callable[..., str], with_mlflow: Callable[[Path], None]
) -> None:
    with_mlflow(tmp_path / "data")
    settings = JobSettings.from_env(
        {
            "MODEL_PATH": str(tmp_path / "models" / PICKLE),
            "LATEST_DB": str(tmp_path / "data" / "requests.db"),
            "TRAIN_DB": str(tmp_path / "data" / "requests.db"),
        }
    )
    served = make_version(tmp_path / "models", amount_scaling=AmountScaling(1.0, 2.0))
    promote(tmp_path / "models", served, actor="me", reason="a test")
    drawn = synthetic(1000, seed=3, fraud_share=0.1)
    classic = RandomForestClassifier(10, random_state=1).fit(drawn.matrix, drawn.is_fraud.astype(int))

    adopt(save(classic, tmp_path / "rf.pkl"), Installation(settings, features), actor="me", now=NOW)

    manifest = load(settings.model_path, features).manifest
    assert (manifest.amount_scaling, manifest.parent) == (AmountScaling(1.0, 2.0), served)
