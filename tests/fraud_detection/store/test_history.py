"""Jobs read decisions with the label that counts, in order of time and from one snapshot."""

from pathlib import Path

import sqlalchemy as sa

from fraud_detection.store import Store, decisions, history
from tests.support.transactions import scored


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


def test_a_killed_job_leaves_no_transactions_behind(sqlite_store: Store, tmp_path: Path) -> None:
    with history.snapshot(sqlite_store, tmp_path) as connection:
        assert [path for path in tmp_path.glob("fraud-snapshot-*/**/*") if path.is_file()] == []
        assert sqlite_store.count_rows(connection) == 0


def test_lists_everything_in_order_of_time_with_the_source_of_each_label(filled: tuple[Store, str, str]) -> None:
    store, request_id, imported_id = filled
    with store.begin() as connection:
        connection.execute(sa.update(store.tables.requests).where(sa.text("row_index = 2")).values({"Class": 0}))

        rows = list(history.listing(store, connection))

    assert [(row["request_id"], row["row"]) for row in rows] == [
        (imported_id, 0),
        (request_id, 0),
        (request_id, 1),
        (request_id, 2),
    ]
    assert [(row["is_fraud"], row["label_source"]) for row in rows] == [
        (0, "import"),
        (None, None),
        (1, "analyst"),
        (0, "external"),
    ]
    assert (rows[0]["fraud_probability"], rows[2]["V1"], rows[2]["Amount_scaled"]) == (None, 29, 57)


def test_lists_unlabelled_transactions_with_the_highest_scores_first(filled: tuple[Store, str, str]) -> None:
    store, _, _ = filled
    with store.begin() as connection:
        unlabelled = [row["fraud_probability"] for row in history.listing(store, connection, unlabelled_only=True)]
        first = [row["row"] for row in history.listing(store, connection, unlabelled_only=True, limit=1)]
        since = [row["row"] for row in history.listing(store, connection, since="2014")]

    assert (unlabelled, first, since) == ([0.7, 0.3], [2], [0, 1, 2])
