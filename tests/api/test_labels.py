"""POST /labels stores all labels of a request or none, and rejects everything that is not a label."""

from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from flask.testing import FlaskClient

from api.app import Api
from api.labels import InvalidLabels, read_labels
from fraud_detection.store import labels as stored_labels
from fraud_detection.store.labels import NewLabel

NOW = datetime(2026, 8, 22, 12, 0, tzinfo=UTC)
BY_ID = {"transaction_id": "t", "is_fraud": True, "source": "chargeback"}
BY_ROW = {"request_id": "0198d0f2-6f3a-7c11-8f2b-5a4c1d9e7b60", "row": 0, "is_fraud": False, "source": "analyst"}


def score(client: FlaskClient, authorized: dict[str, str], *transaction_ids: str) -> str:
    body = {"data": [[0.5] * 29] * len(transaction_ids), "transaction_ids": transaction_ids}
    answer = client.post("/predict", json=body, headers=authorized)
    identifier: str = answer.get_json()["request_id"]
    return identifier


def label(client: FlaskClient, authorized: dict[str, str], *labels: dict[str, Any]) -> tuple[int, Any]:
    answer = client.post("/labels", json={"labels": labels}, headers=authorized)
    return answer.status_code, answer.get_json()


def test_a_label_is_remembered_with_its_source(each_client: FlaskClient, authorized: dict[str, str]) -> None:
    request_id = score(each_client, authorized, "one", "two")
    moment = datetime.now(timezone(timedelta(hours=2)))

    status, answer = label(
        each_client,
        authorized,
        {"request_id": request_id, "row": 1, "is_fraud": True, "source": "chargeback", "reporter": "bank 7",
         "reported_at": f"{moment:%Y-%m-%dT%H:%M:%S}+02:00"},
    )  # fmt: skip

    assert status == 200
    assert (answer["labels_added"], answer["labels_known"]) == (1, 0)
    decision = each_client.get("/transactions/two", headers=authorized).get_json()
    assert decision["is_fraud"] is True
    (said,) = decision["labels"]
    assert (said["source"], said["reporter"], said["token_name"], said["reported_at"]) == (
        "chargeback",
        "bank 7",
        "API_TOKEN",
        f"{moment.astimezone(UTC):%Y-%m-%dT%H:%M:%S}.000000Z",
    )
    assert each_client.get("/transactions/one", headers=authorized).get_json()["is_fraud"] is None


def test_labels_report_their_progress_so_that_they_end_with_their_caller(
    api: Api, client: FlaskClient, authorized: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    score(client, authorized, "t")
    steps = []
    monkeypatch.setattr(api.writer, "go_on", lambda: steps.append("before the labels, or among them"))

    assert label(client, authorized, BY_ID)[0] == 200

    assert len(steps) > 1


def test_repeating_labels_changes_nothing(each_client: FlaskClient, authorized: dict[str, str]) -> None:
    score(each_client, authorized, "t")
    dated = BY_ID | {"reported_at": datetime.now(UTC).isoformat(), "source": "customer"}

    answers = [label(each_client, authorized, BY_ID, dated)[1] for _ in range(3)]

    assert [(answer["labels_added"], answer["labels_known"]) for answer in answers] == [(2, 0), (0, 2), (0, 2)]
    assert len(each_client.get("/transactions/t", headers=authorized).get_json()["labels"]) == 2


def test_a_label_by_transaction_id_is_for_every_row_of_it(client: FlaskClient, authorized: dict[str, str]) -> None:
    score(client, authorized, "t", "t")
    score(client, authorized, "t")

    _, answer = label(client, authorized, BY_ID)

    decision = client.get("/transactions/t", headers=authorized).get_json()
    assert (answer["labels_added"], answer["labels_known"]) == (1, 0)
    assert [decision["is_fraud"], *(other["is_fraud"] for other in decision["others"])] == [True] * 3


def test_an_unknown_transaction_is_404_and_undoes_the_others(
    each_client: FlaskClient, authorized: dict[str, str]
) -> None:
    request_id = score(each_client, authorized, "t")

    status, answer = label(
        each_client,
        authorized,
        BY_ID,
        BY_ID,
        {"request_id": request_id, "row": 1, "is_fraud": True, "source": "review"},
    )

    assert (status, answer["error"]["code"]) == (404, "unknown_transaction")
    assert answer["error"]["message"] == "label 2: no such transaction is stored"
    decision = each_client.get("/transactions/t", headers=authorized).get_json()
    assert (decision["is_fraud"], decision["labels"]) == (None, [])


def test_a_thousand_labels_are_taken_and_one_more_is_not(client: FlaskClient, authorized: dict[str, str]) -> None:
    request_id = score(client, authorized, *(f"t{number}" for number in range(1000)))
    labels = [{"request_id": request_id, "row": row, "is_fraud": False, "source": "review"} for row in range(1000)]

    status, answer = label(client, authorized, *labels)

    assert (status, answer["labels_added"]) == (200, 1000)
    status, answer = label(client, authorized, *labels, labels[0])
    assert (status, answer["error"]["message"]) == (422, "expected 1 to 1000 labels, got 1001")


def test_labels_that_name_too_many_rows_are_422_and_store_nothing(
    each_client: FlaskClient, authorized: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stored_labels, "MAX_ROWS_PER_LABEL", 2)
    score(each_client, authorized, "one", "t", "t", "t")

    status, answer = label(each_client, authorized, BY_ID | {"transaction_id": "one"}, BY_ID)

    assert (status, answer["error"]["code"]) == (422, "too_many_rows")
    assert answer["error"]["message"] == (
        "label 1: its transaction_id names more than 2 stored rows; name one of them by request_id and row"
    )
    assert each_client.get("/transactions/one", headers=authorized).get_json()["labels"] == []


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ([], 'expected {"labels": ['),
        ({}, 'expected {"labels": ['),
        ({"labels": {}}, 'expected {"labels": ['),
        ({"labels": [BY_ID], "more": 1}, 'expected {"labels": ['),
        ({"labels": []}, "expected 1 to 1000 labels, got 0"),
        ({"labels": [BY_ID, 1]}, "label 1: expected an object with no other fields than request_id, row"),
        ({"labels": [BY_ID | {"isfraud": True}]}, "label 0: expected an object with no other fields than request_id"),
        ({"labels": [{"is_fraud": True, "source": "review"}]}, "label 0: expected either request_id and row, or"),
        ({"labels": [BY_ID | BY_ROW]}, "label 0: expected either request_id and row, or transaction_id"),
        ({"labels": [BY_ID | {"row": 0}]}, "label 0: expected either request_id and row, or transaction_id"),
        ({"labels": [BY_ID, {"request_id": "r", "is_fraud": True, "source": "review"}]}, "label 1: expected either"),
        ({"labels": [{"transaction_id": "t", "source": "review"}]}, "label 0: the field is_fraud is missing"),
        ({"labels": [{"transaction_id": "t", "is_fraud": True}]}, "label 0: the field source is missing"),
        ({"labels": [BY_ID | {"is_fraud": 1}]}, "label 0, is_fraud: expected true or false"),
        ({"labels": [BY_ID | {"is_fraud": "true"}]}, "label 0, is_fraud: expected true or false"),
        ({"labels": [BY_ID | {"is_fraud": None}]}, "label 0, is_fraud: expected true or false"),
        ({"labels": [BY_ID | {"source": "import"}]}, "label 0, source: expected one of analyst, chargeback, customer,"),
        ({"labels": [BY_ID | {"source": ["review"]}]}, "label 0, source: expected one of analyst, chargeback,"),
        ({"labels": [BY_ROW | {"row": -1}]}, "label 0, row: expected the position of the transaction, from 0"),
        ({"labels": [BY_ROW | {"row": True}]}, "label 0, row: expected the position of the transaction, from 0"),
        ({"labels": [BY_ROW | {"row": 0.0}]}, "label 0, row: expected the position of the transaction, from 0"),
        ({"labels": [BY_ROW | {"row": 2**31}]}, "label 0, row: expected the position of the transaction, from 0"),
        ({"labels": [BY_ROW | {"request_id": "a\0"}]}, "label 0, request_id: expected the request_id of a reply"),
        ({"labels": [BY_ID | {"transaction_id": ""}]}, "label 0, transaction_id: expected 1 to 128 visible ASCII"),
        ({"labels": [BY_ID | {"transaction_id": 4711}]}, "label 0, transaction_id: expected 1 to 128 visible ASCII"),
        ({"labels": [BY_ID | {"reporter": ""}]}, "label 0, reporter: expected 1 to 64 printable characters"),
        ({"labels": [BY_ID | {"reporter": "x" * 65}]}, "label 0, reporter: expected 1 to 64 printable characters"),
        ({"labels": [BY_ID | {"reporter": "a\nb"}]}, "label 0, reporter: expected 1 to 64 printable characters"),
        ({"labels": [BY_ID | {"reported_at": 0}]}, "label 0, reported_at: expected a text"),
        ({"labels": [BY_ID | {"reported_at": None}]}, "label 0, reported_at: expected a text"),
    ],
)
def test_what_is_no_label_is_named_by_place_and_field(document: object, message: str) -> None:
    with pytest.raises(InvalidLabels) as refused:
        read_labels(document, NOW)

    assert str(refused.value).startswith(message)


@pytest.mark.parametrize(
    "reported_at",
    [
        "",
        "yesterday",
        "20260822",
        "20260822101530Z",
        "2026-08-23",
        "2026-08-22T10:15:30",
        "2026-13-01T00:00:00Z",
        "2026-08-22T12:05:01Z",
        "2026-08-22T14:06:00+02:00",
        "9999-12-31T23:59:59-14:00",
        "0001-01-01T00:00:00+14:00",
        "1969-12-31T23:59:59Z",
        "\u0662026-08-22T10:15:30Z",
    ],
)
def test_a_time_must_be_past_and_have_a_zone(reported_at: str) -> None:
    with pytest.raises(InvalidLabels, match="label 0, reported_at: expected a past time in ISO 8601 with its zone"):
        read_labels({"labels": [BY_ID | {"reported_at": reported_at}]}, NOW)


@pytest.mark.parametrize(
    ("reported_at", "stored"),
    [
        ("2026-08-22T10:15:30Z", "2026-08-22 10:15:30.000000"),
        ("2026-08-22T10:15:30.000005+00:00", "2026-08-22 10:15:30.000005"),
        ("2026-08-22 12:15:30+02:00", "2026-08-22 10:15:30.000000"),
        ("2026-08-22T12:04:59Z", "2026-08-22 12:04:59.000000"),
        ("1970-01-01T00:00:00Z", "1970-01-01 00:00:00.000000"),
    ],
)
def test_a_time_is_stored_in_utc(reported_at: str, stored: str) -> None:
    (read,) = read_labels({"labels": [BY_ID | {"reported_at": reported_at}]}, NOW)

    assert read.reported_at == stored


@pytest.mark.parametrize(
    ("reported_at", "stored", "latest_ts"),
    [
        ("2026-08-20T10:15:30+02:00", "2026-08-20 08:15:30.000000", "2026-08-20 08:20:30.000000"),
        ("2026-08-20", "2026-08-20 00:00:00.000000", "2026-08-21 00:04:59.999999"),
        ("2026-08-22", "2026-08-22 00:00:00.000000", "2026-08-23 00:04:59.999999"),
    ],
)
def test_a_report_bounds_the_time_of_its_transaction(reported_at: str, stored: str, latest_ts: str) -> None:
    (read,) = read_labels({"labels": [BY_ID | {"reported_at": reported_at}]}, NOW)

    assert (read.reported_at, read.latest_ts) == (stored, latest_ts)


def test_a_label_reported_before_its_transaction_is_refused(
    each_client: FlaskClient, authorized: dict[str, str]
) -> None:
    score(each_client, authorized, "t")
    ts = datetime.fromisoformat(each_client.get("/transactions/t", headers=authorized).get_json()["ts"])
    early, late = ts - timedelta(minutes=6), ts - timedelta(minutes=4)

    refused = [
        label(each_client, authorized, BY_ID, BY_ID | {"reported_at": reported_at})
        for reported_at in (early.isoformat(), f"{ts - timedelta(days=2):%Y-%m-%d}")
    ]
    taken = [
        label(each_client, authorized, BY_ID | {"reported_at": reported_at})[0]
        for reported_at in (late.isoformat(), f"{ts:%Y-%m-%d}")
    ]

    assert [(status, answer["error"]["code"]) for status, answer in refused] == [(422, "invalid_labels")] * 2
    assert refused[0][1]["error"]["message"] == (
        f"label 1, reported_at: {early:%Y-%m-%d %H:%M:%S} UTC is before its transaction, which is of "
        f"{ts:%Y-%m-%d %H:%M:%S} UTC; give the time of the report, or leave reported_at out"
    )
    assert taken == [200, 200]
    assert len(each_client.get("/transactions/t", headers=authorized).get_json()["labels"]) == 2


def test_what_a_label_leaves_out_has_its_default() -> None:
    assert read_labels({"labels": [BY_ID, BY_ROW]}, NOW + timedelta(days=1)) == [
        NewLabel(True, "chargeback", "api", None, transaction_id="t"),
        NewLabel(False, "analyst", "api", None, request_id=str(BY_ROW["request_id"]), row_index=0),
    ]


def test_labels_are_read_as_strictly_as_transactions(lasting_client: FlaskClient, authorized: dict[str, str]) -> None:
    answer = lasting_client.post(
        "/labels", data=b'{"labels": [], "labels": []}', content_type="application/json", headers=authorized
    )

    assert (answer.status_code, answer.get_json()["error"]["code"]) == (400, "not_strict_json")
