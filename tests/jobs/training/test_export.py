"""The exported files score as scikit-learn does, and load in a fresh process."""

import io
import pickle
import signal
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import joblib
import numpy as np
import pytest
from sklearn.cluster import KMeans
from sklearn.ensemble import RandomForestClassifier

from fraud_detection.child import NoAnswer
from fraud_detection.features import FeatureList
from fraud_detection.model.files import MANIFEST, ONNX, PICKLE
from fraud_detection.model.read import read_manifest
from fraud_detection.model.write import write_version
from jobs.describe import read_labelled
from jobs.synthetic.statistics import PUBLIC_SCALING
from jobs.synthetic.transactions import synthetic
from jobs.training import export as exporting
from jobs.training.export import (
    TOLERANCE,
    ExportFailed,
    export,
    largest_difference,
    library_versions,
    loads_in_fresh_process,
    require_parity,
    score,
)
from jobs.training.forest import fit


@pytest.fixture(scope="module")
def forest() -> RandomForestClassifier:
    drawn = synthetic(3000, seed=1, fraud_share=0.1)
    return fit(drawn.matrix, drawn.is_fraud, seed=1)


@pytest.fixture(scope="module")
def files(forest: RandomForestClassifier, features: FeatureList) -> dict[str, bytes]:
    return export(forest, features)


def test_scores_ten_thousand_real_transactions_as_scikit_learn_does(
    real_data: Path, files: dict[str, bytes], forest: RandomForestClassifier, features: FeatureList
) -> None:
    rows = read_labelled(real_data, features, PUBLIC_SCALING).matrix
    assert len(rows) >= 10_000

    ours = score(files[ONNX], rows)

    assert np.abs(ours - forest.predict_proba(rows)[:, 1]).max() <= 1e-6


def test_the_difference_stays_far_below_the_tolerance(files: dict[str, bytes]) -> None:
    """Summing 100 trees in float32 would stray up to 7e-7: within the tolerance, but by luck."""
    assert largest_difference(files, synthetic(50_000, seed=9).matrix) < TOLERANCE / 5


def test_a_row_scores_the_same_alone_and_in_a_batch(files: dict[str, bytes]) -> None:
    rows = synthetic(1000, seed=2).matrix

    together = score(files[ONNX], rows)

    assert [score(files[ONNX], row[np.newaxis])[0] for row in rows[:100]] == together[:100].tolist()


def test_values_on_the_edge_of_a_split_go_the_same_way(files: dict[str, bytes], forest: RandomForestClassifier) -> None:
    thresholds = np.concatenate([tree.tree_.threshold[tree.tree_.feature >= 0] for tree in forest.estimators_])
    random = np.random.default_rng(1)
    rows = random.choice(thresholds, size=(5000, 29))

    assert largest_difference(files, rows) <= TOLERANCE


def test_the_pickle_is_one_for_pickle_and_for_joblib(files: dict[str, bytes]) -> None:
    rows = synthetic(20, seed=2).matrix

    plain, through_joblib = pickle.loads(files[PICKLE]), joblib.load(io.BytesIO(files[PICKLE]))  # noqa: S301  made above

    assert np.array_equal(plain.predict_proba(rows), through_joblib.predict_proba(rows))


def test_a_file_that_scores_otherwise_is_refused(files: dict[str, bytes], features: FeatureList) -> None:
    drawn = synthetic(1000, seed=7, fraud_share=0.1)
    other = export(fit(drawn.matrix, drawn.is_fraud, seed=2), features)
    require_parity(files, drawn.matrix)

    with pytest.raises(ExportFailed, match=r"score 1000 rows differently, by up to 0\.\d+ \(1e-06 is accepted\)"):
        require_parity({ONNX: files[ONNX], PICKLE: other[PICKLE]}, drawn.matrix)


def test_what_is_no_classifier_cannot_be_exported(features: FeatureList) -> None:
    with pytest.raises(ExportFailed, match="RandomForestClassifier cannot be converted to ONNX"):
        export(RandomForestClassifier(), features)


def test_a_clustering_is_not_exported(features: FeatureList) -> None:
    rows = synthetic(100, seed=1).matrix

    with pytest.raises(ExportFailed, match="KMeans"):
        export(KMeans(2, n_init=1, random_state=1).fit(rows), features)


def test_names_the_libraries_that_made_it() -> None:
    assert {"scikit-learn", "onnxruntime", "numpy"} <= library_versions().keys()


def test_a_whole_version_loads_in_a_fresh_process(make_version: Callable[..., str], tmp_path: Path) -> None:
    assert loads_in_fresh_process(tmp_path / make_version(tmp_path)) is None


@pytest.mark.parametrize(
    ("name", "content", "complaint"),
    [
        (MANIFEST, b"{}", "manifest.json is not one of ours"),
        (ONNX, b"not a model", "model.onnx is not the file that the manifest describes"),
    ],
)
def test_a_damaged_version_does_not_load_in_a_fresh_process(
    make_version: Callable[..., str], tmp_path: Path, name: str, content: bytes, complaint: str
) -> None:
    directory = tmp_path / make_version(tmp_path)
    (directory / name).write_bytes(content)

    problem = loads_in_fresh_process(directory)

    assert problem is not None
    assert complaint in problem


def test_a_pickle_of_another_model_is_found_by_its_golden_scores(
    make_version: Callable[..., str], tmp_path: Path, forest: RandomForestClassifier
) -> None:
    whole = tmp_path / make_version(tmp_path)
    mixed = {ONNX: (whole / ONNX).read_bytes(), PICKLE: pickle.dumps(forest)}

    version = write_version(tmp_path / "mixed", mixed, read_manifest(whole))

    problem = loads_in_fresh_process(tmp_path / "mixed" / version)

    assert problem is not None
    assert problem.startswith("golden rows: ONNX and pickle differ by ")


@dataclass
class DoesWhenLoaded:
    """Its pickle calls a function: what a damaged pickle, a full disk or the kernel may do to the check."""

    function: Callable[..., object]
    arguments: tuple[object, ...]

    def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
        return self.function, self.arguments


def with_pickle(content: bytes, make_version: Callable[..., str], folder: Path) -> Path:
    whole = folder / make_version(folder)
    files = {ONNX: (whole / ONNX).read_bytes(), PICKLE: content}
    return folder / "other" / write_version(folder / "other", files, read_manifest(whole))


def test_a_pickle_that_does_not_load_is_a_verdict(make_version: Callable[..., str], tmp_path: Path) -> None:
    directory = with_pickle(b"not a pickle", make_version, tmp_path)

    problem = loads_in_fresh_process(directory)

    assert problem is not None
    assert problem.startswith("rf_model.pkl cannot be used (")


@pytest.mark.parametrize(
    ("function", "arguments", "reason", "message"),
    [
        (signal.raise_signal, (signal.SIGKILL,), "crashed", "SIGKILL often means that memory ran out"),
        (signal.raise_signal, (signal.SIGSEGV,), "crashed", "ended by SIGSEGV"),
        (open, ("/nowhere/at/all",), "untried", "FileNotFoundError"),
        (bytearray, (sys.maxsize,), "untried", "MemoryError"),
        (sys.exit, ("interrupted",), "untried", "interrupted"),
    ],
)
def test_a_check_that_comes_to_no_end_is_no_verdict(
    make_version: Callable[..., str],
    tmp_path: Path,
    *,
    function: Callable[..., object],
    arguments: tuple[object, ...],
    reason: str,
    message: str,
) -> None:
    directory = with_pickle(pickle.dumps(DoesWhenLoaded(function, arguments)), make_version, tmp_path)

    with pytest.raises(NoAnswer, match=message) as unanswered:
        loads_in_fresh_process(directory)

    assert unanswered.value.reason == reason


def test_a_check_that_takes_too_long_is_no_verdict(
    make_version: Callable[..., str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = tmp_path / make_version(tmp_path)
    monkeypatch.setattr(exporting, "CHECK_SECONDS", 0.01)

    with pytest.raises(NoAnswer, match=r"no answer within 0\.01 seconds"):
        loads_in_fresh_process(directory)


def test_a_check_that_cannot_be_started_is_no_verdict(
    make_version: Callable[..., str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = tmp_path / make_version(tmp_path)
    monkeypatch.setattr(sys, "executable", str(tmp_path / "no-python"))

    with pytest.raises(NoAnswer, match="could not be started"):
        loads_in_fresh_process(directory)
