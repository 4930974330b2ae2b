"""No client asks the proxy of the environment for a server inside, and every one asks it for a server outside."""

import contextlib
import os
import socket
import threading
import urllib.request
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from api import smoke
from fraud_detection.proxies import bypass_proxy_inside
from fraud_detection.settings import ClientSettings, JobSettings
from jobs.drift.report import unable_to_compare
from jobs.exchange.api_client import ApiAway, ApiClient, ApiRefused
from jobs.reporting.pushgateway import Run, push_drift
from jobs.rollout import running_api
from jobs.rollout.running_api import NotServed, RunningApi, bring_to
from jobs.rollout.tracking import Tracking, TrackingFailed
from tests.support.environment import TOKEN
from tests.support.proxy import VARIABLES, Proxy, running_proxy


@pytest.fixture(scope="module")
def proxy_process(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Proxy]:
    with running_proxy(tmp_path_factory.mktemp("proxy") / "asked") as proxy:
        yield proxy


@pytest.fixture
def asked(proxy_process: Proxy, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], list[str]]]:
    """Set the proxy in the environment; return what tells which requests of this test it was asked to forward."""
    for name in VARIABLES:
        monkeypatch.delenv(name.lower(), raising=False)
        monkeypatch.setenv(name, "internal.example" if name == "NO_PROXY" else proxy_process.url)
    monkeypatch.setenv("no_proxy", "internal.example")  # so that the test ends with what was there before
    before = len(proxy_process.asked)
    urllib.request.install_opener(None)  # it keeps the proxies of its first request, which another test has sent
    yield lambda: proxy_process.asked[before:]
    urllib.request.install_opener(None)


@pytest.fixture(scope="module")
def inside() -> Iterator[tuple[str, list[str]]]:
    """A server with a name without a dot, and what authorized each request that it received."""
    received: list[str] = []

    class Server(BaseHTTPRequestHandler):
        def _refuse(self) -> None:
            received.append(self.headers["Authorization"] or "")
            self.send_error(404)

        do_GET = do_POST = do_PUT = _refuse  # noqa: N815  the names that http.server looks for

        def log_message(self, *_: object) -> None:
            """Log nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Server)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    yield f"http://localhost:{server.server_port}", received
    server.shutdown()
    thread.join()
    server.server_close()


def client_settings(url: str) -> ClientSettings:
    return ClientSettings.from_env({"API_URL": url, "API_TOKEN": TOKEN})


def check(url: str) -> None:
    smoke.main([])


def score(url: str) -> None:
    with ApiClient(client_settings(url), attempts=1) as client, contextlib.suppress(ApiAway, ApiRefused):
        client.served_model()


def promote(url: str) -> None:
    settings = JobSettings.from_env({"ROLLOUT_MODE": "reload"})
    with contextlib.suppress(NotServed):
        bring_to("digest", settings, RunningApi(client_settings(url)))


def push(url: str) -> None:
    push_drift(url, unable_to_compare("nothing to compare"), Run(1.0, 2.0, succeeded=False))


def track(url: str) -> None:
    with contextlib.suppress(TrackingFailed):
        Tracking(url, Path("unused"), experiment="e", registered_model="m")


CLIENTS = [check, score, promote, push, track]


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(running_api, "SERVED_WITHIN_SECONDS", 0.0)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")


@pytest.mark.parametrize("send", CLIENTS)
def test_a_server_inside_is_asked_directly(
    monkeypatch: pytest.MonkeyPatch,
    asked: Callable[[], list[str]],
    inside: tuple[str, list[str]],
    send: Callable[[str], None],
) -> None:
    url, received = inside
    received.clear()
    monkeypatch.setenv("API_URL", url)
    monkeypatch.setenv("API_TOKEN", TOKEN)

    send(url)

    assert received
    assert asked() == []


@pytest.mark.parametrize("send", CLIENTS)
def test_a_server_outside_is_asked_through_the_proxy(
    monkeypatch: pytest.MonkeyPatch, asked: Callable[[], list[str]], send: Callable[[str], None]
) -> None:
    url = "http://fraud.invalid:5000"  # RFC 2606: no such name, so that only the proxy could know it
    monkeypatch.setenv("API_URL", url)
    monkeypatch.setenv("API_TOKEN", TOKEN)

    send(url)

    assert asked()
    assert all(address.startswith(url) for address in asked())


def addresses(*found: str) -> Callable[..., list[tuple[object, ...]]]:
    """Return a lookup that finds these addresses for every name, as a cluster's DNS would."""
    return lambda *_: [(socket.AF_INET6, socket.SOCK_STREAM, 6, "", (address, 0, 0, 0)) for address in found]


@pytest.mark.parametrize(
    ("url", "found", "exempt"),
    [
        ("http://gateway:9091", (), "gateway"),
        ("http://10.96.0.7:9091/x", (), "10.96.0.7"),
        ("https://user:secret@[fd00::7]/x", (), "fd00::7,[fd00::7]"),
        ("http://100.64.3.2", (), "100.64.3.2"),
        ("http://mlflow.tracking:5000", ("10.96.3.4",), "mlflow.tracking"),
        ("http://mlflow.tracking.svc.k8s.example", ("10.96.3.4", "fd00::4"), "mlflow.tracking.svc.k8s.example"),
        ("http://mlflow.example", ("10.96.3.4", "93.184.215.14"), None),
        ("http://93.184.215.14", (), None),
        ("http://[2606:4700::1111]", (), None),
        ("sqlite:///data/mlflow.db", (), None),
    ],
)
def test_what_is_inside(
    monkeypatch: pytest.MonkeyPatch,
    asked: Callable[[], list[str]],
    url: str,
    found: tuple[str, ...],
    exempt: str | None,
) -> None:
    monkeypatch.setattr(socket, "getaddrinfo", addresses(*found))

    for _ in range(2):
        bypass_proxy_inside(url)

    assert os.environ["NO_PROXY"] == os.environ["no_proxy"] == ",".join(filter(None, ["internal.example", exempt]))


def test_without_a_proxy_nothing_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)

    bypass_proxy_inside("http://gateway:9091")

    assert "NO_PROXY" not in os.environ


def test_a_password_in_netrc_does_not_replace_the_token(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, inside: tuple[str, list[str]]
) -> None:
    url, received = inside
    received.clear()
    (tmp_path / ".netrc").write_text("default login someone password else\n")
    monkeypatch.setenv("NETRC", str(tmp_path / ".netrc"))

    score(url)
    promote(url)

    assert received == [f"Bearer {TOKEN}"] * 2
