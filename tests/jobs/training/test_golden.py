"""Golden rows hold no transaction's values, lie on both sides of the threshold, and are the same each time."""

import numpy as np
import pytest
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from fraud_detection.features import Feature, FeatureList, Matrix
from jobs.training.export import to_onnx
from jobs.training.golden import GOLDEN_ROWS, golden, is_synthetic
from tests.support.installation import FEATURES, made_up

EDGES = FeatureList((Feature("constant"), Feature("yes_or_no"), Feature("cents"), Feature("large"), Feature("risk")))


def of_edges() -> Matrix:
    """Columns in which a mean or a rounded number is the value of a row: constant, two values, cents, large."""
    random = np.random.default_rng(3)
    return np.column_stack(
        [
            np.full(2000, 7.0),
            random.random(2000) < 0.002,
            np.round(random.exponential(80, 2000), 2),
            1e9 + random.integers(-100, 100, 2000),
            random.normal(size=2000),
        ]
    )


@pytest.mark.parametrize(
    ("rows", "features", "place_of_risk"),
    [(made_up(2000, seed=4)[0], FEATURES, 0), (of_edges(), EDGES, 4)],
    ids=["normal", "edges"],
)
def test_no_cell_is_the_value_of_a_row_and_both_decisions_are_there(
    rows: Matrix, features: FeatureList, place_of_risk: int
) -> None:
    is_fraud = rows[:, place_of_risk] > 2.0
    onnx = to_onnx(make_pipeline(StandardScaler(), LogisticRegression()).fit(rows, is_fraud), features)

    made = golden(onnx, rows, seed=1)

    cells = np.array(made.rows)
    assert cells.shape == (GOLDEN_ROWS, len(features))
    for place, column in enumerate(cells.T):
        assert not np.isin(column.astype(np.float32), rows[:, place].astype(np.float32)).any()
    assert min(made.scores) < 0.4 <= max(made.scores)
    assert made == golden(onnx, rows, seed=1)
    assert is_synthetic(made)


def test_both_decisions_are_there_if_fraud_is_rare_and_takes_three_features() -> None:
    rows = np.random.default_rng(5).normal(size=(4000, 3))
    is_fraud = (rows > 1.1).all(axis=1)
    onnx = to_onnx(RandomForestClassifier(20, random_state=1).fit(rows, is_fraud), FEATURES)

    made = golden(onnx, rows, seed=1)

    assert is_fraud.mean() < 0.005
    assert min(made.scores) < 0.4 <= max(made.scores)


def test_both_decisions_are_there_if_no_mixture_of_ordinary_values_looks_like_fraud() -> None:
    rows = np.random.default_rng(5).normal(size=(4000, 8))
    rows[:20] += 4
    features = FeatureList(tuple(Feature(f"f{place}") for place in range(8)))
    forest = RandomForestClassifier(20, max_features=None, min_samples_leaf=5, random_state=1)
    onnx = to_onnx(forest.fit(rows, rows.min(axis=1) > 1), features)

    made = golden(onnx, rows, seed=1)

    assert min(made.scores) < 0.4 <= max(made.scores)


def test_few_rows_are_enough() -> None:
    rows, is_fraud = made_up(24, seed=4)
    onnx = to_onnx(LogisticRegression().fit(rows, is_fraud), FEATURES)

    made = golden(onnx, rows, seed=1)

    assert not np.isin(made.rows, rows).any()
    assert min(made.scores) < max(made.scores)
