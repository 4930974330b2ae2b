"""Equal input grows an equal forest, which ranks later frauds."""

from pathlib import Path

import numpy as np
import pytest
from sklearn.ensemble import RandomForestClassifier
from sklearn.metrics import average_precision_score

from fraud_detection.features import FeatureList
from jobs.describe import read_labelled
from jobs.synthetic.statistics import PUBLIC_SCALING
from jobs.synthetic.transactions import synthetic
from jobs.training.forest import PARAMETERS, OneClass, fit


def test_the_same_seed_grows_the_same_forest() -> None:
    drawn = synthetic(1500, seed=1, fraud_share=0.05)

    first, again, other = (fit(drawn.matrix, drawn.is_fraud, seed) for seed in (1, 1, 2))

    scores = first.predict_proba(drawn.matrix)
    assert np.array_equal(scores, again.predict_proba(drawn.matrix))
    assert not np.array_equal(scores, other.predict_proba(drawn.matrix))


def test_growing_in_steps_gives_the_forest_that_its_parameters_describe() -> None:
    drawn = synthetic(1500, seed=1, fraud_share=0.05)

    ours = fit(drawn.matrix, drawn.is_fraud, seed=3)

    plain = RandomForestClassifier(**PARAMETERS, random_state=3).fit(drawn.matrix, drawn.is_fraud)
    assert np.array_equal(ours.predict_proba(drawn.matrix), plain.predict_proba(drawn.matrix))
    assert (ours.n_estimators, ours.n_jobs, ours.warm_start) == (100, None, False)


@pytest.mark.parametrize("frauds", [0, 100])
def test_one_class_alone_is_refused(frauds: int) -> None:
    matrix = np.zeros((100, 2))

    with pytest.raises(OneClass, match=f"got {frauds} frauds in 100 rows"):
        fit(matrix, np.arange(100) < frauds, seed=1)


@pytest.mark.parametrize("share", [0.5, 0.7])
def test_ranks_later_real_transactions_as_well_as_a_plain_forest(
    real_data: Path, features: FeatureList, share: float
) -> None:
    """The file is in order of time, so the cut is one by time."""
    transactions = read_labelled(real_data, features, PUBLIC_SCALING)
    cut = int(len(transactions.matrix) * share)
    training, later = slice(cut), slice(cut, None)

    ours = fit(transactions.matrix[training], transactions.is_fraud[training], seed=1)
    plain = RandomForestClassifier(random_state=1, n_jobs=-1).fit(
        transactions.matrix[training], transactions.is_fraud[training]
    )

    reached, expected = (
        average_precision_score(transactions.is_fraud[later], model.predict_proba(transactions.matrix[later])[:, 1])
        for model in (ours, plain)
    )
    assert reached >= expected - 0.01
