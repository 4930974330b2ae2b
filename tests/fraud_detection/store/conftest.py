"""A store as an installation fills it: scored, imported and labelled rows."""

import numpy as np
import pytest

from fraud_detection.clock import Clock
from fraud_detection.store import Store, decisions, labels, transfer
from fraud_detection.store.decisions import ScoredRequest
from fraud_detection.store.labels import NewLabel
from fraud_detection.store.transfer import ImportedRows

CLOCK = Clock()
NOW = "2026-02-02 00:00:00.000000"


@pytest.fixture
def filled(store: Store) -> tuple[Store, str, str]:
    """Three scored rows, the second labelled, after one of imported history; with both request ids."""
    ts, request_id = CLOCK.tick()
    scores = [0.3, 0.9, 0.7]
    request = ScoredRequest(
        request_id=request_id,
        ts=ts,
        matrix=np.arange(87.0).reshape(3, 29),
        fraud_probability=scores,
        threshold=0.4,
        model_version="v",
        model_digest="0" * 64,
        transaction_ids=["a", "b", None],
    )
    imported = ImportedRows(CLOCK.tick()[1], ["2013-09-01 00:00:00.000000"], np.zeros((1, 29)), [False], [None])
    with store.begin() as connection:
        transfer.import_history(store, connection, [imported], reporter="old.csv", received_at=NOW)
        decisions.append(store, connection, [request])
        labels.add(store, connection, [NewLabel(True, "analyst", "ann", NOW, request_id, 1)], NOW)
    return store, request_id, imported.request_id
