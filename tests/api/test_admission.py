"""The API limits the requests in flight, and answers the others 503, if it can before it reads their bodies."""

import contextlib
import io
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from api import admission as admissions
from api import writer
from api.admission import Admission, TooManyInside
from api.app import Api
from api.metrics import Metrics
from api.writer import Writer
from fraud_detection.settings import ApiSettings
from fraud_detection.store import Store
from tests.support.waiting import PATIENCE_SECONDS, wait_until

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


class SlowBody:
    """A body that arrives when the test says so."""

    def __init__(self, content: bytes) -> None:
        self.is_awaited = threading.Event()
        self.arrives = threading.Event()
        self._content = content

    def read(self, _size: int) -> bytes:
        self.is_awaited.set()
        self.arrives.wait()
        return self._content


class UnreadBody:
    def read(self, _size: int) -> bytes:
        raise AssertionError("the body was read")


@pytest.mark.parametrize(("path", "content"), [("/predict", BODY), ("/labels", b'{"labels": []}')])
def test_a_body_that_has_not_arrived_takes_no_place(
    start_api: Callable[[ApiSettings], Api],
    sqlite_environment: dict[str, str],
    authorized: dict[str, str],
    path: str,
    content: bytes,
) -> None:
    api = start_api(ApiSettings.from_env(sqlite_environment | {"MAX_IN_FLIGHT": "1"}))
    statuses: list[int] = []

    def send(body: Any) -> int:
        sent = {"content_type": "application/json", "headers": authorized, "environ_overrides": {"wsgi.input": body}}
        return api.test_client().post(path, **sent).status_code

    slow = SlowBody(content)
    first = threading.Thread(target=lambda: statuses.append(send(slow)))
    first.start()
    assert slow.is_awaited.wait(PATIENCE_SECONDS)
    second = send(io.BytesIO(content))
    slow.arrives.set()
    first.join()

    assert [second, *statuses] == [{"/predict": 200, "/labels": 422}[path]] * 2


@contextlib.contextmanager
def busy_writer(api: Api) -> Iterator[None]:
    """Keep the writer busy with one transaction until the block ends."""
    is_busy, go_on = threading.Event(), threading.Event()

    def work(_connection: object) -> None:
        is_busy.set()
        go_on.wait(PATIENCE_SECONDS)

    caller = threading.Thread(target=api.writer.run, args=[work])
    caller.start()
    assert is_busy.wait(PATIENCE_SECONDS)
    try:
        yield
    finally:
        go_on.set()
        caller.join()


@pytest.mark.parametrize("path", ["/predict", "/labels"])
def test_a_request_beyond_the_limit_is_answered_503_before_its_body_is_read(
    start_api: Callable[[ApiSettings], Api],
    sqlite_environment: dict[str, str],
    authorized: dict[str, str],
    monkeypatch: pytest.MonkeyPatch,
    path: str,
) -> None:
    monkeypatch.setattr(writer, "DEADLINE_SECONDS", PATIENCE_SECONDS)
    monkeypatch.setattr(admissions, "OLDEST_WAIT_SECONDS", PATIENCE_SECONDS)
    api = start_api(ApiSettings.from_env(sqlite_environment | {"MAX_IN_FLIGHT": "1"}))
    statuses: list[int] = []

    def send(path: str, body: Any) -> Any:
        sent = {"content_type": "application/json", "headers": authorized, "environ_overrides": {"wsgi.input": body}}
        return api.test_client().post(path, **sent)

    def figures() -> str:
        return api.test_client().get("/metrics", headers=authorized).text

    first = threading.Thread(target=lambda: statuses.append(send("/predict", io.BytesIO(BODY)).status_code))
    with busy_writer(api):
        first.start()
        wait_until(lambda: "\nfraud_writer_queue_requests 1.0" in figures())
        surplus = send(path, UnreadBody())
    first.join()

    assert (surplus.status_code, surplus.get_json()["error"]["code"]) == (503, "overloaded")
    assert surplus.headers["Retry-After"] == "1"
    assert statuses == [200]


def test_a_request_is_answered_503_when_the_queue_waits_too_long_already(
    api: Api, authorized: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(admissions, "OLDEST_WAIT_SECONDS", 0.0)

    with busy_writer(api):
        answer = api.test_client().post(
            "/predict",
            content_type="application/json",
            headers=authorized,
            environ_overrides={"wsgi.input": UnreadBody()},
        )

    error = answer.get_json()["error"]
    assert (answer.status_code, error["code"]) == (503, "overloaded")
    assert error["message"].startswith("the store is slow: a request has waited for it for more than")
