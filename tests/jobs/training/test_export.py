"""The exported files score as scikit-learn does, and load in a fresh process."""

import io
import pickle
from pathlib import Path

import joblib
import numpy as np
import pytest
from sklearn.cluster import KMeans
from sklearn.ensemble import RandomForestClassifier

from fraud_detection.features import FeatureList
from fraud_detection.model.files import ONNX, PICKLE
from jobs.describe import read_labelled
from jobs.synthetic.statistics import PUBLIC_SCALING
from jobs.synthetic.transactions import synthetic
from jobs.training.export import export, library_versions
from jobs.training.forest import fit
from jobs.training.usable import (
    TOLERANCE,
    ExportFailed,
    largest_difference,
    require_parity,
    score,
)


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
