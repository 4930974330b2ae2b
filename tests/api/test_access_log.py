"""Each request may leave a line in the log: all of them in text, those that did not succeed in JSON."""

import logging
from collections.abc import Callable

import pytest

from api.app import Api
from api.line_budget import LINES_PER_SECOND
from fraud_detection.settings import ApiSettings
from tests.support.environment import TOKEN

AUTHORIZED = {"Authorization": f"Bearer {TOKEN}"}


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"LOG_FORMAT": "text"}, [200, 404, 401]),
        ({"LOG_FORMAT": "json"}, [404, 401]),
        ({"LOG_FORMAT": "json", "ACCESS_LOG": "all"}, [200, 404, 401]),
        ({"LOG_FORMAT": "text", "ACCESS_LOG": "errors"}, [404, 401]),
        ({"LOG_FORMAT": "text", "ACCESS_LOG": "none"}, []),
    ],
)
def test_a_line_per_request(
    start_api: Callable[[ApiSettings], Api],
    sqlite_environment: dict[str, str],
    caplog: pytest.LogCaptureFixture,
    settings: dict[str, str],
    expected: list[int],
) -> None:
    client = start_api(ApiSettings.from_env(sqlite_environment | settings)).test_client()
    caplog.set_level(logging.INFO, logger="api.arrival")

    scored = client.post("/predict", json={"data": [[0.987654] * 29]}, headers=AUTHORIZED)
    client.get("/transactions/a-private-id?of=someone", headers=AUTHORIZED)
    client.get("/predict/../private", headers={"Authorization": "Bearer wrong"})
    client.get("/model", headers={"Authorization": "Bearer wrong"})

    lines = [record for record in caplog.records if record.name == "api.arrival"]
    codes = [vars(record)["status"] for record in lines]
    assert codes == ([*expected[:-1], 404, expected[-1]] if expected else [])
    if 200 in expected:
        message = lines[0].getMessage()
        assert message.startswith("POST /predict 200, token API_TOKEN, ")
        assert message.endswith(f" ms, request {scored.headers['X-Request-Id']}")
    for private in ("private", "someone", "0.987654", "wrong", TOKEN):
        assert private not in caplog.text


def test_rejected_requests_leave_few_lines_a_second_and_their_number(
    start_api: Callable[[ApiSettings], Api],
    sqlite_environment: dict[str, str],
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    client = start_api(ApiSettings.from_env(sqlite_environment | {"ACCESS_LOG": "all"})).test_client()
    caplog.set_level(logging.INFO, logger="api.arrival")
    monkeypatch.setattr("api.line_budget.time.monotonic", lambda: 1e9)

    for _ in range(LINES_PER_SECOND + 5):
        client.get("/model", headers={"Authorization": "Bearer wrong"})
        client.get("/model", headers=AUTHORIZED)
    client.get("/transactions/missing", headers=AUTHORIZED)
    monkeypatch.setattr("api.line_budget.time.monotonic", lambda: 1e9 + 1)
    client.get("/nothing")

    lines = [record for record in caplog.records if record.name == "api.arrival"]
    codes = [vars(record).get("status", record.getMessage()) for record in lines]
    assert codes.count(200) == LINES_PER_SECOND + 5
    assert codes.count(401) == LINES_PER_SECOND
    assert codes[-3:] == [404, "5 more answered 4xx, token none", 404]
