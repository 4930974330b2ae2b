"""The tokens of one name share an allowance, and what exceeds it is answered 429."""

from collections.abc import Callable
from pathlib import Path

import pytest
from flask.testing import FlaskClient

from api.app import Api
from api.auth import Allowance
from fraud_detection.settings import ApiSettings
from tests.support.environment import TOKEN
from tests.support.tokens import new_token, successor

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
    first = new_token(tokens, "shop", ["predict"])
    second = successor(tokens, "shop")
    own = {"API_TOKENS_FILE": str(tokens), "RATE_LIMIT_PER_SECOND": "4"}
    client = start_api(ApiSettings.from_env(sqlite_environment | own)).test_client()

    assert [status(client, token, "/predict") for token in (first, second, first, second)] == [200] * 4
    refused = client.post("/predict", json=ROW, headers={"Authorization": f"Bearer {first}"})
    assert (refused.status_code, refused.headers["Retry-After"]) == (429, "1")
    assert refused.get_json()["error"]["code"] == "too_many_requests"
    assert status(client, second) == 429
    assert status(client, TOKEN) == 200  # another name


def test_in_any_second_a_name_may_send_so_many_requests(
    start_api: Callable[[ApiSettings], Api], sqlite_environment: dict[str, str], clock: Clock
) -> None:
    client = start_api(ApiSettings.from_env(sqlite_environment | {"RATE_LIMIT_PER_SECOND": "5"})).test_client()
    answered: list[float] = []

    for _ in range(400):  # four seconds of a client that never waits
        if status(client, TOKEN) == 200:
            answered.append(clock.now)
        clock.now += 0.01

    assert len(answered) == 4 * 5
    assert all(later - earlier >= 1 for earlier, later in zip(answered, answered[5:], strict=False))
    clock.now += 60
    assert [status(client, TOKEN) for _ in range(6)] == [200] * 5 + [429]  # what was not sent before is not added


def test_each_request_takes_one_place_whatever_its_answer(
    start_api: Callable[[ApiSettings], Api], sqlite_environment: dict[str, str], tmp_path: Path, clock: Clock
) -> None:
    token = new_token(tmp_path / "tokens", "shop", ["predict"])
    own = {"API_TOKENS_FILE": str(tmp_path / "tokens"), "RATE_LIMIT_PER_SECOND": "3"}
    client = start_api(ApiSettings.from_env(sqlite_environment | own)).test_client()
    headers = {"Authorization": f"Bearer {token}"}

    for method, path, code in (
        ("POST", "/predict", 422),
        ("POST", "/labels", 403),
        ("GET", "/metrics", 403),
        ("GET", "/transactions/x", 403),
        ("GET", "/nothing", 404),
        ("GET", "/predict//x", 404),
        ("DELETE", "/model", 405),
    ):
        clock.now += 60
        answers = [client.open(path, method=method, json={}, headers=headers) for _ in range(4)]

        assert [answer.status_code for answer in answers] == [code] * 3 + [429], (method, path)
        assert status(client, token) == 429


def test_a_score_that_is_refused_asks_for_one_place(
    start_api: Callable[[ApiSettings], Api], sqlite_environment: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    client = start_api(ApiSettings.from_env(sqlite_environment | {"RATE_LIMIT_PER_SECOND": "1"})).test_client()
    asked: list[Allowance] = []

    def take(of_name: Allowance) -> bool:
        asked.append(of_name)
        return False

    monkeypatch.setattr(Allowance, "take", take)

    assert status(client, TOKEN, "/predict") == 429
    assert len(asked) == 1


def test_prometheus_is_always_answered_and_takes_no_place(
    start_api: Callable[[ApiSettings], Api], sqlite_environment: dict[str, str], clock: Clock
) -> None:
    client = start_api(ApiSettings.from_env(sqlite_environment | {"RATE_LIMIT_PER_SECOND": "1"})).test_client()

    assert [status(client, TOKEN, path) for path in ("/metrics", "/model", "/model", "/metrics")] == [
        200,
        200,
        429,
        200,
    ]


def test_without_a_limit_there_is_none(lasting_client: FlaskClient, clock: Clock) -> None:
    assert {status(lasting_client, TOKEN) for _ in range(300)} == {200}
