"""GET /transactions/<id> returns one decision in full, by each of its ids."""

import contextlib
from pathlib import Path
from urllib.parse import quote

import pysqlite3
import pytest
from flask.testing import FlaskClient

from fraud_detection.features import FeatureList


def score(client: FlaskClient, authorized: dict[str, str], first: float, *transaction_ids: str | None) -> str:
    rows = [[first + place / 10] + [0.0] * 28 for place in range(len(transaction_ids))]
    answer = client.post("/predict", json={"data": rows, "transaction_ids": transaction_ids}, headers=authorized)
    identifier: str = answer.get_json()["request_id"]
    return identifier


def test_one_decision_is_returned_in_full(
    each_client: FlaskClient, authorized: dict[str, str], features: FeatureList
) -> None:
    request_id = score(each_client, authorized, 3.0, "t")

    answer = each_client.get("/transactions/t", headers=authorized)

    decision = answer.get_json()
    assert answer.status_code == 200
    assert (decision["request_id"], decision["row"], decision["transaction_id"]) == (request_id, 0, "t")
    assert decision["features"] == dict(zip(features.names, [3.0] + [0.0] * 28, strict=True))
    assert decision["is_flagged"] is (decision["fraud_probability"] >= decision["threshold"] == 0.4)
    assert decision["model_version"].endswith(decision["model_digest"][:12])
    assert (decision["is_fraud"], decision["labels"], decision["others"]) == (None, [], [])
    assert (decision["labels_total_count"], decision["total_count"]) == (0, 1)
    assert decision["ts"].endswith("Z")
    assert "T" in decision["ts"]


def test_the_newest_decision_comes_first_and_the_earlier_ones_in_short(
    client: FlaskClient, authorized: dict[str, str]
) -> None:
    requests = [score(client, authorized, float(number), "t") for number in range(3)]

    decision = client.get("/transactions/t", headers=authorized).get_json()

    assert decision["request_id"] == requests[2]
    assert [other["request_id"] for other in decision["others"]] == [requests[1], requests[0]]
    assert "features" not in decision["others"][0]


def test_of_many_decisions_the_newest_hundred_come_with_a_count(
    each_client: FlaskClient, authorized: dict[str, str]
) -> None:
    score(each_client, authorized, 0.0, *["t"] * 150)
    newest = score(each_client, authorized, 1.0, *["t"] * 2)

    decision = each_client.get("/transactions/t", headers=authorized).get_json()

    assert (decision["request_id"], decision["row"], decision["total_count"]) == (newest, 0, 152)
    assert [other["row"] for other in decision["others"]] == [1, *range(98)]
    assert decision["labels_total_count"] == 0


def test_a_row_is_found_by_its_request(client: FlaskClient, authorized: dict[str, str]) -> None:
    request_id = score(client, authorized, 1.0, None, None, None)

    whole = client.get(f"/transactions/{request_id}", headers=authorized).get_json()
    row = client.get(f"/transactions/{request_id}:2", headers=authorized).get_json()

    assert (whole["row"], [other["row"] for other in whole["others"]]) == (0, [1, 2])
    assert (row["row"], row["features"]["V1"], row["others"]) == (2, 1.2, [])


@pytest.mark.parametrize("identifier", ["a/b", "a//b/", "50%", "a?b", "a#b", "';--", "x" * 128])
def test_any_id_that_was_accepted_is_found(client: FlaskClient, authorized: dict[str, str], identifier: str) -> None:
    score(client, authorized, 1.0, identifier)

    answer = client.get(f"/transactions/{quote(identifier, safe='')}", headers=authorized)

    assert (answer.status_code, answer.get_json().get("transaction_id")) == (200, identifier)


@pytest.mark.parametrize("path", ["t", "a%20b", "%00", "%C3%A9", "%FF", "x" * 3000, "t:99999999999", ":", "t:0"])
def test_what_is_not_stored_is_404(each_client: FlaskClient, authorized: dict[str, str], path: str) -> None:
    answer = each_client.get(f"/transactions/{path}", headers=authorized)

    assert (answer.status_code, answer.get_json()["error"]["code"]) == (404, "unknown_transaction")
    assert answer.get_json()["error"]["message"] == "no transaction is stored under this id"


def test_a_database_that_cannot_be_read_is_503_and_logged_once(
    client: FlaskClient,
    authorized: dict[str, str],
    sqlite_environment: dict[str, str],
    capfd: pytest.CaptureFixture[str],
) -> None:
    score(client, authorized, 1.0, "t")
    with contextlib.closing(pysqlite3.connect(sqlite_environment["LATEST_DB"])) as connection:
        connection.execute("ALTER TABLE requests RENAME TO elsewhere")

    answer = client.get("/transactions/t", headers=authorized)

    assert (answer.status_code, answer.get_json()["error"]["code"]) == (503, "storage_failed")
    assert "Traceback" not in capfd.readouterr().err


def test_damage_that_a_reader_finds_ends_storing(
    client: FlaskClient, authorized: dict[str, str], sqlite_environment: dict[str, str]
) -> None:
    database = sqlite_environment["LATEST_DB"]
    score(client, authorized, 1.0, "t")
    with contextlib.closing(pysqlite3.connect(database)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        root = connection.execute("SELECT rootpage FROM sqlite_master WHERE name = 'requests'").fetchone()[0]
    with Path(database).open("r+b") as file:
        file.seek((root - 1) * 4096)
        file.write(b"\xff" * 4096)

    answer = client.get("/transactions/t", headers=authorized)
    ready = client.get("/health")
    refused = client.post("/predict", json={"data": [[0.5] * 29]}, headers=authorized)

    assert (answer.status_code, answer.get_json()["error"]["code"]) == (503, "storage_failed")
    assert "cannot be read now" in answer.get_json()["error"]["message"]
    assert (ready.status_code, ready.get_json()["problems"][0]["code"]) == (503, "storage_corrupt")
    assert (refused.status_code, refused.get_json()["error"]["code"]) == (503, "storage_failed")
