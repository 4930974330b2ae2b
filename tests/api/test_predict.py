"""POST /predict scores, stores and answers in order, and once per Idempotency-Key."""

import gc
import json
import threading
import uuid
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from flask.testing import FlaskClient

from api.app import Api
from fraud_detection.features import FeatureList, default_features
from fraud_detection.model.read import Model
from fraud_detection.model.write import promote
from fraud_detection.settings import ApiSettings
from fraud_detection.store import Store, decisions
from jobs.exchange.feature_file import to_json

BAD_ID = "transaction_ids, row 0: expected 1 to 128 visible ASCII characters, no leading /, or null"
RANDOM = np.random.default_rng(7)
ROWS = RANDOM.normal(size=(5, 29)).round(6).tolist()


def test_answers_scores_and_decisions_in_order(client: FlaskClient, authorized: dict[str, str], model: Model) -> None:
    answer = client.post("/predict", json={"data": ROWS}, headers=authorized)

    expected = model.score(np.array(ROWS)).tolist()
    body = answer.get_json()
    assert answer.status_code == 200
    assert body == {
        "fraud_probability": expected,
        "is_flagged": [score >= 0.4 for score in expected],
        "threshold": 0.4,
        "model_version": model.version,
        "request_id": answer.headers["X-Request-Id"],
    }
    assert next(iter(body)) == "fraud_probability"
    assert uuid.UUID(body["request_id"]).version == 7
    assert answer.headers["X-Model-Digest"] == model.digest
    assert "Idempotency-Replayed" not in answer.headers


def test_remembers_what_it_scored(client: FlaskClient, authorized: dict[str, str], reader: Store, model: Model) -> None:
    answer = client.post(
        "/predict", json={"data": ROWS, "transaction_ids": ["a", None, "c", "d", "a"]}, headers=authorized
    ).get_json()

    with reader.begin() as connection:
        rows = decisions.find(reader, connection, answer["request_id"])
    assert [row.row_index for row in rows] == [0, 1, 2, 3, 4]
    assert [list(row.features.values()) for row in rows] == ROWS
    assert [row.fraud_probability for row in rows] == answer["fraud_probability"]
    assert [row.is_flagged for row in rows] == answer["is_flagged"]
    assert [row.transaction_id for row in rows] == ["a", None, "c", "d", "a"]
    assert {(row.threshold, row.model_version, row.model_digest) for row in rows} == {
        (0.4, model.version, model.digest)
    }


def test_rows_may_be_objects_that_name_every_feature(
    client: FlaskClient, authorized: dict[str, str], features: FeatureList
) -> None:
    named = [dict(reversed(list(zip(features.names, row, strict=True)))) for row in ROWS]

    by_name = client.post("/predict", json={"data": named}, headers=authorized).get_json()
    by_place = client.post("/predict", json={"data": ROWS}, headers=authorized).get_json()

    assert by_name["fraud_probability"] == by_place["fraud_probability"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"V3": None}, "row 1, feature V3: expected a number, got null"),
        ({"V3": 1e10}, "row 1, feature V3: expected a finite number from -305.6 to 38.7"),
        ({"V29": 1.0}, "row 1: expected 29 features by name; unknown: V29"),
    ],
)
def test_a_wrong_field_of_an_object_is_named(
    lasting_client: FlaskClient,
    authorized: dict[str, str],
    features: FeatureList,
    change: dict[str, object],
    message: str,
) -> None:
    named = dict(zip(features.names, ROWS[0], strict=True))

    answer = lasting_client.post("/predict", json={"data": [named, named | change]}, headers=authorized)

    assert answer.status_code == 422
    assert answer.get_json()["error"]["message"] == message


def test_an_amount_is_scaled_as_get_model_says_and_stored_as_amount_scaled(
    client: FlaskClient, authorized: dict[str, str], reader: Store, features: FeatureList
) -> None:
    paid = dict(zip(features.names[:-1], ROWS[0][:-1], strict=True)) | {"Amount": 149.62}
    key = {"Idempotency-Key": "paid"}
    scaling = client.get("/model", headers=authorized).get_json()["amount_scaling"]
    scaled = (149.62 - scaling["mean"]) / scaling["standard_deviation"]

    first = client.post("/predict", json={"data": [paid], "transaction_ids": ["paid"]}, headers=authorized | key)
    again = client.post("/predict", json={"data": [paid], "transaction_ids": ["paid"]}, headers=authorized | key)
    listed = client.post("/predict", json={"data": [[*ROWS[0][:-1], scaled]]}, headers=authorized)

    with reader.begin() as connection:
        (decision,) = decisions.find(reader, connection, "paid")
    assert (first.status_code, again.data, again.headers["Idempotency-Replayed"]) == (200, first.data, "true")
    assert first.get_json()["fraud_probability"] == listed.get_json()["fraud_probability"]
    assert decision.features == dict(zip(features.names, [*ROWS[0][:-1], scaled], strict=True))


def test_a_negative_amount_is_accepted_down_to_the_bound_and_suspicious_below_what_was_seen(
    client: FlaskClient, authorized: dict[str, str], features: FeatureList
) -> None:
    def status(amount: float) -> int:
        paid = dict(zip(features.names[:-1], [0.0] * 28, strict=True)) | {"Amount": amount}
        return client.post("/predict", json={"data": [paid]}, headers=authorized).status_code

    statuses = [status(amount) for amount in (-1.5, -800, -900)]

    suspicious = "fraud_suspicious_rows_total 1.0"  # -800: the others were seen, or are refused
    assert statuses == [200, 200, 422]
    assert suspicious in client.get("/metrics", headers=authorized).get_data(as_text=True)


def test_a_wider_list_with_the_same_names_takes_over_store_and_model(
    start_api: Callable[[ApiSettings], Api],
    sqlite_environment: dict[str, str],
    tmp_path: Path,
    authorized: dict[str, str],
    features: FeatureList,
) -> None:
    rows = [ROWS[0], [*ROWS[1][:-1], 5000.0]]
    narrow = start_api(ApiSettings.from_env(sqlite_environment))
    stored = narrow.test_client().post(
        "/predict", json={"data": rows[:1], "transaction_ids": ["a"]}, headers=authorized
    )
    refused = narrow.test_client().post("/predict", json={"data": rows}, headers=authorized)
    narrow.close()
    *others, amount = features.features
    wider = FeatureList((*others, replace(amount, maximum=1e6)))
    (tmp_path / "features.json").write_text(to_json(wider))

    wide = start_api(ApiSettings.from_env(sqlite_environment | {"FEATURES_FILE": str(tmp_path / "features.json")}))
    scored = wide.test_client().post("/predict", json={"data": rows}, headers=authorized)

    assert (refused.status_code, scored.status_code) == (422, 200)
    assert "set FEATURES_FILE to a list with the same names and wider bounds" in refused.get_json()["error"]["message"]
    assert scored.get_json()["fraud_probability"][0] == stored.get_json()["fraud_probability"][0]
    assert wide.test_client().get("/transactions/a", headers=authorized).status_code == 200


@pytest.mark.parametrize(
    ("transaction_ids", "message"),
    [
        ([], "transaction_ids: expected a list of 1, one for each row of data"),
        (["a", "b"], "transaction_ids: expected a list of 1, one for each row of data"),
        ("a", "transaction_ids: expected a list of 1, one for each row of data"),
        ([""], BAD_ID),
        (["x" * 129], BAD_ID),
        (["a b"], BAD_ID),
        (["/a"], BAD_ID),
        (["a\n"], BAD_ID),
        (["\u00e9"], BAD_ID),
        ([4711], BAD_ID),
        ([["a"]], BAD_ID),
    ],
)
def test_a_wrong_transaction_id_is_422(
    lasting_client: FlaskClient, authorized: dict[str, str], transaction_ids: object, message: str
) -> None:
    answer = lasting_client.post(
        "/predict", json={"data": ROWS[:1], "transaction_ids": transaction_ids}, headers=authorized
    )

    assert (answer.status_code, answer.get_json()["error"]["code"]) == (422, "invalid_transactions")
    assert answer.get_json()["error"]["message"] == message


def test_the_threshold_of_the_variable_decides(
    start_api: Callable[[ApiSettings], Api], sqlite_environment: dict[str, str], authorized: dict[str, str]
) -> None:
    for threshold, flagged in (("0.001", True), ("0.999", False)):
        settings = ApiSettings.from_env(sqlite_environment | {"FRAUD_THRESHOLD": threshold})
        app = start_api(settings)

        answer = app.test_client().post("/predict", json={"data": [[3.0] + [0.0] * 28]}, headers=authorized).get_json()

        app.close()
        assert 0.001 <= answer["fraud_probability"][0] < 0.999
        assert (answer["is_flagged"], answer["threshold"]) == ([flagged], float(threshold))


def test_the_same_key_and_body_get_the_stored_answer_byte_for_byte(
    each_client: FlaskClient, authorized: dict[str, str], api_settings: ApiSettings
) -> None:
    headers = authorized | {"Idempotency-Key": "order-1"}
    first = each_client.post("/predict", json={"data": ROWS}, headers=headers)

    again = each_client.post("/predict", json={"data": ROWS}, headers=headers)

    assert (again.status_code, again.data) == (200, first.data)
    assert again.headers["Idempotency-Replayed"] == "true"
    assert again.headers["X-Model-Digest"] == first.headers["X-Model-Digest"]
    assert again.headers["X-Request-Id"] != first.headers["X-Request-Id"]  # each exchange has its own
    with_store = Store.open(api_settings.store_location, default_features(), read_only=True)
    with with_store.begin() as connection:
        assert with_store.count_rows(connection) == len(ROWS)
    with_store.close()


def test_a_replay_repeats_the_answer_of_the_model_of_that_day(
    api: Api, authorized: dict[str, str], models_dir: Path, make_version: Callable[..., str]
) -> None:
    client, headers = api.test_client(), authorized | {"Idempotency-Key": "k"}
    first = client.post("/predict", json={"data": ROWS}, headers=headers)
    promote(models_dir, make_version(models_dir, seed=1), actor="test", reason="a newer one")
    api.served.look()

    again = client.post("/predict", json={"data": ROWS}, headers=headers)
    fresh = client.post("/predict", json={"data": ROWS}, headers=authorized)

    assert again.data == first.data
    assert again.headers["X-Model-Digest"] == first.headers["X-Model-Digest"] != fresh.headers["X-Model-Digest"]


def test_a_replay_is_not_counted_as_another_prediction(api: Api, authorized: dict[str, str]) -> None:
    client, headers = api.test_client(), authorized | {"Idempotency-Key": "k"}
    for _ in range(3):
        client.post("/predict", json={"data": ROWS}, headers=headers)

    lines = client.get("/metrics", headers=authorized).text.splitlines()

    counted = [float(line.split()[-1]) for line in lines if line.startswith("predictions_total{")]
    assert sum(counted) == len(ROWS)


def test_the_same_key_with_another_body_is_422(
    each_client: FlaskClient, authorized: dict[str, str], api_settings: ApiSettings
) -> None:
    headers = authorized | {"Idempotency-Key": "k"}
    each_client.post("/predict", json={"data": ROWS[:1]}, headers=headers)

    answer = each_client.post("/predict", json={"data": ROWS[1:2]}, headers=headers)

    assert (answer.status_code, answer.get_json()["error"]["code"]) == (422, "idempotency_key_reused")


@pytest.mark.parametrize("key", ["", " ", "two words", "x" * 256, "k\u00e9y", "tab\tbed"])
def test_a_wrong_key_is_400_before_anything_else_is_looked_at(
    lasting_client: FlaskClient, authorized: dict[str, str], key: str
) -> None:
    answer = lasting_client.post("/predict", data=b"{", headers=authorized | {"Idempotency-Key": key})

    assert (answer.status_code, answer.get_json()["error"]["code"]) == (400, "invalid_idempotency_key")


def test_twins_in_flight_are_stored_once(api: Api, authorized: dict[str, str], reader: Store) -> None:
    bodies: list[bytes] = []

    def send() -> None:
        answer = api.test_client().post(
            "/predict", json={"data": ROWS}, headers=authorized | {"Idempotency-Key": "twins"}
        )
        bodies.append(answer.data)

    twins = [threading.Thread(target=send) for _ in range(8)]
    for twin in twins:
        twin.start()
    for twin in twins:
        twin.join()

    assert len(bodies) == 8
    assert len(set(bodies)) == 1
    with reader.begin() as connection:
        assert reader.count_rows(connection) == len(ROWS)


def test_a_method_in_small_letters_is_answered_alike(lasting_client: FlaskClient, authorized: dict[str, str]) -> None:
    no_rows: list[list[float]] = []
    small = {"REQUEST_METHOD": "post"}

    statuses = [
        lasting_client.post("/predict", json={"data": rows}, headers=authorized, environ_overrides=small).status_code
        for rows in (ROWS, no_rows)
    ]

    assert statuses == [200, 422]


def test_a_refused_body_is_freed_at_once(lasting_client: FlaskClient, authorized: dict[str, str]) -> None:
    gc.collect()
    gc.disable()
    try:
        answer = lasting_client.post("/predict", json={"data": [[]] * 1000}, headers=authorized)
        status = answer.status_code
        answer.close()
        del answer
        unreachable = gc.collect()
    finally:
        gc.enable()

    assert status == 422
    assert unreachable < 1000


def test_the_curl_of_the_contract_is_answered(client: FlaskClient, authorized: dict[str, str]) -> None:
    body = json.dumps({"data": [[0.1] * 29]})

    answer = client.post("/predict", data=body, headers=authorized | {"Content-Type": "application/json"})

    assert answer.status_code == 200
    assert answer.data.endswith(b"}\n")
