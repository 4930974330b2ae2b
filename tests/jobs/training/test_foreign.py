"""A classifier of the user becomes the two files of a version, or is refused by name."""

from pathlib import Path

import joblib
import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from fraud_detection.features import Feature, FeatureList
from fraud_detection.model.files import ONNX, PICKLE
from jobs.training.export import TOLERANCE
from jobs.training.foreign import CannotAdopt, convert, load_classifier

TWO = FeatureList((Feature("amount"), Feature("age_days")))
ROWS = np.random.default_rng(1).normal(size=(200, 2))


@pytest.mark.parametrize(
    ("fraud", "features", "message"),
    [
        (1, FeatureList((*TWO.features, Feature("hour"))), "expected a classifier of 3 features"),
        (2, TWO, r"expected the classes 0 \(genuine\) and 1 \(fraud\), got \[0, 2\]"),
    ],
    ids=["of other features", "of other classes"],
)
def test_a_classifier_that_does_not_fit_is_refused_by_name(
    tmp_path: Path, fraud: int, features: FeatureList, message: str
) -> None:
    path = tmp_path / "model.pkl"
    joblib.dump(LogisticRegression().fit(ROWS, np.where(ROWS[:, 0] > 1, fraud, 0)), path)

    with pytest.raises(CannotAdopt, match=f"model.pkl: {message}"):
        load_classifier(path, features)


def test_a_classifier_becomes_the_two_files_of_a_version(tmp_path: Path) -> None:
    path = tmp_path / "model.pkl"
    joblib.dump(LogisticRegression().fit(ROWS, (ROWS[:, 0] > 1).astype(int)), path)

    classifier, notes = load_classifier(path, TWO)
    files, difference = convert(classifier, TWO, ROWS, path)

    assert (set(files), notes) == ({ONNX, PICKLE}, [])
    assert difference <= TOLERANCE
