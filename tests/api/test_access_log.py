"""Each request may leave a line in the log: all of them in text, those that did not succeed in JSON."""

import logging
from collections.abc import Callable

import pytest

from api.app import Api
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
