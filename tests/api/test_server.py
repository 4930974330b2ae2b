"""The real server as a child process: gunicorn, the worker, the start and the end."""

import contextlib
import json
import os
import re
import resource
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import pytest

from api.connections import REQUEST_SECONDS
from fraud_detection.database.engine import open_engine
from fraud_detection.model.files import CURRENT, ONNX
from fraud_detection.model.write import promote
from tests.support.bad_models import BAD_STATES
from tests.support.environment import TOKEN
from tests.support.ports import free_port
from tests.support.project import ROOT
from tests.support.vanishing import VANISHING
from tests.support.waiting import PATIENCE_SECONDS, answers, wait_until

pytestmark = pytest.mark.long_file

ROW = [0.5] * 29


@dataclass
class Server:
    """A gunicorn under test."""

    process: subprocess.Popen[bytes]
    port: int
    probe_port: int
    log: Path

    def wait_until(self, is_so: Callable[[], bool]) -> None:
        wait_until(is_so, process=self.process, otherwise=self.log.read_text)

    def get(self, path: str, *, probe: bool = False) -> tuple[int, dict[str, Any]]:
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.probe_port if probe else self.port}{path}",
            headers={"Authorization": f"Bearer {TOKEN}"},
        )
        try:
            with urllib.request.urlopen(request, timeout=PATIENCE_SECONDS) as answer:  # noqa: S310  our own address
                return answer.status, json.load(answer)
        except urllib.error.HTTPError as error:
            with error:
                return error.code, json.load(error)

    def is_listening(self) -> bool:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port)):
            return True
        return False

    def is_ready(self) -> bool:
        with contextlib.suppress(OSError):
            return self.get("/readyz", probe=True)[0] == 200
        return False


class Connection:
    """A client's connection, byte by byte."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.received = b""

    def send(self, data: bytes) -> "Connection":
        self.sock.sendall(data)
        return self

    def answer(self) -> tuple[int, dict[str, str], bytes]:
        """Return status, header (lower-case names) and body of the next answer."""
        while b"\r\n\r\n" not in self.received:
            self._receive()
        head, _, rest = self.received.partition(b"\r\n\r\n")
        lines = head.decode().split("\r\n")
        header = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines[1:])}
        length = int(header["content-length"])
        self.received = rest
        while len(self.received) < length:
            self._receive()
        body, self.received = self.received[:length], self.received[length:]
        return int(lines[0].split()[1]), header, body

    def _receive(self) -> None:
        chunk = self.sock.recv(65536)
        assert chunk, f"closed after {self.received!r}"
        self.received += chunk

    def until_the_end(self) -> bytes:
        """Return everything that comes until the server closes."""
        while chunk := self.sock.recv(65536):
            self.received += chunk
        return self.received

    def is_closed(self) -> bool:
        """Wait until the server closes; return False if it sends anything before."""
        try:
            return self.sock.recv(1) == b""
        except ConnectionResetError:
            return True

    def begin(self) -> bytes:
        """Send a request but for its end, wait until the server reads its body, and return the end."""
        request = post(headers="Expect: 100-continue\r\n")
        self.send(request[:-10])
        while not self.received.endswith(b"\r\n\r\n"):
            self._receive()
        assert self.received == b"HTTP/1.1 100 Continue\r\n\r\n"
        self.received = b""
        return request[-10:]


Connect = Callable[[Server], Connection]


def post(body: object = None, *, headers: str = "", path: str = "/predict") -> bytes:
    content = json.dumps({"data": [ROW]} if body is None else body).encode()
    return (
        f"POST {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {TOKEN}\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(content)}\r\n{headers}\r\n"
    ).encode() + content


def launch(
    environment: Mapping[str, str], log: Path, *application: str, under: Sequence[str] = (), folder: Path = ROOT
) -> Server:
    port, probe_port = free_port(), free_port()
    variables = {
        **{name: os.environ[name] for name in os.environ if name == "PATH" or name.startswith("COV")},
        "PORT": port,
        "PROBE_PORT": probe_port,
        **environment,
    }
    with log.open("wb") as stderr:
        process = subprocess.Popen(
            [*under, sys.executable, "-m", "gunicorn", "-c", "python:api.gunicorn_conf", *application],
            cwd=folder,
            env=variables,
            stdout=stderr,
            stderr=stderr,
        )
    return Server(process, int(port), int(variables["PROBE_PORT"]), log)


@contextlib.contextmanager
def running(
    environment: Mapping[str, str], log: Path, *application: str, under: Sequence[str] = (), folder: Path = ROOT
) -> Iterator[Server]:
    server = launch(environment, log, *application, under=under, folder=folder)
    try:
        server.wait_until(server.is_ready)
        yield server
    finally:
        server.process.terminate()
        server.process.wait(PATIENCE_SECONDS)


@pytest.fixture
def connect() -> Iterator[Connect]:
    """Open connections that are closed with the test: connect(server)."""
    with contextlib.ExitStack() as opened:
        yield lambda server: Connection(
            opened.enter_context(socket.create_connection(("127.0.0.1", server.port), timeout=PATIENCE_SECONDS))
        )


@pytest.fixture
def server(sqlite_environment: dict[str, str], tmp_path: Path) -> Iterator[Server]:
    with running(sqlite_environment, tmp_path / "log") as started:
        yield started


@pytest.fixture(scope="module")
def lasting_server(lasting_environment: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One server for the tests that leave it as it was."""
    folder = tmp_path_factory.mktemp("server")
    environment = {**lasting_environment, "LATEST_DB": str(folder / "requests.db")}
    with running(environment, folder / "log") as started:
        yield started


CONNECTIONS = 150


@pytest.fixture(scope="module")
def small_server(lasting_environment: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server with few places: half of the 300 descriptors are for connections, and 4 requests may be in flight."""
    folder = tmp_path_factory.mktemp("small")
    environment = {**lasting_environment, "LATEST_DB": str(folder / "requests.db"), "MAX_IN_FLIGHT": "4"}
    with running(environment, folder / "log", under=["prlimit", "--nofile=300:300"]) as started:
        yield started


def figure(server: Server, name: str) -> float:
    request = urllib.request.Request(
        f"http://127.0.0.1:{server.port}/metrics", headers={"Authorization": f"Bearer {TOKEN}"}
    )
    with urllib.request.urlopen(request, timeout=PATIENCE_SECONDS) as answer:  # noqa: S310  an address of ours
        lines = answer.read().decode().splitlines()
    return float(next(line.rpartition(" ")[2] for line in lines if line.startswith(f"{name} ")))


def rows(environment: Mapping[str, str]) -> int:
    engine = open_engine(Path(environment["LATEST_DB"]), read_only=True)
    with engine.connect() as connection:
        count: int = connection.exec_driver_sql("SELECT COUNT(*) FROM requests").scalar_one()
    engine.dispose()
    return count


# -- conversations ---------------------------------------------------------------------------------------------------


def test_a_connection_serves_one_request_after_another(connect: Connect, lasting_server: Server) -> None:
    connection = connect(lasting_server)

    for _ in range(3):
        status, header, body = connection.send(post()).answer()

        assert (status, header["connection"]) == (200, "keep-alive")
        assert header["x-request-id"] == json.loads(body)["request_id"]


def test_requests_sent_without_waiting_are_answered_in_order(connect: Connect, lasting_server: Server) -> None:
    connection = connect(lasting_server).send(post() + post({"data": []}) + post())

    assert [connection.answer()[0] for _ in range(3)] == [200, 422, 200]


def test_a_body_in_chunks_is_read(connect: Connect, lasting_server: Server) -> None:
    head, _, content = post().partition(b"\r\n\r\n")
    head = b"\r\n".join(line for line in head.split(b"\r\n") if not line.startswith(b"Content-Length"))
    chunks = b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in (content[:7], content[7:]))

    connection = connect(lasting_server).send(head + b"\r\nTransfer-Encoding: chunked\r\n\r\n" + chunks + b"0\r\n\r\n")

    assert connection.answer()[0] == 200
    assert connection.send(post()).answer()[0] == 200


def test_a_client_that_asks_to_close_gets_no_further_answer(connect: Connect, lasting_server: Server) -> None:
    connection = connect(lasting_server).send(post(headers="Connection: close\r\n"))

    assert connection.answer()[1]["connection"] == "close"
    assert connection.is_closed()


def test_an_unread_body_ends_the_connection_or_is_skipped(connect: Connect, lasting_server: Server) -> None:
    head = b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n"

    small = connect(lasting_server).send(head % 1000 + b"x" * 1000)
    large = connect(lasting_server).send(head % 10_000_000_000 + b"x" * 1000)

    assert (small.answer()[0], small.send(post()).answer()[0]) == (401, 200)
    assert large.answer()[0] == 401
    assert large.is_closed()


def test_a_head_request_has_no_body(connect: Connect, lasting_server: Server) -> None:
    connection = connect(lasting_server).send(b"HEAD /health HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")

    received = connection.until_the_end()

    assert received.startswith(b"HTTP/1.1 200 ")
    assert received.endswith(b"\r\n\r\n")


@pytest.mark.parametrize(
    ("sent", "status", "code"),
    [
        (b"nonsense\r\n\r\n", 400, "bad_request"),
        (b"GET / HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n", 400, "bad_request"),
        (b"POST / HTTP/1.1\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n", 400, "bad_request"),
        (b"POST / HTTP/1.1\r\nContent-Length: -1\r\n\r\n", 400, "bad_request"),
        (b"POST / HTTP/1.1\r\nTransfer-Encoding: secret\r\n\r\n", 501, "unsupported_transfer_coding"),
        (b"GET / HTTP/1.1\r\nX: \0\r\n\r\n", 400, "bad_request"),
        (b"GET / HTTP/1.1\r\n" + b"X: y\r\n" * 101 + b"\r\n", 431, "headers_too_large"),
        (b"GET / HTTP/1.1\r\nX: " + b"y" * 9000 + b"\r\n\r\n", 431, "headers_too_large"),
        (b"GET / HTTP/1.1\r\n" + (b"X: " + b"y" * 4000 + b"\r\n") * 25, 431, "headers_too_large"),
        (b"GET /" + b"x" * 5000 + b" HTTP/1.1\r\n\r\n", 414, "uri_too_long"),
        (b"GET / HTTP/1.1\r\nExpect: the unexpected\r\n\r\n", 417, "expectation_failed"),
    ],
)
def test_what_is_not_http_is_refused_in_our_form(
    connect: Connect, lasting_server: Server, sent: bytes, status: int, code: str
) -> None:
    connection = connect(lasting_server).send(sent)

    got, header, body = connection.answer()

    error = json.loads(body)["error"]
    assert (got, error["code"], header["connection"]) == (status, code, "close")
    assert error["request_id"] == header["x-request-id"]
    assert connection.is_closed()


def test_a_request_that_does_not_come_to_its_end_is_closed(connect: Connect, lasting_server: Server) -> None:
    half_a_body = post()[:-10]
    connections = [
        connect(lasting_server).send(sent)
        for sent in (b"", b"POST /predict HT", half_a_body, half_a_body.replace(b"a-token", b"no-token"))
    ]

    closed = []
    for connection in connections:
        with contextlib.suppress(AssertionError):
            connection.answer()  # a body may be answered before
        closed.append(connection.is_closed())

    assert closed == [True] * 4
    assert REQUEST_SECONDS == 5.0  # as docs/openapi.yaml says


def test_a_client_that_sends_byte_by_byte_gets_no_more_time(connect: Connect, lasting_server: Server) -> None:
    connection = connect(lasting_server).send(b"P")

    def send_for_a_minute() -> None:
        for _ in range(300):
            connection.send(b"O")
            time.sleep(0.2)

    with pytest.raises(OSError, match=r"Broken pipe|Connection reset"):  # the server closes it between two bytes
        send_for_a_minute()


def test_slow_clients_do_not_delay_others(connect: Connect, lasting_server: Server) -> None:
    slow = [connect(lasting_server).send(b"POST /predict HTTP/1.1\r\nHo") for _ in range(200)]
    connection = connect(lasting_server)

    answers = [connection.send(post()).answer()[0] for _ in range(50)]

    assert answers == [200] * 50
    assert lasting_server.get("/livez", probe=True)[0] == 200
    for one in slow:
        one.sock.close()


def test_idle_strangers_shut_out_neither_new_clients_nor_a_known_one(connect: Connect, small_server: Server) -> None:
    known = connect(small_server)
    assert known.send(post()).answer()[0] == 200
    idle = [connect(small_server) for _ in range(2 * CONNECTIONS)]

    new = connect(small_server)

    assert new.send(post()).answer()[0] == 200
    assert known.send(post()).answer()[0] == 200
    assert idle[0].is_closed()
    assert figure(small_server, 'fraud_connections_ended_total{outcome="crowded"}') > CONNECTIONS
    assert figure(small_server, "fraud_connections_limit") == CONNECTIONS
    for one in idle:
        one.sock.close()


ANSWERS_LATER = """
import json, pathlib, gevent

folder = pathlib.Path(__file__).parent

class Application:
    def watch_connections(self, connections):
        self.connections = connections

    def __call__(self, environ, start_response):
        if environ["PATH_INFO"] == "/later":
            with (folder / "waiting").open("a") as waiting:
                waiting.write(".")
            while not (folder / "go").exists():
                gevent.sleep(0.01)
        body = json.dumps({"open": self.connections.states().total(), "ended": self.connections.ended}).encode()
        start_response("200 OK", [("Content-Length", str(len(body)))])
        return [body]

application = Application()
"""


def test_room_is_made_later_if_every_place_was_at_work(
    connect: Connect, sqlite_environment: dict[str, str], tmp_path: Path
) -> None:
    (tmp_path / "answers_later.py").write_text(ANSWERS_LATER)
    environment = {**sqlite_environment, "PYTHONPATH": str(tmp_path)}
    now, later = (f"GET /{path} HTTP/1.1\r\nHost: x\r\n\r\n".encode() for path in ("now", "later"))
    places = 60
    few = ["prlimit", f"--nofile={2 * places}:{2 * places}"]
    server = launch(environment, tmp_path / "log", "answers_later:application", under=few)
    try:
        server.wait_until(server.is_listening)
        kept = [connect(server)]
        server.wait_until(lambda: json.loads(kept[0].send(now).answer()[2])["open"] == 1)
        (tmp_path / "waiting").touch()
        (worker,) = psutil.Process(server.process.pid).children()
        worker.suspend()  # so that every request has arrived when its connection is accepted
        kept += [connect(server) for _ in range(places - 1)]
        last = connect(server)
        for connection in (*kept, last):
            connection.send(later)
        worker.resume()
        server.wait_until(lambda: (tmp_path / "waiting").read_text() == "." * places)
        (tmp_path / "go").touch()

        assert json.loads(last.answer()[2])["ended"].get("crowded") == 1
        assert [connection.answer()[0] for connection in kept] == [200] * places
    finally:
        server.process.kill()
        server.process.wait()


def test_other_clients_are_served_beside_slow_bodies(connect: Connect, small_server: Server) -> None:
    slow = [connect(small_server) for _ in range(20)]
    rests = [one.begin() for one in slow]

    connection = connect(small_server)
    answers = [connection.send(post()).answer()[0] for _ in range(5)]

    assert answers == [200] * 5
    assert [one.send(rest).answer()[0] for one, rest in zip(slow, rests, strict=True)] == [200] * 20


def test_a_slow_body_that_gives_way_is_answered(connect: Connect, small_server: Server) -> None:
    slow = connect(small_server)
    slow.begin()

    others = [connect(small_server) for _ in range(CONNECTIONS)]
    status, header, body = slow.answer()

    assert (status, header["connection"], json.loads(body)["error"]["code"]) == (408, "close", "body_too_slow")
    for one in others:
        one.sock.close()


def test_a_client_that_goes_away_leaves_no_trace(connect: Connect, lasting_server: Server) -> None:
    for sent in (b"", b"GET /hea", post()[:-10], post()):
        connect(lasting_server).send(sent).sock.close()

    assert lasting_server.get("/health")[0] == 200
    assert "Traceback" not in lasting_server.log.read_text()


ANY_APPLICATION = """
def application(environ, start_response):
    if environ["PATH_INFO"] == "/fail":
        raise ZeroDivisionError
    start_response("200 OK", [])
    return [b"one, ", b"two"] if environ["PATH_INFO"] == "/parts" else []
"""


def test_any_application_can_be_served(connect: Connect, sqlite_environment: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "anything.py").write_text(ANY_APPLICATION)
    environment = {**sqlite_environment, "PYTHONPATH": str(tmp_path)}
    server = launch(environment, tmp_path / "log", "anything:application")
    try:
        server.wait_until(server.is_listening)
        parts = connect(server).send(b"GET /parts HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").until_the_end()
        nothing = connect(server).send(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").until_the_end()
        failed = connect(server).send(b"GET /fail HTTP/1.1\r\nHost: x\r\n\r\n").until_the_end()
        server.process.terminate()

        assert server.process.wait(PATIENCE_SECONDS) == 0
    finally:
        server.process.kill()
        server.process.wait()
    assert parts.endswith(b"\r\n\r\n5\r\none, \r\n3\r\ntwo\r\n0\r\n\r\n")
    assert nothing.endswith(b"\r\n\r\n0\r\n\r\n")
    assert failed == b""
    assert "ZeroDivisionError" in server.log.read_text()


SAYS_WHO_ASKS = """
def application(environ, start_response):
    start_response("200 OK", [])
    return [" ".join(environ[name] for name in ("wsgi.url_scheme", "REMOTE_ADDR", "SCRIPT_NAME", "PATH_INFO")).encode()]
"""


@pytest.mark.parametrize(
    ("trusted", "told"),
    [
        ({}, b"http 127.0.0.1  /fraud/health"),
        ({"TRUSTED_PROXIES": "10.0.0.0/8, ::1"}, b"http 127.0.0.1  /fraud/health"),
        ({"TRUSTED_PROXIES": "10.0.0.7, 127.0.0.0/8"}, b"https 127.0.0.1 /fraud /health"),
        ({"TRUSTED_PROXIES": "127.0.0.0/8", "HOST": "::"}, b"https 127.0.0.1 /fraud /health"),
    ],
)
def test_forwarded_headers_count_only_from_trusted_proxies(
    connect: Connect, sqlite_environment: dict[str, str], tmp_path: Path, trusted: dict[str, str], told: bytes
) -> None:
    (tmp_path / "says_who_asks.py").write_text(SAYS_WHO_ASKS)
    environment = {**sqlite_environment, "PYTHONPATH": str(tmp_path), **trusted}
    server = launch(environment, tmp_path / "log", "says_who_asks:application")
    try:
        server.wait_until(server.is_listening)
        forwarded = b"X-Forwarded-Proto: https\r\nX-Forwarded-For: 6.6.6.6\r\nForwarded: for=6.6.6.6;proto=https\r\n"
        asked = b"GET /fraud/health HTTP/1.1\r\nHost: x\r\nConnection: close\r\nSCRIPT_NAME: /fraud\r\n" + forwarded
        received = connect(server).send(asked + b"\r\n").until_the_end()
        contradicting = connect(server).send(asked + b"X-Forwarded-Ssl: off\r\n\r\n").until_the_end()
    finally:
        server.process.kill()
        server.process.wait()

    assert told in received
    if told.startswith(b"http "):
        assert told in contradicting
    else:
        assert contradicting.startswith(b"HTTP/1.1 400 ")
        assert b'"contradicting_scheme"' in contradicting
        assert b"let it send only X-Forwarded-Proto" in contradicting


def test_the_proxy_protocol_is_no_http(connect: Connect, lasting_server: Server) -> None:
    connection = connect(lasting_server).send(b"PROXY TCP4 6.6.6.6 7.7.7.7 1 2\r\n" + post())

    assert connection.answer()[0] == 400
    assert connection.is_closed()


# -- the end ---------------------------------------------------------------------------------------------------------


IN_NO_HURRY = f"""
from api.gunicorn_conf import *
from api.wsgi import serve
wsgi_app = "in_no_hurry:serve()"
graceful_timeout = {10 * PATIENCE_SECONDS}
"""


def test_a_stop_answers_requests_in_flight_and_waits_for_no_idle_connection(
    connect: Connect, sqlite_environment: dict[str, str], tmp_path: Path
) -> None:
    (tmp_path / "in_no_hurry.py").write_text(IN_NO_HURRY)
    environment = sqlite_environment | {"PYTHONPATH": str(tmp_path)}
    with running(environment, tmp_path / "log", "-c", str(tmp_path / "in_no_hurry.py")) as server:
        idle = [connect(server) for _ in range(5)]
        for connection in idle[1:]:
            assert connection.send(post()).answer()[0] == 200
        under_way = connect(server)
        rest = under_way.begin()

        server.process.terminate()
        assert [connection.is_closed() for connection in idle] == [True] * 5
        under_way.send(rest)
        status, header, _ = under_way.answer()

        assert (status, header["connection"]) == (200, "close")
        assert server.process.wait(PATIENCE_SECONDS) == 0
    assert rows(sqlite_environment) == 5
    wal = Path(f"{sqlite_environment['LATEST_DB']}-wal")
    assert not wal.exists() or wal.stat().st_size == 0


def test_a_kept_connection_may_send_one_more_request_during_a_stop(connect: Connect, server: Server) -> None:
    """To close it at once would cross the request that its client is just sending."""
    kept = connect(server)
    assert kept.send(post()).answer()[0] == 200
    server.process.terminate()
    server.wait_until(lambda: not server.is_ready())

    status, header, _ = kept.send(post()).answer()

    assert (status, header["connection"]) == (200, "close")
    assert server.process.wait(PATIENCE_SECONDS) == 0


READS_THE_BODY = """
def application(environ, start_response):
    environ["wsgi.input"].read()
"""
IN_A_HURRY = """
from api.gunicorn_conf import *
wsgi_app = "reads_the_body:application"
graceful_timeout = 3
"""


def test_a_stop_does_not_wait_for_ever(connect: Connect, sqlite_environment: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "reads_the_body.py").write_text(READS_THE_BODY)
    (tmp_path / "in_a_hurry.py").write_text(IN_A_HURRY)
    environment = {**sqlite_environment, "PYTHONPATH": str(tmp_path)}
    server = launch(environment, tmp_path / "log", "-c", str(tmp_path / "in_a_hurry.py"))
    try:
        server.wait_until(server.is_listening)
        under_way = connect(server)
        under_way.begin()

        server.process.terminate()

        assert under_way.is_closed()
        assert server.process.wait(PATIENCE_SECONDS) == 0
        assert "1 requests were not answered in time" in server.log.read_text()
    finally:
        server.process.kill()
        server.process.wait()


def test_a_stopping_server_is_live_but_not_ready(connect: Connect, server: Server) -> None:
    under_way = connect(server)
    rest = under_way.begin()
    server.process.terminate()

    server.wait_until(lambda: not server.is_ready())

    assert server.get("/livez", probe=True)[0] == 200
    assert under_way.send(rest).answer()[0] == 200


def test_a_worker_is_replaced_without_a_failed_request(connect: Connect, server: Server) -> None:
    (old,) = psutil.Process(server.process.pid).children()

    server.process.send_signal(signal.SIGHUP)
    while old.is_running():
        assert connect(server).send(post(headers="Connection: close\r\n")).answer()[0] == 200

    (new,) = psutil.Process(server.process.pid).children()
    assert new.pid != old.pid
    assert connect(server).send(post()).answer()[0] == 200
    assert server.is_ready()


def test_ctrl_c_ends_at_once(connect: Connect, server: Server) -> None:
    connect(server).send(b"GET /hea")

    server.process.send_signal(signal.SIGINT)

    assert server.process.wait(PATIENCE_SECONDS) == 0


def test_a_worker_without_its_parent_ends(server: Server) -> None:
    (worker,) = psutil.Process(server.process.pid).children()

    server.process.kill()

    worker.wait(PATIENCE_SECONDS)


# -- a new model -----------------------------------------------------------------------------------------------------


def test_no_request_fails_while_promoted_models_replace_each_other(
    connect: Connect, server: Server, models_dir: Path, make_version: Callable[..., str]
) -> None:
    statuses: list[int] = []
    is_enough = threading.Event()

    def ask() -> None:
        connection = connect(server)
        while not is_enough.is_set():
            statuses.append(connection.send(post()).answer()[0])

    clients = [threading.Thread(target=ask) for _ in range(3)]
    for client in clients:
        client.start()
    bad = make_version(models_dir, seed=1)
    (models_dir / bad / ONNX).write_bytes(b"not a model")
    promote(models_dir, bad, actor="test", reason="bad")
    server.wait_until(lambda: "model refused" in server.log.read_text())
    after_bad = server.get("/model")[1]["version"]
    for seed in (2, 3, 4):
        version = make_version(models_dir, seed=seed)
        promote(models_dir, version, actor="test", reason="good")
        server.wait_until(partial(serves, server, version))
    is_enough.set()
    for client in clients:
        client.join()

    assert after_bad != bad
    assert set(statuses) == {200}


def test_a_model_volume_in_a_bad_state_costs_no_answer_and_the_next_model_serves(
    connect: Connect, server: Server, models_dir: Path, make_version: Callable[..., str]
) -> None:
    before = server.get("/model")[1]["version"]
    states = ["a named pipe as model", "a manifest of lists in lists", "a file outside", "current leads to itself"]
    for number, state in enumerate(states):
        version = models_dir / make_version(models_dir, seed=number + 1)
        spoil, _ = BAD_STATES[state]
        spoil(version)
        if (models_dir / CURRENT).readlink().name != CURRENT:
            link_by_hand(models_dir, version.name)
        server.wait_until(partial(has_refused, server, number + 1))
    answered = connect(server).send(post()).answer()[0]
    served_meanwhile = server.get("/model")[1]["version"]
    good = make_version(models_dir, seed=9)
    promote(models_dir, good, actor="test", reason="good")

    server.wait_until(partial(serves, server, good))

    assert (answered, served_meanwhile) == (200, before)
    metrics = connect(server).send(
        f"GET /metrics HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {TOKEN}\r\n\r\n".encode()
    )
    counted = dict(re.findall(r'fraud_model_refused_total{reason="(\w+)"} ([1-9])', metrics.answer()[2].decode()))
    assert counted == {"unreadable": "2", "manifest": "2"}
    assert "Traceback" not in server.log.read_text()


def link_by_hand(models_dir: Path, version: str) -> None:
    partial_link = models_dir / ".by-hand"
    partial_link.symlink_to(version)
    partial_link.replace(models_dir / CURRENT)


def has_refused(server: Server, count: int) -> bool:
    return server.log.read_text().count("model refused") == count


def serves(server: Server, version: str) -> bool:
    return bool(server.get("/model")[1]["version"] == version)


def test_what_the_worker_makes_is_for_the_group_alone(lasting_server: Server) -> None:
    (worker,) = psutil.Process(lasting_server.process.pid).children()

    status = Path(f"/proc/{worker.pid}/status").read_text()
    assert "Umask:\t0007\n" in status


def test_only_reload_mode_loads_a_promoted_model(
    sqlite_environment: dict[str, str], models_dir: Path, make_version: Callable[..., str], tmp_path: Path
) -> None:
    with running({**sqlite_environment, "ROLLOUT_MODE": "restart"}, tmp_path / "log") as server:
        before = server.get("/model")[1]["version"]
        promote(models_dir, make_version(models_dir, seed=1), actor="test", reason="better")
        time.sleep(2.5)

        assert server.get("/model")[1]["version"] == before


# -- what cannot start -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wrong", "status", "message"),
    [
        ({"API_TOKEN": ""}, 2, "API_TOKEN is not set"),
        ({"PORT": "high"}, 2, "PORT: expected a whole number"),
        ({"HOST": "nowhere.invalid"}, 2, "HOST: nowhere.invalid is no address of this machine"),
        ({"HOST": "192.0.2.1"}, 2, "HOST: 192.0.2.1 is no address of this machine"),
        ({"HOST": "2001:db8::1"}, 2, "HOST: 2001:db8::1 is no address of this machine"),
        ({"FEATURES_FILE": "nowhere.json"}, 2, "nowhere.json: cannot be read"),
        ({"MODEL_PATH": "nowhere/rf_model.pkl"}, 3, "fraudctl bootstrap"),
    ],
)
def test_a_server_that_cannot_start_says_why_and_ends(
    sqlite_environment: dict[str, str], tmp_path: Path, wrong: dict[str, str], status: int, message: str
) -> None:
    server = launch({**sqlite_environment, **wrong}, tmp_path / "log")

    assert server.process.wait(PATIENCE_SECONDS) == status
    said = server.log.read_text()
    assert "fraud-detection cannot start: " in said
    assert message in said
    assert "Traceback" not in said


@pytest.mark.parametrize(
    ("host", "reached"), [("::", ["[::1]", "127.0.0.1"]), ("[::]", ["[::1]", "127.0.0.1"]), ("[::1]", ["[::1]"])]
)
def test_an_address_of_ipv6_serves_both_ports(
    sqlite_environment: dict[str, str], tmp_path: Path, host: str, reached: list[str]
) -> None:
    """And every address serves both families."""
    server = launch({**sqlite_environment, "HOST": host}, tmp_path / "log")
    urls = [
        f"http://{address}:{port_and_path}"
        for address in reached
        for port_and_path in (f"{server.port}/health", f"{server.probe_port}/livez")
    ]

    try:
        server.wait_until(lambda: all(answers(url) for url in urls))
    finally:
        server.process.terminate()
        server.process.wait(PATIENCE_SECONDS)


@pytest.mark.parametrize("variable", ["PORT", "PROBE_PORT"])
def test_two_installations_that_name_the_same_port_find_out(
    sqlite_environment: dict[str, str], tmp_path: Path, lasting_server: Server, variable: str
) -> None:
    port = lasting_server.port if variable == "PORT" else lasting_server.probe_port

    second = launch({**sqlite_environment, variable: str(port)}, tmp_path / "log")

    assert second.process.wait(PATIENCE_SECONDS) == 2
    said = second.log.read_text()
    assert f"{variable}: {port} on 127.0.0.1 cannot be opened (Address already in use)" in said
    assert "Traceback" not in said
    assert lasting_server.is_ready()


@pytest.mark.parametrize("variable", ["FEATURES_FILE", "API_TOKENS_FILE"])
def test_a_wrong_file_of_the_configuration_is_named_before_a_port_is_opened(
    sqlite_environment: dict[str, str], tmp_path: Path, lasting_server: Server, variable: str
) -> None:
    wrong = {"PORT": str(lasting_server.port), variable: "nowhere"}

    second = launch({**sqlite_environment, **wrong}, tmp_path / "log")

    assert second.process.wait(PATIENCE_SECONDS) == 2
    assert "fraud-detection cannot start: " in second.log.read_text()
    assert "nowhere: cannot be read (No such file or directory)" in second.log.read_text()


def test_one_port_for_both_is_refused(sqlite_environment: dict[str, str], tmp_path: Path) -> None:
    port = free_port()
    server = launch({**sqlite_environment, "PORT": port, "PROBE_PORT": port}, tmp_path / "log")

    assert server.process.wait(PATIENCE_SECONDS) == 2
    assert f"PROBE_PORT: expected another port than PORT, got {port}" in server.log.read_text()


@pytest.mark.parametrize(
    ("arguments", "variables", "message"),
    [
        ([], {"GUNICORN_CMD_ARGS": "--workers 3"}, "GUNICORN_CMD_ARGS is set, and the API cannot work with it"),
        (["--workers", "3"], {}, "gunicorn's setting workers is 3, and the API needs 1."),
        (["--preload"], {}, "gunicorn's setting preload_app is True, and the API needs False."),
        (["--worker-class", "sync"], {}, "gunicorn's setting worker_class is"),
        (["--bind", "127.0.0.1:80"], {}, "use HOST, PORT and PROBE_PORT"),
    ],
)
def test_settings_of_gunicorn_that_break_a_promise_are_refused(
    sqlite_environment: dict[str, str],
    tmp_path: Path,
    arguments: list[str],
    variables: dict[str, str],
    message: str,
) -> None:
    server = launch({**sqlite_environment, **variables}, tmp_path / "log", *arguments)

    assert server.process.wait(PATIENCE_SECONDS) == 2
    said = server.log.read_text()
    assert message in said
    assert "Traceback" not in said
    assert not Path(sqlite_environment["LATEST_DB"]).exists()


def test_a_configuration_file_of_gunicorn_beside_it_changes_nothing(
    lasting_environment: dict[str, str], tmp_path: Path
) -> None:
    (tmp_path / "gunicorn.conf.py").write_text("workers = 3\ntimeout = 1\n")
    environment = {
        **lasting_environment, "LATEST_DB": str(tmp_path / "requests.db"), "PYTHONPATH": str(ROOT)
    }  # fmt: skip
    with running(environment, tmp_path / "log", folder=tmp_path) as server:
        workers = psutil.Process(server.process.pid).children()

    assert len(workers) == 1


def test_without_our_settings_of_gunicorn_nothing_serves(sqlite_environment: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "gunicorn.conf.py").write_text(f"workers = 3\nbind = '127.0.0.1:{free_port()}'\n")
    environment = {"PATH": os.environ["PATH"], **sqlite_environment, "PYTHONPATH": str(ROOT)}

    ended = subprocess.run(
        [sys.executable, "-m", "gunicorn", "--no-control-socket", "api.wsgi:serve()"],
        cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=PATIENCE_SECONDS, check=False,
    )  # fmt: skip

    assert ended.returncode != 0
    assert "the API needs its own settings of gunicorn; start it with `python -m api`" in ended.stderr
    assert not Path(sqlite_environment["LATEST_DB"]).exists()


def test_storage_that_cannot_recover_ends_the_server_with_70(
    connect: Connect, server: Server, sqlite_environment: dict[str, str]
) -> None:
    database = Path(sqlite_environment["LATEST_DB"])
    (worker,) = psutil.Process(server.process.pid).children()
    connection = connect(server)
    assert connection.send(post()).answer()[0] == 200
    engine = open_engine(database, read_only=True)
    with engine.connect():  # while another connection is open, SQLite does not restart the log
        no_further = Path(f"{database}-wal").stat().st_size
        worker.rlimit(psutil.RLIMIT_FSIZE, (no_further, resource.RLIM_INFINITY))

        status, _, body = connection.send(post()).answer()
        connection.send(post())

        assert (status, json.loads(body)["error"]["code"]) == (503, "storage_failed")
        assert server.process.wait(PATIENCE_SECONDS) == 70
    engine.dispose()


def test_a_database_that_vanishes_is_answered_503_and_no_start_hides_it(
    connect: Connect, server: Server, sqlite_environment: dict[str, str], tmp_path: Path
) -> None:
    connection = connect(server)
    request_id = json.loads(connection.send(post()).answer()[2])["request_id"]
    label = {"request_id": request_id, "row": 0, "is_fraud": True, "source": "analyst"}
    VANISHING["another database is moved over it"](Path(sqlite_environment["LATEST_DB"]))

    scored = connection.send(post()).answer()
    labelled = connection.send(post({"labels": [label]}, path="/labels")).answer()
    looked_up = server.get(f"/transactions/{request_id}:0")
    problems = server.get("/readyz", probe=True)
    server.process.terminate()  # otherwise it would wait for clients and probes
    ended = server.process.wait(PATIENCE_SECONDS)
    again = launch(sqlite_environment, tmp_path / "again")

    assert [scored[0], labelled[0], looked_up[0]] == [503, 503, 503]
    assert (problems[0], problems[1]["problems"][0]["code"]) == (503, "storage_vanished")
    assert (ended, again.process.wait(PATIENCE_SECONDS)) == (70, 3)
    assert "was replaced by another while the API served" in again.log.read_text()
    assert "Traceback" not in server.log.read_text() + again.log.read_text()
