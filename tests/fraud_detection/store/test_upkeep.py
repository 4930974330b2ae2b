"""What the store shows to people: listings, somebody's own SQL, and what is wrong with it."""

from pathlib import Path

import numpy as np
import pytest
import sqlalchemy as sa

from fraud_detection.clock import Clock
from fraud_detection.database.query import run_query
from fraud_detection.store import Store, decisions, history, labels, transfer, upkeep
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


def test_lists_what_nobody_labelled_with_the_highest_scores_first(filled: tuple[Store, str, str]) -> None:
    store, _, _ = filled
    with store.begin() as connection:
        unlabelled = [row["fraud_probability"] for row in history.listing(store, connection, unlabelled_only=True)]
        first = [row["row"] for row in history.listing(store, connection, unlabelled_only=True, limit=1)]
        since = [row["row"] for row in history.listing(store, connection, since="2014")]

    assert (unlabelled, first, since) == ([0.7, 0.3], [2], [0, 1, 2])


def test_runs_sql_as_it_is_written(filled: tuple[Store, str, str]) -> None:
    store, _, _ = filled
    with store.begin() as connection:
        names, rows = run_query(
            connection, "SELECT transaction_id, ':x' AS literal FROM requests WHERE transaction_id LIKE '%b%'"
        )

        assert (names, list(rows)) == (["transaction_id", "literal"], [("b", ":x")])


def test_nothing_is_wrong_with_a_store_that_was_used_as_meant(filled: tuple[Store, str, str]) -> None:
    store, _, _ = filled
    with store.begin() as connection:
        assert upkeep.problems(store, connection) == []


def test_finds_what_a_hand_at_the_table_broke(filled: tuple[Store, str, str]) -> None:
    store, _, _ = filled
    requests = store.tables.requests
    with store.begin() as connection:
        connection.execute(sa.update(requests).where(requests.c.row_index == 2).values(V3=float("inf")))
        connection.execute(sa.update(requests).where(requests.c.row_index == 1).values({"Class": None}))

        assert upkeep.problems(store, connection) == [
            "1 rows have a feature that is no number in range",
            "1 rows are labelled, but have no Class",
        ]


def test_finds_rows_that_refer_to_nothing(sqlite_store: Store) -> None:
    with sqlite_store.engine.connect() as connection:
        connection.exec_driver_sql("ROLLBACK")  # foreign keys can only be switched outside a transaction
        connection.exec_driver_sql("PRAGMA foreign_keys=OFF")
        connection.exec_driver_sql(
            "INSERT INTO labels (request_id, row_index, is_fraud, source, reporter, reported_at, received_at)"
            " VALUES ('r', 0, 1, 'analyst', 'ann', 't', 't')"
        )

        assert upkeep.problems(sqlite_store, connection) == ["1 rows refer to rows that are not there"]


def test_finds_damage(sqlite_store: Store) -> None:
    with sqlite_store.begin() as connection:
        rows = ImportedRows("r", [NOW] * 500, np.zeros((500, 29)), [False] * 500, [None] * 500)
        transfer.import_history(sqlite_store, connection, [rows], reporter="old.csv", received_at=NOW)
    sqlite_store.close()
    database = Path(sqlite_store.location)
    content = bytearray(database.read_bytes())
    for page in range(8, len(content) // 4096):
        content[page * 4096 + 100 : page * 4096 + 200] = b"\xff" * 100
    database.write_bytes(content)

    with sqlite_store.begin() as connection:
        problems = upkeep.problems(sqlite_store, connection)

    assert problems
    assert problems[0].startswith("integrity check: ")
