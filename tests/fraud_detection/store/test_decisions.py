from pathlib import Path

import numpy as np
import pytest
import sqlalchemy as sa

from fraud_detection.clock import Clock
from fraud_detection.store import Store, decisions, history, labels, upkeep
from fraud_detection.store.decisions import ScoredRequest
from fraud_detection.store.labels import NewLabel, UnknownTransaction

CLOCK = Clock()


def scored(rows: int = 1, *, transaction_ids: list[str | None] | None = None, key: str | None = None) -> ScoredRequest:
    ts, request_id = CLOCK.tick()
    random = np.random.default_rng(rows)
    return ScoredRequest(
        request_id=request_id,
        ts=ts,
        matrix=random.normal(size=(rows, 29)),
        fraud_probability=[0.25 + 0.5 * (index % 2) for index in range(rows)],
        threshold=0.4,
        model_version="20260101T000000Z-0123456789ab",
        model_digest="0" * 64,
        transaction_ids=transaction_ids or [None] * rows,
        idempotency_key=key,
        body_sha256="b" * 64 if key else None,
    )


def label(
    request: ScoredRequest,
    row: int = 0,
    *,
    is_fraud: bool = True,
    reported_at: str | None = "2026-02-01 00:00:00.000000",
) -> NewLabel:
    return NewLabel(
        is_fraud=is_fraud,
        source="chargeback",
        reporter="bank",
        reported_at=reported_at,
        request_id=request.request_id,
        row_index=row,
    )


NOW = "2026-02-02 00:00:00.000000"
LATER = "2026-02-03 00:00:00.000000"


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


def test_the_label_reported_last_counts_in_whatever_order_it_arrives(store: Store) -> None:
    first, second = scored(), scored()
    with store.begin() as connection:
        decisions.append(store, connection, [first, second])

        for request, is_fraud, day in ((first, True, 1), (first, False, 2), (second, False, 2), (second, True, 1)):
            reported_at = f"2026-01-0{day} 00:00:00.000000"
            labels.add(store, connection, [label(request, is_fraud=is_fraud, reported_at=reported_at)], NOW)

        stored = history.read(store, connection)
    assert stored.is_fraud.tolist() == [0, 0]
    assert stored.label_source.tolist() == ["chargeback", "chargeback"]


def test_repeating_a_label_changes_nothing(store: Store) -> None:
    request = scored()
    with store.begin() as connection:
        decisions.append(store, connection, [request])

        assert labels.add(store, connection, [label(request)], NOW) == 1
        assert labels.add(store, connection, [label(request), label(request)], NOW) == 0

        (decision,) = decisions.find(store, connection, request.request_id)
    assert len(decision.labels) == 1
    assert decision.is_fraud is True


def test_a_verdict_without_a_time_is_a_repetition_until_its_reporter_says_otherwise(store: Store) -> None:
    request = scored()
    with store.begin() as connection:
        decisions.append(store, connection, [request])

        added = [
            labels.add(store, connection, [label(request, is_fraud=is_fraud, reported_at=None)], received_at)
            for is_fraud, received_at in ((True, NOW), (True, LATER), (False, LATER), (False, LATER))
        ]

        (decision,) = decisions.find(store, connection, request.request_id)
    assert added == [1, 0, 1, 0]
    assert [(said.is_fraud, said.reported_at) for said in decision.labels] == [(True, NOW), (False, LATER)]
    assert decision.is_fraud is False


def test_an_unknown_transaction_among_labels_undoes_them_all(store: Store) -> None:
    request = scored()
    with store.begin() as connection:
        decisions.append(store, connection, [request])

    with pytest.raises(UnknownTransaction) as refused, store.begin() as connection:
        labels.add(store, connection, [label(request), label(scored())], NOW)

    with store.begin() as connection:
        assert history.read(store, connection).is_fraud.tolist() == [-1]
    assert refused.value.position == 1


def test_a_label_by_transaction_id_reaches_every_row_of_it(store: Store) -> None:
    with store.begin() as connection:
        decisions.append(store, connection, [scored(transaction_ids=["t"]), scored(transaction_ids=["t"])])
        by_id = NewLabel(True, "analyst", "ann", NOW, transaction_id="t")

        assert labels.add(store, connection, [by_id], NOW) == 1

        assert history.read(store, connection).is_fraud.tolist() == [1, 1]


def test_class_set_by_hand_counts_as_external(store: Store) -> None:
    with store.begin() as connection:
        decisions.append(store, connection, [scored()])
        connection.execute(sa.update(store.tables.requests).values({"Class": 1}))

        stored = history.read(store, connection)

    assert (stored.is_fraud.tolist(), stored.label_source.tolist()) == ([1], ["external"])


def test_recent_gives_the_newest_rows_in_order_of_time(store: Store) -> None:
    requests = [scored() for _ in range(5)]
    with store.begin() as connection:
        decisions.append(store, connection, requests)

        recent = history.recent(store, connection, 3, since=requests[0].ts)
        bounded = history.recent(store, connection, 9, since=requests[1].ts, until=requests[3].ts)

    assert recent.ts.tolist() == [request.ts for request in requests[2:]]
    assert bounded.ts.tolist() == [request.ts for request in requests[1:3]]


def test_a_snapshot_does_not_see_later_rows_nor_stop_them(store: Store) -> None:
    with store.begin() as connection:
        decisions.append(store, connection, [scored()])

    with history.snapshot(store) as before:
        with store.begin() as connection:
            decisions.append(store, connection, [scored()])
        seen = store.count_rows(before)

    with store.begin() as connection:
        assert (seen, store.count_rows(connection)) == (1, 2)


def test_forget_erases_rows_labels_and_keys(store: Store) -> None:
    request = scored(2, transaction_ids=["gone", "stays"], key="k")
    with store.begin() as connection:
        decisions.append(store, connection, [request])
        labels.add(store, connection, [label(request, 0), label(request, 1)], NOW)

        forgotten = upkeep.forget(store, connection, "gone")

        assert decisions.find(store, connection, "gone") == []
        assert len(decisions.find(store, connection, "stays")) == 1
        assert decisions.replay(store, connection, "k") is None
    assert forgotten.keys == [(request.request_id, 0)]
    assert (forgotten.labels, forgotten.idempotency_keys) == (1, 1)


def test_expire_takes_old_unlabelled_rows_and_keeps_labelled_ones(store: Store) -> None:
    old, labelled, new = scored(key="old"), scored(), scored()
    with store.begin() as connection:
        decisions.append(store, connection, [old, labelled, new])
        labels.add(store, connection, [label(labelled)], NOW)

        assert upkeep.expire(store, connection, before=new.ts, limit=10) == 1
        assert upkeep.expire(store, connection, before=new.ts, limit=10) == 0

        assert history.read(store, connection).request_id.tolist() == [labelled.request_id, new.request_id]
        assert decisions.replay(store, connection, "old") is None


@pytest.mark.parametrize("score", [np.nan, np.inf, 1.5])
def test_the_database_itself_refuses_a_score_that_is_no_probability(store: Store, score: float) -> None:
    request = scored()
    request.fraud_probability[0] = score

    with pytest.raises(sa.exc.IntegrityError), store.begin() as connection:
        decisions.append(store, connection, [request])


def test_a_killed_job_leaves_no_transactions_behind(sqlite_store: Store, tmp_path: Path) -> None:
    with history.snapshot(sqlite_store, tmp_path) as connection:
        assert [path for path in tmp_path.glob("fraud-snapshot-*/**/*") if path.is_file()] == []
        assert sqlite_store.count_rows(connection) == 0
