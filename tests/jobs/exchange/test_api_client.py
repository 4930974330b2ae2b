"""The client of the API repeats what may pass, and reports what does not."""

import http.server
import threading
from collections.abc import Callable, Iterator

import pytest
import requests

from fraud_detection.settings import ClientSettings
from jobs.exchange.api_client import ApiAway, ApiClient, ApiRefused

Answer = tuple[int, str]


class Scripted(http.server.BaseHTTPRequestHandler):
    """Answers with what the test prepared, in order, and remembers what it was asked."""

    answers: list[Answer]
    asked: list[tuple[str, str, str | None]]

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.answer()

    def do_GET(self) -> None:
        self.answer()

    def answer(self) -> None:
        self.asked.append((self.command, self.path, self.headers["Idempotency-Key"]))
        status, body = self.answers.pop(0)
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body.encode())

    def log_message(self, *_arguments: object) -> None:
        pass


Serve = Callable[..., tuple[ApiClient, list[tuple[str, str, str | None]]]]


@pytest.fixture
def serve() -> Iterator[Serve]:
    """Start a server with some answers; give a client of it and the list of what it is asked."""
    servers: list[http.server.HTTPServer] = []
    clients: list[ApiClient] = []

    def start(*answers: Answer) -> tuple[ApiClient, list[tuple[str, str, str | None]]]:
        handler = type("Handler", (Scripted,), {"answers": list(answers), "asked": []})
        server = http.server.HTTPServer(("127.0.0.1", 0), handler)
        servers.append(server)
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        clients.append(client_of(server.server_port))
        return clients[-1], handler.asked  # type: ignore[attr-defined]  # set three lines above

    yield start
    for client in clients:
        client.__exit__(None, None, None)
    for server in servers:
        server.shutdown()
        server.server_close()


def client_of(port: int) -> ApiClient:
    return ApiClient(ClientSettings(api_url=f"http://127.0.0.1:{port}", api_token="t"), attempts=3)


SCORED = '{"fraud_probability": [0.5], "is_flagged": [true], "threshold": 0.4, "model_version": "v", "request_id": "r"}'


def test_asks_again_under_the_same_key_while_the_api_is_overloaded(serve: Serve) -> None:
    client, asked = serve((503, "{}"), (503, "{}"), (200, SCORED))

    scored = client.score([[1.0]], [None], idempotency_key="k")

    assert scored.is_flagged == [True]
    assert asked == [("POST", "/predict", "k")] * 3


def test_gives_up_in_the_end_with_what_the_api_said(serve: Serve) -> None:
    client, asked = serve(*[(503, '{"error": {"message": "the disk is full"}}')] * 3)

    with pytest.raises(ApiRefused, match="answered 503: the disk is full"):
        client.label([{}])

    assert len(asked) == 3


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        ((422, '{"error": {"message": "row 0: expected 29 numbers"}}'), "answered 422: row 0: expected 29 numbers"),
        ((404, "<html>"), "answered 404: Not Found"),
        ((200, "[]"), "answered 200: OK"),
        ((302, ""), "answered 302: Found"),
    ],
)
def test_a_refusal_is_final_and_says_why(serve: Serve, answer: Answer, message: str) -> None:
    client, asked = serve(answer)

    with pytest.raises(ApiRefused, match=message):
        client.served_model()

    assert len(asked) == 1


def test_does_not_blame_the_api_for_a_body_that_is_no_json() -> None:
    with client_of(1) as client, pytest.raises(requests.exceptions.InvalidJSONError, match="JSON compliant"):
        client.score([[float("nan")]], [None], idempotency_key="k")


def test_names_an_address_that_does_not_answer(serve: Serve) -> None:
    with (
        client_of(1) as client,
        pytest.raises(ApiAway, match=r"http://127\.0\.0\.1:1: the API does not answer .* `fraudctl serve`"),
    ):
        client.served_model()
