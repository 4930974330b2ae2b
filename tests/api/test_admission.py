"""The API limits the requests in flight, and answers the others 503 before it reads their bodies."""

import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from api import admission as admissions
from api.admission import Admission, TooManyInside
from api.app import Api
from api.metrics import Metrics
from api.writer import Writer
from fraud_detection.settings import ApiSettings
from fraud_detection.store import Store
from tests.support.waiting import PATIENCE_SECONDS

BODY = b'{"data": [[' + b", ".join([b"0.5"] * 29) + b"]]}"


def test_no_more_requests_than_the_limit_are_inside_at_once(sqlite_store: Store) -> None:
    admission = Admission(2, Writer(sqlite_store, Metrics()))

    with admission, admission, pytest.raises(TooManyInside, match="repeat this one after Retry-After seconds"):
        admission.__enter__()
    with admission, admission:
        pass


def test_a_request_that_raises_gives_its_place_back(sqlite_store: Store) -> None:
    admission = Admission(1, Writer(sqlite_store, Metrics()))

    for _ in range(3):
        with pytest.raises(ZeroDivisionError), admission:
            raise ZeroDivisionError


class HeldBody:
    """A body that arrives when the test says so."""

    def __init__(self) -> None:
        self.is_awaited = threading.Event()
        self.arrives = threading.Event()

    def read(self, _size: int) -> bytes:
        self.is_awaited.set()
        self.arrives.wait()
        return BODY


class UnreadBody:
    def read(self, _size: int) -> bytes:
        raise AssertionError("the body was read")


def test_a_request_beyond_the_limit_is_answered_503_before_its_body_is_read(
    start_api: Callable[[ApiSettings], Api], sqlite_environment: dict[str, str], authorized: dict[str, str]
) -> None:
    api = start_api(ApiSettings.from_env(sqlite_environment | {"MAX_IN_FLIGHT": "1"}))
    statuses: list[int] = []

    def send(body: Any) -> Any:
        return api.test_client().post(
            "/predict", content_type="application/json", headers=authorized, environ_overrides={"wsgi.input": body}
        )

    held = HeldBody()
    first = threading.Thread(target=lambda: statuses.append(send(held).status_code))
    first.start()
    assert held.is_awaited.wait(PATIENCE_SECONDS)
    surplus = send(UnreadBody())
    figures = api.test_client().get("/metrics", headers=authorized)
    held.arrives.set()
    first.join()

    assert (surplus.status_code, surplus.get_json()["error"]["code"]) == (503, "overloaded")
    assert surplus.headers["Retry-After"] == "1"
    assert (figures.status_code, statuses) == (200, [200])


@pytest.fixture
def held_writer(api: Api) -> Iterator[Api]:
    """The application while its writer is busy with one transaction."""
    is_busy, go_on = threading.Event(), threading.Event()

    def work(_connection: object) -> None:
        is_busy.set()
        go_on.wait(PATIENCE_SECONDS)

    caller = threading.Thread(target=api.writer.run, args=[work])
    caller.start()
    assert is_busy.wait(PATIENCE_SECONDS)
    yield api
    go_on.set()
    caller.join()


def test_a_request_is_answered_503_when_the_queue_waits_too_long_already(
    held_writer: Api, authorized: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(admissions, "OLDEST_WAIT_SECONDS", 0.0)

    answer = held_writer.test_client().post(
        "/predict", content_type="application/json", headers=authorized, environ_overrides={"wsgi.input": UnreadBody()}
    )

    assert (answer.status_code, answer.get_json()["error"]["code"]) == (503, "overloaded")
