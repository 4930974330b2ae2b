"""Scored requests are stored whole and read back bit for bit."""

from typing import Any

import numpy as np
import pytest
import sqlalchemy as sa

from fraud_detection.store import Store, decisions, history, labels, transfer
from fraud_detection.store.transfer import ImportedRows
from tests.support.transactions import label, scored


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


def test_finds_the_newest_of_many_and_counts_them_all(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decisions, "MAX_FOUND", 3)
    requests = [scored(2, transaction_ids=["t", "t"]) for _ in range(4)]
    late_entry = ImportedRows("imported", ["2013-09-01 00:00:00.000000"] * 2, np.zeros((2, 29)), [None] * 2, ["t"] * 2)
    with store.begin() as connection:
        decisions.append(store, connection, requests)
        transfer.import_history(store, connection, [late_entry], reporter="old.csv", received_at=requests[0].ts)

        found = decisions.find(store, connection, "t")
        total = decisions.count(store, connection, "t")
        monkeypatch.setattr(decisions, "MAX_COUNTED", 7)
        counted = decisions.count(store, connection, "t")

    newest, earlier = requests[3].request_id, requests[2].request_id
    assert [(decision.request_id, decision.row_index) for decision in found] == [(newest, 0), (newest, 1), (earlier, 0)]
    assert (total, counted) == (10, 7)


def test_a_look_up_reads_no_more_when_more_is_stored(sqlite_store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decisions, "MAX_FOUND", 10)
    steps: list[int] = []

    def look_up(connection: sa.Connection) -> int:
        driver: Any = connection.connection.driver_connection
        before = len(steps)
        driver.set_progress_handler(lambda: steps.append(1), 1)  # called for each step of SQLite's program
        decisions.find(sqlite_store, connection, "t")
        driver.set_progress_handler(None, 1)
        return len(steps) - before

    with sqlite_store.begin() as connection:
        decisions.append(sqlite_store, connection, [scored(100, transaction_ids=["t"] * 100)])
        few = look_up(connection)
        decisions.append(sqlite_store, connection, [scored(900, transaction_ids=["t"] * 900)])
        many = look_up(connection)

    assert many < 1.1 * few


def test_a_row_that_an_id_names_twice_is_found_and_counted_once(store: Store) -> None:
    own = scored(2)
    requests = [own, scored(3, transaction_ids=[own.request_id, f"{own.request_id}:1", None])]
    named_after_itself = ImportedRows("self", ["2013-09-01 00:00:00.000000"], np.zeros((1, 29)), [None], ["self"])
    with store.begin() as connection:
        decisions.append(store, connection, requests)
        transfer.import_history(store, connection, [named_after_itself], reporter="old.csv", received_at=own.ts)

        sizes = {
            name: (len(decisions.find(store, connection, name)), decisions.count(store, connection, name))
            for name in (own.request_id, f"{own.request_id}:1", "self", "unknown")
        }

    assert sizes == {own.request_id: (3, 3), f"{own.request_id}:1": (2, 2), "self": (1, 1), "unknown": (0, 0)}


def test_the_labels_reported_last_are_found_and_all_are_counted(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (decisions, labels):
        monkeypatch.setattr(module, "MAX_FOUND", 2)
    request = scored()
    with store.begin() as connection:
        decisions.append(store, connection, [request])
        for day in (3, 1, 4, 2):
            said = label(request, reported_at=f"2026-01-0{day} 00:00:00.000000")
            labels.add(store, connection, [said], "2026-02-02 00:00:00.000000")

        (decision,) = decisions.find(store, connection, request.request_id)

    assert [said.reported_at[:10] for said in decision.labels] == ["2026-01-03", "2026-01-04"]
    assert decision.labels_total_count == 4


@pytest.mark.parametrize("score", [np.nan, np.inf, 1.5])
def test_the_database_itself_refuses_a_score_that_is_no_probability(store: Store, score: float) -> None:
    request = scored()
    request.fraud_probability[0] = score

    with pytest.raises(sa.exc.IntegrityError), store.begin() as connection:
        decisions.append(store, connection, [request])
