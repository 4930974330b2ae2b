"""The tokens of one name share an allowance, and what exceeds it is answered 429."""

from collections.abc import Callable
from pathlib import Path

import pytest
from flask.testing import FlaskClient

from api.app import Api
from fraud_detection.settings import ApiSettings
from fraud_detection.token_file import add_token, rotate_token
from tests.support.environment import TOKEN

ROW = {"data": [[0.5] * 29]}


class Clock:
    """A clock that stands still until it is moved."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    stopped = Clock()
    monkeypatch.setattr("api.auth.time.monotonic", stopped)
    return stopped


def status(client: FlaskClient, token: str, path: str = "/model") -> int:
    answer = client.post if path == "/predict" else client.get
    return answer(path, json=ROW, headers={"Authorization": f"Bearer {token}"}).status_code


def test_a_name_has_an_allowance_per_second_for_all_its_tokens(
    start_api: Callable[[ApiSettings], Api], sqlite_environment: dict[str, str], tmp_path: Path, clock: Clock
) -> None:
    tokens = tmp_path / "tokens"
    first = add_token(tokens, "shop", ["predict"])
    second = rotate_token(tokens, "shop")
    own = {"API_TOKENS_FILE": str(tokens), "RATE_LIMIT_PER_SECOND": "4"}
    client = start_api(ApiSettings.from_env(sqlite_environment | own)).test_client()

    assert [status(client, token, "/predict") for token in (first, second, first, second)] == [200] * 4
    refused = client.post("/predict", json=ROW, headers={"Authorization": f"Bearer {first}"})
    assert (refused.status_code, refused.headers["Retry-After"]) == (429, "1")
    assert refused.get_json()["error"]["code"] == "too_many_requests"
    assert status(client, second) == 429
    assert status(client, TOKEN) == 200  # another name
    clock.now += 0.25
    assert [status(client, first, "/predict"), status(client, first, "/predict")] == [200, 429]
    clock.now += 60
    assert [status(client, first) for _ in range(5)] == [200] * 4 + [429]


def test_a_failed_request_takes_one_place_and_a_refused_scope_none(
    start_api: Callable[[ApiSettings], Api], sqlite_environment: dict[str, str], tmp_path: Path, clock: Clock
) -> None:
    token = add_token(tmp_path / "tokens", "shop", ["predict"])
    own = {"API_TOKENS_FILE": str(tmp_path / "tokens"), "RATE_LIMIT_PER_SECOND": "3"}
    client = start_api(ApiSettings.from_env(sqlite_environment | own)).test_client()
    headers = {"Authorization": f"Bearer {token}"}

    codes = [client.post("/predict", json={"data": "nothing"}, headers=headers).status_code for _ in range(3)]
    assert codes == [422, 422, 422]
    assert status(client, token, "/metrics") == 403
    assert status(client, token) == 429


def test_without_a_limit_there_is_none(lasting_client: FlaskClient, clock: Clock) -> None:
    assert {status(lasting_client, TOKEN) for _ in range(300)} == {200}
