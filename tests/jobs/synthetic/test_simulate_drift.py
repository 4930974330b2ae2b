"""A drill stores shifted transactions that can be forgotten."""

import numpy as np
import pytest

from fraud_detection.features import FeatureList, Matrix
from fraud_detection.settings import ClientSettings, JobSettings
from fraud_detection.store import Store, history
from jobs.exchange.api_client import ApiClient
from jobs.forget import forget
from jobs.installation import Installation
from jobs.synthetic.simulate_drift import UnknownFeature, shifted, simulate_drift


def test_a_drill_is_stored_shifted_and_can_be_forgotten(
    reference: Matrix, running_api: dict[str, str], features: FeatureList
) -> None:
    settings = JobSettings.from_env(running_api)
    with ApiClient(ClientSettings.from_env(running_api)) as client:
        drill = simulate_drift(
            Installation(settings, features), client, shifts={"V1": 2, "V3": -1}, rows=1500, seed=1, run="r"
        )

    store = Store.open(settings.latest_db, features, read_only=True)
    with store.begin() as connection:
        stored = history.read(store, connection)
    means = stored.matrix.mean(axis=0) - reference.mean(axis=0)
    forgotten = forget(drill.transaction_id, Installation(settings, features))
    with store.begin() as connection:
        assert store.count_rows(connection) == 0
    store.close()
    assert (drill.rows, drill.flagged) == (1500, stored.is_flagged.sum())
    assert drill.transaction_id == "drill-r"
    assert means[[0, 2]] == pytest.approx(reference.std(axis=0)[[0, 2]] * [2, -1], abs=0.15)
    assert abs(means[[1, 3]]).max() < 0.15
    assert forgotten.rows == 1500


def test_an_unknown_feature_is_named(features: FeatureList) -> None:
    with pytest.raises(UnknownFeature, match="V99: no such feature; choose from V1, V2"):
        shifted(np.zeros((1, 29)), features, {"V99": 1})
