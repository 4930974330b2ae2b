"""The smoke test passes only if our API works, and names what is wrong with it."""

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

import pytest

from api import smoke as program
from api.app import Api
from api.smoke import SmokeFailed, metrics, smoke
from fraud_detection.features import FeatureList
from fraud_detection.store import Store
from tests.support.environment import TOKEN


class Silent(WSGIRequestHandler):
    """Writes no line for each request."""

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def serve() -> Iterator[Callable[[Any], str]]:
    """Serve a WSGI application on a port of its own and return its address."""
    servers: list[tuple[WSGIServer, threading.Thread]] = []

    def start(application: Any) -> str:
        server = make_server("127.0.0.1", 0, application, handler_class=Silent)
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        servers.append((server, thread))
        return f"http://127.0.0.1:{server.server_port}"

    yield start
    for server, thread in servers:
        server.shutdown()
        thread.join()
        server.server_close()


def test_a_service_that_serves_passes_and_nothing_is_stored(
    api: Api, serve: Callable[[Any], str], sqlite_environment: dict[str, str], features: FeatureList
) -> None:
    api.writer.run(lambda _connection: None)  # healthy after its first commit

    assert smoke(serve(api), TOKEN) == f"healthy, model {api.served.current.version} serves"

    store = Store.open(Path(sqlite_environment["LATEST_DB"]), features, read_only=True)
    with store.engine.connect() as connection:
        assert store.count_rows(connection) == 0
    store.close()


def test_a_service_that_stops_fails_with_its_reason(api: Api, serve: Callable[[Any], str]) -> None:
    api.writer.run(lambda _connection: None)
    api.drain()

    with pytest.raises(SmokeFailed, match=r"/health: expected 200, got 503 .*the service is stopping"):
        smoke(serve(api), TOKEN)


def test_a_wrong_token_is_said_to_be_wrong(api: Api, serve: Callable[[Any], str]) -> None:
    api.writer.run(lambda _connection: None)

    with pytest.raises(SmokeFailed, match=r"/model: expected 200, got 401"):
        smoke(serve(api), "not-the-token")


def test_metrics_are_there_for_the_token_alone(api: Api, serve: Callable[[Any], str]) -> None:
    url = serve(api)

    assert int(metrics(url, TOKEN).removesuffix(" metrics")) > 50
    with pytest.raises(SmokeFailed, match=r"/metrics: expected 200, got 401"):
        metrics(url, "not-the-token")


@pytest.mark.parametrize(
    ("status", "message"),
    [("200 OK", "expected 401, got 200"), ("401 Unauthorized", "expected 200, got 401")],
)
def test_metrics_open_to_all_or_to_none_fail(serve: Callable[[Any], str], status: str, message: str) -> None:
    with pytest.raises(SmokeFailed, match=message):
        metrics(serve(answering(status, b"{}")), TOKEN)


def test_metrics_of_something_else_fail(serve: Callable[[Any], str]) -> None:
    def application(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        is_known = environ.get("HTTP_AUTHORIZATION") == f"Bearer {TOKEN}"
        start_response("200 OK" if is_known else "401 Unauthorized", [("Content-Type", "text/plain")])
        return [b"up 1" if is_known else b"{}"]

    with pytest.raises(SmokeFailed, match="expected fraud_model_info among the metrics"):
        metrics(serve(application), TOKEN)


def answering(status: str, body: bytes) -> Any:
    def application(_environ: object, start_response: Any) -> list[bytes]:
        start_response(status, [("Content-Type", "application/json")])
        return [body]

    return application


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"<html>", "expected a reply of the API"),
        (b"{}", "expected verified golden rows"),
        (b'{"golden_rows_verified": 20}', "expected 401, got 200"),
    ],
)
def test_what_is_not_our_service_fails(serve: Callable[[Any], str], body: bytes, message: str) -> None:
    with pytest.raises(SmokeFailed, match=message):
        smoke(serve(answering("200 OK", body)), TOKEN)


def test_a_service_that_is_not_there_fails() -> None:
    with pytest.raises(SmokeFailed, match="expected a reply of the API, got none"):
        smoke("http://127.0.0.1:9", TOKEN)


def test_the_program_says_it_in_one_line(
    api: Api, serve: Callable[[Any], str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    api.writer.run(lambda _connection: None)
    monkeypatch.setenv("API_URL", serve(api))
    monkeypatch.setenv("API_TOKEN", TOKEN)
    passed, counted = program.main([]), program.main(["--metrics"])
    monkeypatch.setenv("API_TOKEN", "not-the-token")
    failed = program.main([])
    monkeypatch.setenv("API_URL", "ftp://nowhere")
    misconfigured = program.main([])

    said, complained = capsys.readouterr()
    assert (passed, counted, failed, misconfigured) == (0, 0, 1, 2)
    assert f"model {api.served.current.version} serves" in said
    assert "metrics, no access without a token" in said
    assert ["401" in line or "API_URL" in line for line in complained.splitlines()] == [True, True]
