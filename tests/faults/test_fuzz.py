"""The API answers every request, stores nothing that it rejects, and repeats nothing of it."""

import contextlib
import dataclasses
import json
import logging
import random
import re
import socket
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from flask.testing import FlaskClient
from psutil import Process

from api.app import Api, create_app
from fraud_detection.features import InvalidTransactions, default_features
from fraud_detection.settings import ApiSettings
from fraud_detection.store import Store, history
from fraud_detection.store.decisions import ScoredRequest
from tests.support.environment import TOKEN
from tests.support.service import service

pytestmark = pytest.mark.faults

SEED = 20260822
IN_PROCESS = 18_000
THROUGH_A_SOCKET = 2_000
CANARY = "CANARY7f3a"
NO_NAME = f"{CANARY} "  # an unknown field is named in the answer, unless no feature can have its name
MEMORY_GROWTH_BYTES = 50 * 1024 * 1024

FEATURES = default_features()
RIGHT_NUMBERS = ["0", "-0.0", "5e-324", "3.6", "-3.6", "7", "1E1", "1e-400", "0." + "3" * 400]
NOT_STRICT = [
    "NaN", "Infinity", "-Infinity", "9" * 4301, "01", "1_0", "+1", ".5", "1.", "0x1", "--1", "1e", "'1'", "undefined",
    "", "\u0661", '"\\ud800"', '"\\udc00\\ud800"', '{"a": 1, "a": 1}', '"\n"', '"\\q"', "[" * 20_000, '{"a":' * 20_000,
    f"{CANARY}", f'"{CANARY}',
]  # fmt: skip
NO_NUMBER = [
    "true", "false", "null", '"1.0"', '""', "[]", "{}", "[0.5]", '"\\u0000"', f'"{CANARY}"', f'{{"{CANARY}": 1}}',
    "1e400", "-1e400", "9" * 400, "1000000001", "-1e10", "[" * 200 + "]" * 200,
]  # fmt: skip
SOURCES = ("analyst", "chargeback", "customer", "review")


@dataclass(frozen=True)
class Case:
    """One generated request; the same seed and number make the same one."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes
    is_right: bool | None
    """True must be answered 200, False must be refused, None may be either."""


@dataclass
class Tally:
    """What was answered."""

    statuses: Counter[int] = field(default_factory=Counter)
    accepted: set[str] = field(default_factory=set)
    """Request ids that were answered 200."""
    undecided: set[str] = field(default_factory=set)
    """Request ids that were answered 503, whose rows may be stored all the same."""
    violations: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        return f"{dict(sorted(self.statuses.items()))}, {len(self.violations)} violations"

    def add(self, name: str, case: Case, status: int, answer: bytes) -> None:
        """Judge one answer."""
        self.statuses[status] += 1
        parsed = json.loads(answer) if answer.startswith(b"{") else {}
        if status == 200 and "request_id" in parsed:
            self.accepted.add(parsed["request_id"])
        if status == 503:
            self.undecided.add(parsed["error"]["request_id"])
        elif status >= 500 and status != 501:  # an unknown Transfer-Encoding, which only a socket can bring
            self.violations.append(f"{name}: answered {status}: {case}"[:2000])
        elif (case.is_right is True and status != 200) or (case.is_right is False and status < 400):
            self.violations.append(f"{name}: answered {status} {answer[:300]!r}: {case}"[:2000])
        if status >= 400 and CANARY.encode() in answer:
            self.violations.append(f"{name}: repeated what was sent: {answer[:300]!r}")

    def look_at(self, stored: Iterable[str]) -> None:
        """Compare with the request ids in the store."""
        rejected = set(stored) - self.accepted - self.undecided
        self.violations += [f"stored although it was rejected: {identifier}" for identifier in sorted(rejected)]


# -- the grammar -----------------------------------------------------------------------------------------------------


def generate(number: int) -> Case:
    """Make the case of this number."""
    rng = random.Random(f"{SEED}/{number}")  # noqa: S311  protects nothing
    make = rng.choices(
        [right, wrong_value, wrong_shape, wrong_ids, wrong_labels, wrong_header, broken_bytes, any_bytes, elsewhere],
        weights=[2, 4, 3, 2, 3, 3, 4, 1, 1],
    )[0]
    return make(rng)


def post(rng: random.Random, path: str, body: str | bytes, *, is_right: bool | None) -> Case:
    headers = {"Authorization": f"Bearer {TOKEN}", "Content-Type": "application/json"}
    if rng.random() < 0.2:
        headers["Idempotency-Key"] = f"key-{rng.getrandbits(64)}"
    content = body if isinstance(body, bytes) else body.encode("utf-8", "surrogatepass")
    return Case("POST", path, headers, content, is_right)


def row(rng: random.Random) -> list[str]:
    """Return the numbers of one right row, as JSON writes them."""
    return [rng.choice(RIGHT_NUMBERS) if rng.random() < 0.1 else repr(rng.uniform(-3, 3)) for _ in FEATURES.names]


def as_list(numbers: list[str]) -> str:
    return f"[{', '.join(numbers)}]"


def as_object(names: Iterable[str], numbers: list[str]) -> str:
    return "{" + ", ".join(f'"{name}": {number}' for name, number in zip(names, numbers, strict=True)) + "}"


def document(rows: list[str], more: str = "") -> str:
    return f'{{"data": [{", ".join(rows)}]{more}}}'


def right(rng: random.Random) -> Case:
    rows = [row(rng) for _ in range(rng.choice([1, 1, 1, 2, 7]))]
    if rng.random() < 0.3:
        body = document([as_object(FEATURES.names, numbers) for numbers in rows])
    else:
        identifiers = json.dumps([rng.choice([None, f"t{rng.getrandbits(32)}", "a/.?#%&'\""]) for _ in rows])
        body = document([as_list(numbers) for numbers in rows], f', "transaction_ids": {identifiers}')
    return post(rng, "/predict", body, is_right=True)


def wrong_value(rng: random.Random) -> Case:
    rows = [row(rng) for _ in range(rng.choice([1, 1, 3]))]
    rng.choice(rows)[rng.randrange(len(FEATURES))] = rng.choice(NOT_STRICT + NO_NUMBER)
    as_text = as_list if rng.random() < 0.6 else lambda numbers: as_object(FEATURES.names, numbers)
    return post(rng, "/predict", document([as_text(numbers) for numbers in rows]), is_right=False)


def wrong_shape(rng: random.Random) -> Case:
    numbers = row(rng)
    whole = as_list(numbers)
    named = as_object(FEATURES.names, numbers)
    body = rng.choice(
        [
            "", "{}", "[]", "null", "1", '"data"', "true", whole, f"[{whole}]", document([]), f'{{"data": {whole}}}',
            f'{{"data": {named}}}', document([as_list(numbers[1:])]), document([as_list([*numbers, "1"])]),
            document([whole, named]), document([named, whole]), document([whole] * 1001), document([whole, "[]"]),
            document([as_object(FEATURES.names[1:], numbers[1:])]),
            document([as_object([*FEATURES.names, NO_NAME], [*numbers, "1"])]),
            document([as_object([NO_NAME, *FEATURES.names[1:]], numbers)]),
            document([whole], f', "data": [{whole}]'),
            document([as_object([*FEATURES.names, FEATURES.names[0]], [*numbers, "1"])]),
            document([whole], f', "{CANARY}": 1'), document([whole], ', "data": []'), document([whole]) + CANARY,
            document([whole]) + "{}", f"[{document([whole])}]", f'{{"Data": [{whole}]}}', "\ufeff" + document([whole]),
        ]
    )  # fmt: skip
    return post(rng, "/predict", body, is_right=False)


def wrong_ids(rng: random.Random) -> Case:
    identifiers = rng.choice(
        [
            "[]", '["a", "b"]', '"a"', "{}", "1", "true", "[1]", "[true]", "[[]]", '[""]', '["a b"]', '["\\u0000"]',
            '["/a"]',
            '["\\n"]', '["\u00e9"]', '["\\ud800"]', f'["{"x" * 129}"]', f'["{CANARY} {CANARY}"]', '["\\u200b"]',
        ]
    )  # fmt: skip
    return post(rng, "/predict", document([as_list(row(rng))], f', "transaction_ids": {identifiers}'), is_right=False)


def wrong_labels(rng: random.Random) -> Case:
    fields: dict[str, Any] = {"transaction_id": CANARY, "is_fraud": rng.random() < 0.5, "source": rng.choice(SOURCES)}
    strange: list[Any] = [
        None,
        1,
        -1,
        1.5,
        2**63,
        "",
        " ",
        "\0",
        "a b",
        CANARY,
        "\u00e9" * 65,
        [],
        {},
        True,
        "9999-12-31T23:59:59Z",
    ]
    for _ in range(rng.randrange(3)):
        name = rng.choice([*fields, "row", "request_id", "reported_at", "reporter", CANARY])
        fields[name] = rng.choice(strange)
    if rng.random() < 0.2:
        fields.pop(rng.choice(list(fields)))
    labels = json.dumps([fields] * rng.choice([1, 1, 2, 1001]))
    body = rng.choice([f'{{"labels": {labels}}}'] * 5 + [labels, f'{{"labels": {labels}, "x": 1}}', '{"labels": {}}'])
    return post(rng, "/labels", body, is_right=False)  # even the right ones name no stored transaction


def wrong_header(rng: random.Random) -> Case:
    good = right(rng)
    name, value = rng.choice(
        [
            ("Authorization", ""), ("Authorization", "Bearer"), ("Authorization", f"Bearer {TOKEN}x"),
            ("Authorization", f"Basic {TOKEN}"), ("Authorization", f"Bearer {CANARY}"), ("Authorization", "\xff" * 50),
            ("Authorization", "Bearer " + "x" * 8000), ("Content-Type", ""), ("Content-Type", "text/plain"),
            ("Content-Type", "application/json; charset=utf-16"), ("Content-Type", "multipart/form-data; boundary=x"),
            ("Content-Type", CANARY), ("Content-Type", "application/json" * 100), ("Content-Encoding", "gzip"),
            ("Content-Encoding", CANARY), ("Idempotency-Key", "a b"), ("Idempotency-Key", "x" * 256),
            ("Idempotency-Key", "\xe9"), ("Idempotency-Key", f"{CANARY} x"),
        ]
    )  # fmt: skip
    return dataclasses.replace(good, headers={**good.headers, name: value}, is_right=False)


def broken_bytes(rng: random.Random) -> Case:
    good = right(rng) if rng.random() < 0.7 else wrong_labels(rng)
    body = bytearray(good.body)
    for _ in range(rng.choice([1, 1, 1, 2, 5])):
        place = rng.randrange(len(body) + 1)
        cut = place + rng.choice([0, 1, 1, 10])
        body[place:cut] = rng.choice(
            [b"", b"", rng.randbytes(1), rng.randbytes(3), b'"', b",", b"}", b"]", b"\xed\xa0\x80"]
        )
    if rng.random() < 0.1:
        body = bytearray(bytes(body).decode("utf-8", "replace").encode(rng.choice(["utf-16", "utf-16-le", "utf-32"])))
    return dataclasses.replace(good, body=bytes(body), is_right=None)


def any_bytes(rng: random.Random) -> Case:
    return post(
        rng, rng.choice(["/predict", "/labels"]), rng.randbytes(rng.choice([0, 1, 2, 10, 1000])), is_right=False
    )


def elsewhere(rng: random.Random) -> Case:
    good = right(rng)
    path = rng.choice(
        ["/predict/", "/labels/x", f"/{CANARY}", f"/transactions/{CANARY}", "/transactions/%00",
         "/transactions/%FF", "/transactions/" + "x" * 2000, "/transactions/a%20b", "/transactions/:",
         "/transactions/a:99999999999"]
    )  # fmt: skip
    return dataclasses.replace(
        good, method=rng.choice(["GET", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "BREW"]), path=path, is_right=False
    )


# -- in process ------------------------------------------------------------------------------------------------------


def send_in_process(client: FlaskClient, cases: Iterable[int], tally: Tally) -> None:
    for number in cases:
        case = generate(number)
        answer = client.open(case.path, method=case.method, headers=case.headers, data=case.body)
        tally.add(f"case {number} of seed {SEED}", case, answer.status_code, answer.data)


def stored_requests(location: Path) -> list[str]:
    store = Store.open(location, FEATURES, read_only=True)
    with store.begin() as connection:
        identifiers: list[str] = history.read(store, connection).request_id.tolist()
    store.close()
    return identifiers


@pytest.fixture
def api(sqlite_environment: dict[str, str]) -> Iterator[Api]:
    started = create_app(ApiSettings.from_env(sqlite_environment))
    yield started
    started.close()


def test_nothing_brings_it_down_in_process(
    api: Api, sqlite_environment: dict[str, str], caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    client, tally = api.test_client(), Tally()
    send_in_process(client, range(1000), tally)  # caches and connections are filled once, which is no growth
    memory_before = Process().memory_info().rss

    with caplog.at_level(logging.WARNING):
        send_in_process(client, range(1000, IN_PROCESS), tally)

    grown = Process().memory_info().rss - memory_before
    tally.look_at(stored_requests(Path(sqlite_environment["LATEST_DB"])))
    with capsys.disabled():
        print(f"\n  {IN_PROCESS} in process: {tally}, {grown / 2**20:.1f} MiB more memory")
    assert tally.violations == []
    assert [record.getMessage() for record in caplog.records if record.levelno >= logging.ERROR] == []
    assert CANARY not in caplog.text
    assert grown < MEMORY_GROWTH_BYTES


# -- through a socket ------------------------------------------------------------------------------------------------


def as_http(rng: random.Random, case: Case) -> tuple[bytes, bool]:
    """Return a request as bytes, and whether they are correct HTTP."""
    lines = [
        f"{case.method} {case.path} HTTP/1.1",
        "Host: x",
        *(f"{name}: {text}" for name, text in case.headers.items()),
    ]
    if rng.random() < 0.5:
        framing, body = f"Content-Length: {len(case.body)}", case.body
    else:
        framing, body = "Transfer-Encoding: chunked", as_chunks(rng, case.body)
    head = bytearray("\r\n".join([*lines, framing]).encode("latin-1") + b"\r\n\r\n")
    if rng.random() < 0.5:
        return bytes(head) + body, True
    for _ in range(rng.choice([1, 1, 3])):
        place = rng.randrange(len(head) - 1)
        cut = place + rng.choice([0, 1, 1, 5])
        head[place:cut] = rng.choice(
            [b"", rng.randbytes(1), rng.randbytes(4), b"\r", b"\n", b"\r\n", b"\0", b":", b" ", b"X-A: b\r\n" * 101,
             b"a" * 9000, b"\r\nContent-Length: 5", b"\r\nTransfer-Encoding: x", b"\r\nExpect: 100-continue"]
        )  # fmt: skip
    return bytes(head) + body[: rng.choice([None, None, len(body) // 2])], False


def as_chunks(rng: random.Random, body: bytes) -> bytes:
    chunks, place = [], 0
    while place < len(body):
        size = rng.choice([1, 10, 1000, 65536])
        part = body[place : place + size]
        chunks.append(b"%x\r\n%b\r\n" % (len(part), part))
        place += size
    return b"".join(chunks) + b"0\r\n\r\n"


def exchange(port: int, sent: bytes) -> bytes:
    """Send bytes, say that no more will come, and return everything until the server hangs up."""
    with socket.create_connection(("127.0.0.1", port), timeout=30) as connection:
        with contextlib.suppress(OSError):  # the server has rejected it already, and its answer can still be read
            connection.sendall(sent)
            connection.shutdown(socket.SHUT_WR)
        received = b""
        while part := connection.recv(65536):
            received += part
    return received


def answers(received: bytes) -> list[tuple[int, bytes]]:
    """Split the bytes of one connection into statuses and bodies."""
    found = []
    while match := re.match(rb"HTTP/1\.1 (\d+) .*?\r\n\r\n", received, re.DOTALL):
        received = received[match.end() :]
        length = re.search(rb"\r\nContent-Length: (\d+)", match[0])
        size = int(length[1]) if length else 0
        if match[1] != b"100":
            found.append((int(match[1]), received[:size]))
        received = received[size:]
    return found


def test_nothing_brings_it_down_through_a_socket(
    sqlite_environment: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tally, log = Tally(), tmp_path / "log"
    started = service(sqlite_environment, log)

    with started.running() as process:
        for number in range(IN_PROCESS, IN_PROCESS + THROUGH_A_SOCKET):
            case = generate(number)
            rng = random.Random(number)  # noqa: S311  protects nothing
            if rng.random() < 0.1:
                case = dataclasses.replace(case, path=f"/{case.path}", is_right=False)  # a path has one spelling
            sent, is_http = as_http(rng, case)
            name = f"case {number} of seed {SEED}: {sent[:500]!r}"
            received = answers(exchange(started.port, sent))
            if is_http and not received:  # only a header without an end may get no answer
                tally.violations.append(f"{name}: no answer")
            for status, body in received:
                expected = case if is_http else dataclasses.replace(case, is_right=None)
                tally.add(name, expected, status, body)
        assert process.poll() is None

    tally.look_at(stored_requests(Path(sqlite_environment["LATEST_DB"])))
    with capsys.disabled():
        print(f"\n  {THROUGH_A_SOCKET} through a socket: {tally}")
    assert tally.violations == []
    assert "Traceback" not in log.read_text()
    assert CANARY not in log.read_text()


# -- the test of the test --------------------------------------------------------------------------------------------


def test_a_parser_that_lets_errors_through_is_found(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("api.strict_json.parse", json.loads)
    tally = Tally()

    send_in_process(api.test_client(), range(500), tally)

    assert any("answered 500" in violation for violation in tally.violations)


def test_a_parser_that_accepts_too_much_is_found(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fraud_detection.strict_json._DECODER", json.JSONDecoder())  # the last of two equal keys wins
    tally = Tally()

    send_in_process(api.test_client(), range(500), tally)

    assert any("answered 200" in violation for violation in tally.violations)


def test_a_rejected_request_that_is_stored_is_found(
    api: Api, sqlite_environment: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    store = api.writer.append

    def store_and_refuse(request: ScoredRequest) -> Any:
        store(request)
        raise InvalidTransactions("too late")

    monkeypatch.setattr(api.writer, "append", store_and_refuse)
    tally = Tally()

    send_in_process(api.test_client(), range(100), tally)

    tally.look_at(stored_requests(Path(sqlite_environment["LATEST_DB"])))
    assert any(violation.startswith("stored although") for violation in tally.violations)
