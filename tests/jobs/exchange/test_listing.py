"""Listings hold every column that an analyst needs."""

import csv
import io

import numpy as np
import pytest

from fraud_detection.clock import Clock
from fraud_detection.settings import JobSettings
from fraud_detection.store import Store, decisions, history, labels
from fraud_detection.store.decisions import ScoredRequest
from fraud_detection.store.labels import NewLabel
from jobs.exchange.listing import write_transactions
from jobs.installation import Installation

NOW = "2026-02-02 00:00:00.000000"


@pytest.fixture
def request_id(store: Store) -> str:
    """A stored request of three rows, the second labelled."""
    ts, request_id = Clock().tick()
    request = ScoredRequest(
        request_id=request_id,
        ts=ts,
        matrix=np.full((3, 29), 0.1 + 0.2),
        fraud_probability=[0.3, 0.9, 0.7],
        threshold=0.4,
        model_version="v",
        model_digest="0" * 64,
        transaction_ids=["a", 'b,"c"', None],
    )
    with store.begin() as connection:
        decisions.append(store, connection, [request])
        labels.add(store, connection, [NewLabel(True, "analyst", "ann", NOW, request_id, 1)], NOW)
    return request_id


def test_a_spreadsheet_gets_everything(store: Store, request_id: str, job_settings: JobSettings) -> None:
    out = io.StringIO()

    written = write_transactions(out, Installation(job_settings, store.features))

    lines = list(csv.DictReader(io.StringIO(out.getvalue())))
    assert written == len(lines) == 3
    assert [line["transaction_id"] for line in lines] == ["a", 'b,"c"', ""]
    assert float(lines[0]["V1"]) == 0.1 + 0.2
    assert (lines[1]["is_fraud"], lines[1]["label_source"], lines[1]["request_id"]) == ("1", "analyst", request_id)


def test_what_is_unlabelled_comes_with_the_highest_scores_first(
    store: Store, request_id: str, job_settings: JobSettings
) -> None:
    out = io.StringIO()

    write_transactions(out, Installation(job_settings, store.features), unlabelled_only=True, since="2020")

    lines = list(csv.DictReader(io.StringIO(out.getvalue())))
    assert [(line["row"], line["is_fraud"]) for line in lines] == [("2", ""), ("0", "")]


def test_an_empty_store_gives_the_columns_alone(store: Store, job_settings: JobSettings) -> None:
    out = io.StringIO()

    assert write_transactions(out, Installation(job_settings, store.features)) == 0
    (columns,) = csv.reader(io.StringIO(out.getvalue()))
    assert columns[:5] == ["request_id", "row", "transaction_id", "ts", "V1"]


def test_the_columns_are_those_of_the_store(store: Store, request_id: str, job_settings: JobSettings) -> None:
    out = io.StringIO()

    write_transactions(out, Installation(job_settings, store.features))

    with store.begin() as connection:
        row, *_ = history.listing(store, connection)
    assert next(csv.reader(io.StringIO(out.getvalue()))) == list(row)
