"""The probes tell a service that is live from one that is ready, and name what is wrong."""

import contextlib
import http.client
import json
import socket
import struct
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator

import pytest
import sqlalchemy as sa

from api import health
from api.app import Api
from api.health import ProbeServer
from api.writer import NotStored
from fraud_detection.contract import FOR_BROWSERS
from fraud_detection.store import Store
from tests.support.waiting import PATIENCE_SECONDS, wait_until


@pytest.fixture
def ready_api(api: Api) -> Api:
    wait_until(lambda: api.writer.problem is None)
    return api


@pytest.fixture
def probes(ready_api: Api) -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = ProbeServer(listener, ready_api.health)
        server.start()
        yield listener.getsockname()[1]
        server.close()


def ask(probes: int, path: str) -> tuple[int, dict[str, object]]:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{probes}{path}") as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.load(error)


def test_a_working_service_says_so_without_a_token(ready_api: Api, probes: int) -> None:
    answer = ready_api.test_client().get("/health")

    assert (answer.status_code, answer.get_json()) == (
        200,
        {"status": "ok", "model_version": ready_api.served.current.version},
    )
    assert ask(probes, "/livez") == (200, {"live": True})
    assert ask(probes, "/readyz") == (200, {"ready": True, "problems": []})


def test_a_service_that_stops_is_live_but_not_ready(ready_api: Api, probes: int) -> None:
    ready_api.drain()

    stopping = [{"code": "stopping", "message": "the service is stopping"}]
    assert ask(probes, "/livez")[0] == 200
    assert ask(probes, "/readyz") == (503, {"ready": False, "problems": stopping})
    assert ready_api.test_client().get("/health").get_json() == {"status": "unavailable", "problems": stopping}


def test_storage_trouble_makes_it_unready_and_says_what_to_do(ready_api: Api, sqlite_store: Store) -> None:
    def ask_for_more_room_than_there_is(connection: sa.Connection) -> None:
        connection.exec_driver_sql("PRAGMA max_page_count=1").close()  # no less than there are
        sqlite_store.set_meta(connection, "filler", "x" * 1_000_000)

    with pytest.raises(NotStored):
        ready_api.writer.run(ask_for_more_room_than_there_is)
    answer = ready_api.test_client().get("/health")

    said = answer.get_json()
    assert (answer.status_code, said["status"], said["problems"][0]["code"]) == (503, "unavailable", "storage_full")
    assert "RETENTION_DAYS" in said["problems"][0]["message"]


def test_a_service_whose_writer_is_stuck_is_not_live(
    ready_api: Api, probes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(health, "HEARTBEAT_LIMIT_SECONDS", -1.0)

    assert ask(probes, "/livez") == (503, {"live": False})
    assert ready_api.health.problems()[0]["code"] == "writer_stuck"


def test_the_probe_port_says_what_it_knows(probes: int) -> None:
    assert ask(probes, "/metrics") == (404, {"paths": ["/livez", "/readyz"]})


@pytest.mark.parametrize(("method", "path"), [("GET", "/livez"), ("GET", "/elsewhere"), ("POST", "/livez")])
def test_a_browser_neither_guesses_a_type_nor_shows_it_in_a_frame(probes: int, method: str, path: str) -> None:
    with contextlib.closing(http.client.HTTPConnection("127.0.0.1", probes, timeout=PATIENCE_SECONDS)) as connection:
        connection.request(method, path)
        headers = connection.getresponse().headers

    assert {name: headers[name] for name, _ in FOR_BROWSERS} == dict(FOR_BROWSERS)


def test_an_idle_connection_gives_way_when_too_many_wait_for_a_probe(
    ready_api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(health, "PROBE_SECONDS", PATIENCE_SECONDS)
    with socket.create_server(("127.0.0.1", 0)) as listener, contextlib.ExitStack() as opened:
        server = ProbeServer(listener, ready_api.health)
        server.start()
        opened.callback(server.close)
        port = listener.getsockname()[1]
        idle = [
            opened.enter_context(socket.create_connection(("127.0.0.1", port), timeout=PATIENCE_SECONDS / 2))
            for _ in range(health.PROBES_AT_ONCE)
        ]

        assert ask(port, "/livez") == (200, {"live": True})
        assert idle[0].recv(1) == b""


def test_a_probe_that_breaks_off_prints_nothing(probes: int, capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_connection(("127.0.0.1", probes)) as connection:
        connection.sendall(b"GET /livez HTTP/1.1\r\n")
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # closing resets it
    ask(probes, "/livez")  # connections are accepted in turn

    wait_until(lambda: not [thread for thread in threading.enumerate() if "process_request" in thread.name])
    assert capsys.readouterr().err == ""


def test_only_the_start_of_a_long_head_is_received(probes: int) -> None:
    with socket.create_connection(("127.0.0.1", probes), timeout=PATIENCE_SECONDS) as connection:
        connection.sendall(b"GET /livez HTTP/1.1\r\nX: ".ljust(health.MAX_PROBE_BYTES, b"a"))

        assert connection.recv(65536).startswith(b"HTTP/1.0 200 ")


def test_a_head_that_trickles_in_has_no_more_time_than_another(probes: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(health, "PROBE_SECONDS", 0.3)
    with socket.create_connection(("127.0.0.1", probes), timeout=0.05) as connection:

        def has_ended() -> bool:
            try:
                connection.sendall(b"G")
                return connection.recv(1) == b""
            except TimeoutError:
                return False
            except OSError:
                return True

        wait_until(has_ended)
