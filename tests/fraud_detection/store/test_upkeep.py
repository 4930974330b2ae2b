"""Rows are forgotten and expire with all that belongs to them, and damage is found."""

from pathlib import Path

import numpy as np
import sqlalchemy as sa

from fraud_detection.store import Store, decisions, history, labels, transfer, upkeep
from fraud_detection.store.transfer import ImportedRows
from tests.support.transactions import label, scored

NOW = "2026-02-02 00:00:00.000000"


def test_forget_erases_rows_labels_and_keys(store: Store) -> None:
    request = scored(2, transaction_ids=["gone", "stays"], key="k")
    with store.begin() as connection:
        decisions.append(store, connection, [request])
        labels.add(store, connection, [label(request, 0), label(request, 1)], NOW)

        forgotten = upkeep.forget(store, connection, "gone", limit=10)

        assert decisions.find(store, connection, "gone") == []
        assert len(decisions.find(store, connection, "stays")) == 1
        assert decisions.replay(store, connection, "k") is None
    assert forgotten.keys == [(request.request_id, 0)]
    assert (forgotten.labels, forgotten.idempotency_keys) == (1, 1)


def test_forget_erases_no_more_than_it_is_told_to(store: Store) -> None:
    requests = [scored(2, transaction_ids=["gone", "gone"]) for _ in range(2)]
    with store.begin() as connection:
        decisions.append(store, connection, requests)
        labels.add(store, connection, [label(request, row) for request in requests for row in (0, 1)], NOW)

        slices = [upkeep.forget(store, connection, "gone", limit=3) for _ in range(3)]

        assert store.count_rows(connection) == 0
    assert [(len(each.keys), each.labels) for each in slices] == [(3, 3), (1, 1), (0, 0)]


def test_expire_takes_old_unlabelled_rows_and_keeps_labelled_ones(store: Store) -> None:
    old, labelled, new = scored(key="old"), scored(), scored()
    with store.begin() as connection:
        decisions.append(store, connection, [old, labelled, new])
        labels.add(store, connection, [label(labelled)], NOW)

        assert upkeep.expire(store, connection, before=new.ts, limit=10) == 1
        assert upkeep.expire(store, connection, before=new.ts, limit=10) == 0

        assert history.read(store, connection).request_id.tolist() == [labelled.request_id, new.request_id]
        assert decisions.replay(store, connection, "old") is None


def test_nothing_is_wrong_with_a_store_that_was_used_as_meant(filled: tuple[Store, str, str]) -> None:
    store, _, _ = filled
    with store.begin() as connection:
        assert upkeep.problems(store, connection) == []


def test_finds_what_an_edit_of_the_table_broke(filled: tuple[Store, str, str]) -> None:
    store, _, _ = filled
    requests = store.tables.requests
    with store.begin() as connection:
        connection.execute(sa.update(requests).where(requests.c.row_index == 2).values(V3=float("inf")))
        connection.execute(sa.update(requests).where(requests.c.row_index == 1).values({"Class": None}))

        assert upkeep.problems(store, connection) == [
            "1 row with a feature that is not a number in range",
            "1 row with a label, but without Class",
        ]


def test_finds_rows_that_refer_to_nothing(sqlite_store: Store) -> None:
    with sqlite_store.engine.connect() as connection:
        connection.exec_driver_sql("ROLLBACK")  # foreign keys can only be switched outside a transaction
        connection.exec_driver_sql("PRAGMA foreign_keys=OFF")
        connection.exec_driver_sql(
            "INSERT INTO labels (request_id, row_index, is_fraud, source, reporter, reported_at, received_at)"
            " VALUES ('r', 0, 1, 'analyst', 'ann', 't', 't')"
        )

        assert upkeep.problems(sqlite_store, connection) == ["1 row without the row to which a foreign key refers"]


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
