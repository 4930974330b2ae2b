"""A job of this version works on a store that the API has not migrated yet, because it can come before the API."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa

from fraud_detection.features import FeatureList
from fraud_detection.store import Store, decisions, history, labels, transfer, upkeep
from fraud_detection.store.known import KnownRows
from fraud_detection.store.transfer import ImportedRows
from jobs.upkeep.copy_store import copy_stores
from tests.support.older_store import make_older_store
from tests.support.transactions import CLOCK, label, scored

REQUEST = scored(3, transaction_ids=["one", "two", None])


@pytest.fixture
def older(location: str | Path, features: FeatureList) -> Iterator[Store]:
    """A store as the revision before token_name left it, with a label."""
    opened = make_older_store(3, location, features)
    decided = {
        "request_id": REQUEST.request_id,
        "ts": REQUEST.ts,
        "threshold": REQUEST.threshold,
        "model_version": REQUEST.model_version,
        "model_digest": REQUEST.model_digest,
        "schema_version": 3,
    }
    rows = [
        {
            **decided,
            **dict(zip(features.names, REQUEST.matrix[index].tolist(), strict=True)),
            "row_index": index,
            "fraud_probability": REQUEST.fraud_probability[index],
            "is_flagged": int(REQUEST.is_flagged[index]),
            "transaction_id": transaction_id,
        }
        for index, transaction_id in enumerate(REQUEST.transaction_ids)
    ]
    with opened.begin() as connection:
        connection.execute(sa.insert(opened.tables.requests), rows)
        labels.add(opened, connection, [label(REQUEST, 0)], REQUEST.ts)
    yield opened
    opened.close()


def test_jobs_read_it(older: Store) -> None:
    with older.begin() as connection:
        (decision,) = decisions.find(older, connection, "one")
        read = history.read(older, connection)
        listed = list(history.listing(older, connection, since="", limit=10))
        problems = upkeep.problems(older, connection)

    assert [(said.reporter, said.token_name) for said in decision.labels] == [("bank", None)]
    assert read.label_source.tolist() == ["chargeback", "", ""]
    assert [row["label_source"] for row in listed] == ["chargeback", None, None]
    assert problems == []


def test_a_listed_column_that_it_has_not_yet_is_empty(older: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(history, "listed_columns", lambda _: {"row": "row_index", "later": "a_later_column"})

    with older.begin() as connection:
        first, *_ = history.listing(older, connection)

    assert first == {"row": 0, "later": None, "label_source": "chargeback"}


def test_jobs_write_labels_and_history(older: Store) -> None:
    imported = ImportedRows(CLOCK.tick()[1], [REQUEST.ts], REQUEST.matrix[1:2], [True], ["two"])
    with older.begin() as connection:
        labels.add(older, connection, [label(REQUEST, 1, is_fraud=False)], REQUEST.ts, token_name="desk")
        known = KnownRows(older, connection, reporter="old.csv", received_at=REQUEST.ts, again=False, has_times=True)
        new = known.take_out(imported)
        transfer.import_history(older, connection, [new], reporter="old.csv", received_at=REQUEST.ts)
        known.settle()
        (decision,) = decisions.find(older, connection, "two")

    assert [(said.source, said.is_fraud) for said in decision.labels] == [("chargeback", False), ("import", True)]


def test_it_is_copied_into_a_store_of_today(older: Store, tmp_path: Path) -> None:
    copy_stores([older.location], tmp_path / "copy.db", older.features)

    arrived = Store.open(tmp_path / "copy.db", older.features)
    with arrived.begin() as connection:
        (decision,) = decisions.find(arrived, connection, "one")
    arrived.close()
    assert [(said.reporter, said.token_name) for said in decision.labels] == [("bank", None)]


def test_the_api_migrates_it_and_records_who_authenticated(older: Store, features: FeatureList) -> None:
    migrated = Store.create_or_migrate(older.location, features)
    with migrated.begin() as connection:
        labels.add(migrated, connection, [label(REQUEST, 0, is_fraud=False)], REQUEST.ts, token_name="desk")
        (decision,) = decisions.find(migrated, connection, "one")
    migrated.close()

    assert [(said.is_fraud, said.token_name) for said in decision.labels] == [(True, None), (False, "desk")]
