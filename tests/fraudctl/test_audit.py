"""`fraudctl lineage` prints where a decision comes from, and `forget` asks before it deletes."""

import numpy as np
import pytest

from fraud_detection.clock import Clock
from fraud_detection.model.read import Model
from fraud_detection.store import Store, decisions
from fraud_detection.store.decisions import ScoredRequest
from tests.support.command_line import Fraudctl


@pytest.fixture
def stored(store: Store, model: Model) -> Store:
    """A store with the transaction `order-1`, which the current model scored."""
    ts, request_id = Clock().tick()
    request = ScoredRequest(
        request_id=request_id,
        ts=ts,
        matrix=np.full((1, 29), 0.5),
        fraud_probability=[0.75],
        threshold=0.4,
        model_version=model.version,
        model_digest=model.digest,
        transaction_ids=["order-1"],
    )
    with store.begin() as connection:
        decisions.append(store, connection, [request])
    return store


def test_lineage_is_printed(fraudctl: Fraudctl, stored: Store, model: Model, environment: dict[str, str]) -> None:
    result = fraudctl("lineage", "order-1", env=environment)

    assert result.stdout.startswith("Transaction order-1\n")
    assert f"{model.version}, the current version" in result.stdout


def test_lineage_of_nothing_is_an_error(fraudctl: Fraudctl, stored: Store, environment: dict[str, str]) -> None:
    result = fraudctl("lineage", "order-2", env=environment, exit_code=1)

    assert result.stderr == "fraudctl: order-2: no transaction is stored under this id\n"


def test_forget_asks_first(fraudctl: Fraudctl, stored: Store, environment: dict[str, str]) -> None:
    fraudctl("forget", "order-1", env=environment, answer="n\n", exit_code=1)
    kept = fraudctl("lineage", "order-1", env=environment)
    forgotten = fraudctl("forget", "order-1", "--yes", env=environment)
    fraudctl("lineage", "order-1", env=environment, exit_code=1)

    assert "Transaction order-1" in kept.stdout
    assert "order-1: erased 1 stored row with" in forgotten.stdout
