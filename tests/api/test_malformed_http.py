"""The real server rejects what is no HTTP, and HTTP with a false length of its body, over a raw socket."""

import contextlib
import json
import re
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from fraud_detection.features import FeatureList
from fraud_detection.store import Store
from tests.support.environment import TOKEN
from tests.support.service import Service, service
from tests.support.waiting import PATIENCE_SECONDS, wait_until

JSON_BODY = b'{"data": [[' + b", ".join([b"0.5"] * 29) + b"]]}"
AUTHORIZED = f"Authorization: Bearer {TOKEN}\r\nContent-Type: application/json\r\n".encode()
POST = b"POST /predict HTTP/1.1\r\nHost: x\r\n" + AUTHORIZED
GET = b"GET /health HTTP/1.1\r\nHost: x\r\n"
CHUNKED = POST + b"Transfer-Encoding: chunked\r\n\r\n"


def of_length(length: int, body: bytes) -> bytes:
    return POST + b"Content-Length: %d\r\n\r\n" % length + body


def chunk(content: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(content), content)


@pytest.fixture(scope="module")
def real_service(tmp_path_factory: pytest.TempPathFactory, lasting_environment: dict[str, str]) -> Iterator[Service]:
    """gunicorn with our worker, on a store of its own."""
    folder = tmp_path_factory.mktemp("malformed")
    environment = lasting_environment | {"LATEST_DB": str(folder / "requests.db")}
    started = service(environment, folder / "log")
    with started.running():
        yield started


def exchange(started: Service, sent: bytes) -> bytes:
    """Send bytes, say that no more will come, and return everything until the server hangs up."""
    with socket.create_connection(("127.0.0.1", started.port), timeout=PATIENCE_SECONDS) as connection:
        with contextlib.suppress(OSError):  # the server has rejected it already, and its answer can still be read
            connection.sendall(sent)
            connection.shutdown(socket.SHUT_WR)
        received = b""
        while part := connection.recv(65536):
            received += part
    return received


def rows(started: Service, features: FeatureList) -> int:
    store = Store.open(Path(started.environment["LATEST_DB"]), features, read_only=True)
    with store.begin() as connection:
        stored = store.count_rows(connection)
    store.close()
    return stored


MALFORMED = [
    ("length and chunks", POST + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
    ("two lengths", POST + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\n12345", 400),
    ("a list of lengths", POST + b"Content-Length: 5, 5\r\n\r\n12345", 400),
    ("negative length", POST + b"Content-Length: -1\r\n\r\n", 400),
    ("length with a plus", POST + b"Content-Length: +5\r\n\r\n12345", 400),
    ("length in hexadecimal", POST + b"Content-Length: 0x5\r\n\r\n12345", 400),
    ("unknown transfer coding", POST + b"Transfer-Encoding: br\r\n\r\n", 501),
    ("compressed chunks", POST + b"Transfer-Encoding: gzip, chunked\r\n\r\n3\r\n\x1f\x8b\x08\r\n0\r\n\r\n", 400),
    ("a coding that does not end", POST + b"Transfer-Encoding: gzip\r\n\r\n", 400),
    ("chunked twice", POST + b"Transfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n", 400),
    ("NUL in a header", GET + b"X-A: b\0c\r\n\r\n", 400),
    ("bare CR in a header", GET + b"X-A: b\rc\r\n\r\n", 400),
    ("blank before the colon", GET + b"X-A : b\r\n\r\n", 400),
    ("a folded header", GET + b"X-A: b\r\n c\r\n\r\n", 400),
    ("a header without a colon", GET + b"X-A\r\n\r\n", 400),
    ("101 headers", GET + b"".join(b"X-%d: a\r\n" % number for number in range(100)) + b"\r\n", 431),
    ("a header of 9 kB", GET + b"X-A: " + b"a" * 9000 + b"\r\n\r\n", 431),
    ("an address of 5 kB", b"GET /" + b"a" * 5000 + b" HTTP/1.1\r\nHost: x\r\n\r\n", 414),
    ("no version", b"GET /health\r\n\r\n", 400),
    ("another version", b"GET /health HTTP/9.9\r\nHost: x\r\n\r\n", 400),
    ("no words at all", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\r\n\r\n", 400),
    ("an unknown expectation", GET + b"Expect: the unexpected\r\n\r\n", 417),
    ("an empty chunk size", CHUNKED + b"\r\n", 400),
    ("a chunk size that is none", CHUNKED + b"xyz\r\n", 400),
    ("a negative chunk size", CHUNKED + b"-5\r\n12345\r\n", 400),
    ("a chunk longer than it says", CHUNKED + b"1\r\n12345\r\n0\r\n\r\n", 400),
    ("chunks that break off", CHUNKED + b"ff\r\n{", 400),
    ("chunks without an end", CHUNKED + chunk(JSON_BODY), 400),
    ("a body that breaks off", of_length(1000, JSON_BODY), 400),
    ("10 GB declared", of_length(10_000_000_000, b"{"), 413),
    ("a byte more than the limit", of_length(1024 * 1024 + 1, b" " * (1024 * 1024 + 1)), 413),
    ("chunks beyond the limit", CHUNKED + chunk(b" " * 65536) * 17, 413),
    ("chunks of hardly more than framing", CHUNKED + (b"1;" + b"a" * 6000 + b"\r\n \r\n") * 1500, 413),
    ("one chunk of 10 GB", CHUNKED + b"2540be400\r\n" + b" " * 2_000_000, 413),
]


@pytest.mark.parametrize(("sent", "status"), [case[1:] for case in MALFORMED], ids=[case[0] for case in MALFORMED])
def test_malformed_http_is_refused_as_json_and_the_connection_closed(
    real_service: Service, features: FeatureList, sent: bytes, status: int
) -> None:
    received = exchange(real_service, sent)

    head, _, body = received.partition(b"\r\n\r\n")
    assert re.match(rb"HTTP/1\.1 (\d+)", head).group(1) == b"%d" % status  # type: ignore[union-attr]  # or it is no HTTP
    assert json.loads(body)["error"]["request_id"].encode() in head
    assert b"\r\nX-Content-Type-Options: nosniff\r\n" in head
    assert b"\r\nContent-Security-Policy: frame-ancestors 'none'" in head
    assert rows(real_service, features) == 0


@pytest.mark.parametrize(
    "target", [b"//model", b"///model", b"/%2Fmodel", b"http://x//model", b"/model/", b"/model%2F"]
)
def test_another_spelling_of_a_path_is_unknown(real_service: Service, target: bytes) -> None:
    received = exchange(real_service, b"GET " + target + b" HTTP/1.1\r\nHost: x\r\n" + AUTHORIZED + b"\r\n")

    head, _, body = received.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 404 ")
    assert json.loads(body)["error"]["code"] == "not_found"


def test_one_request_is_not_read_as_two_requests(real_service: Service) -> None:
    smuggled = b"GET /model HTTP/1.1\r\nHost: x\r\n\r\n"

    received = exchange(
        real_service, POST + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + smuggled
    )

    assert re.findall(rb"HTTP/1\.1 (\d+)", received) == [b"400"]


def test_an_anonymous_body_is_not_waited_for(real_service: Service) -> None:
    head = b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 10000000000\r\n\r\n"
    with socket.create_connection(("127.0.0.1", real_service.port), timeout=PATIENCE_SECONDS) as connection:
        connection.sendall(head)

        received = connection.recv(65536)

        assert received.startswith(b"HTTP/1.1 401 ")
        assert connection.recv(1) == b""


@pytest.mark.parametrize(
    "sent",
    [
        of_length(len(JSON_BODY), JSON_BODY),
        CHUNKED + chunk(JSON_BODY) + b"0\r\n\r\n",
        CHUNKED + b"".join(chunk(JSON_BODY[place : place + 1]) for place in range(len(JSON_BODY))) + b"0\r\n\r\n",
        CHUNKED + b"%x;name=value\r\n%b\r\n0\r\nX-Checksum: x\r\n\r\n" % (len(JSON_BODY), JSON_BODY),
        b"\r\n" + of_length(len(JSON_BODY), JSON_BODY),
    ],
    ids=["length", "one chunk", "a chunk a byte", "extension and trailer", "an empty line before"],
)
def test_what_is_unusual_but_right_is_answered(real_service: Service, sent: bytes) -> None:
    assert exchange(real_service, sent).startswith(b"HTTP/1.1 200 ")


def test_requests_sent_in_one_go_are_answered_in_their_order(real_service: Service) -> None:
    request = of_length(len(JSON_BODY), JSON_BODY)

    received = exchange(real_service, request + GET + b"\r\n" + request + b"NONSENSE\r\n\r\n")

    assert re.findall(rb"HTTP/1\.1 (\d+)", received) == [b"200", b"200", b"200", b"400"]


def test_a_flood_of_what_is_no_http_leaves_few_lines_and_a_number(real_service: Service) -> None:
    def is_told_in_short() -> bool:
        for _ in range(50):
            exchange(real_service, b"NONSENSE\r\n\r\n")
        return re.search(r'"refused: \d+ more"', real_service.log.read_text()) is not None

    wait_until(is_told_in_short)
