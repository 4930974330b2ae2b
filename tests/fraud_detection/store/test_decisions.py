"""Scored requests are stored whole and read back bit for bit."""

import numpy as np
import pytest
import sqlalchemy as sa

from fraud_detection.store import Store, decisions, history
from tests.support.transactions import scored


def test_remembers_what_it_scored(store: Store) -> None:
    request = scored(3, transaction_ids=["a", None, "c"])

    with store.begin() as connection:
        decisions.append(store, connection, [request])

    with store.begin() as connection:
        stored = history.read(store, connection)
        (decision,) = decisions.find(store, connection, "c")
    assert (stored.matrix == request.matrix).all()
    assert stored.fraud_probability.tolist() == [0.25, 0.75, 0.25]
    assert stored.is_flagged.tolist() == [False, True, False]
    assert stored.is_fraud.tolist() == [-1, -1, -1]
    assert (decision.row_index, decision.model_digest, decision.ts) == (2, "0" * 64, request.ts)
    assert list(decision.features.values()) == request.matrix[2].tolist()


def test_a_failed_request_leaves_none_of_its_rows(store: Store) -> None:
    with store.begin() as connection:
        decisions.append(store, connection, [scored(2, key="k")])

    with pytest.raises(sa.exc.IntegrityError), store.begin() as connection:
        decisions.append(store, connection, [scored(5, key="k")])

    with store.begin() as connection:
        assert store.count_rows(connection) == 2


def test_the_reply_to_a_key_is_read_from_its_rows(store: Store) -> None:
    request = scored(3, key="once")
    with store.begin() as connection:
        decisions.append(store, connection, [request])

    with store.begin() as connection:
        reply = decisions.replay(store, connection, "once")
        assert decisions.replay(store, connection, "another") is None

    assert reply is not None
    assert reply.fraud_probability == request.fraud_probability
    assert reply.is_flagged == [False, True, False]
    assert (reply.request_id, reply.body_sha256) == (request.request_id, "b" * 64)


@pytest.mark.parametrize("score", [np.nan, np.inf, 1.5])
def test_the_database_itself_refuses_a_score_that_is_no_probability(store: Store, score: float) -> None:
    request = scored()
    request.fraud_probability[0] = score

    with pytest.raises(sa.exc.IntegrityError), store.begin() as connection:
        decisions.append(store, connection, [request])
