"""The largest requests that the API takes, many at once, keep it below 512 MiB and alive, and none is stored unsaid."""

import collections
import concurrent.futures
import contextlib
import http.client
import json
import re
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pysqlite3
import pytest

from fraud_detection.contract import (
    MAX_BODY_BYTES,
    MAX_COUNTED,
    MAX_FOUND,
    MAX_LABEL_ROWS,
    MAX_LABELS,
    MAX_ROWS,
    MAX_ROWS_PER_LABEL,
)
from fraud_detection.features import FeatureList, default_features
from fraud_detection.store import Store, decisions
from tests.support.environment import TOKEN
from tests.support.service import Service, family, service
from tests.support.transactions import scored
from tests.support.waiting import PATIENCE_SECONDS, wait_until

pytestmark = [pytest.mark.faults, pytest.mark.alone]

LIMIT_BYTES = 512 * 1024 * 1024
ROWS = 80_000
AT_ONCE = 6
MANY_AT_ONCE = 40
IN_FLIGHT = 256
HEADERS = {"Authorization": f"Bearer {TOKEN}", "Content-Type": "application/json"}
WITHOUT_A_LIMIT = f"""
import sys
from fraud_detection import contract
contract.MAX_FOUND = {ROWS}
from gunicorn.app.wsgiapp import run
sys.argv[:] = ["gunicorn", *sys.argv[4:]]
run()
"""


def filled_with(item: bytes, head: bytes = b"[", tail: bytes = b"]") -> bytes:
    """Return JSON that repeats an item until the body is as large as the API takes it."""
    return head + b",".join([item] * ((MAX_BODY_BYTES - len(head) - len(tail)) // (len(item) + 1))) + tail


NAMES = b",".join(b'"%x":0' % number for number in range(MAX_BODY_BYTES // 10))
TEXTS = b",".join(b'"%x"' % number for number in range(MAX_BODY_BYTES // 9))
BODIES = {
    "empty lists": filled_with(b"[]"),
    "lists in lists": filled_with(b"[[]]"),
    "lists in data": filled_with(b"[]", b'{"data":[', b"]}"),
    "lists after an escape": filled_with(b"[]", b'["\\u4e00",'),
    "deep lists": filled_with(b"[" * 900 + b"]" * 900),
    "one deep list": b"[" * MAX_BODY_BYTES,
    "objects": filled_with(b'{"":0}'),
    "lists in objects": filled_with(b'{"":[]}'),
    "objects as labels": filled_with(b"{}", b'{"labels":[', b"]}"),
    "one wide object": b"{" + NAMES + b"}",
    "one wide row": b'{"data":[{' + NAMES + b"}]}",
    "short texts": b"[" + TEXTS + b"]",
    "texts as ids": b'{"data":[[0]],"transaction_ids":[' + TEXTS + b"]}",
    "letters": filled_with('"\u4e00"'.encode()),
    "one text": b'"' + b"a" * (MAX_BODY_BYTES - 6) + "\U0001f600".encode() + b'"',
    "escapes": b'"' + b"\\u4e00" * ((MAX_BODY_BYTES - 2) // 6) + b'"',
    "floats": filled_with(b"1e9"),
    "integers": filled_with(b"1" * 4300),
    "digits": b"1" * MAX_BODY_BYTES,
    "spaces": b" " * (MAX_BODY_BYTES - 1) + b"0",
}


class Running:
    """The real service, with what it takes to ask it many things at once and to measure its memory."""

    def __init__(self, started: Service, process: "subprocess.Popen[bytes]") -> None:
        self.started = started
        self._pids = [member.pid for member in family(process)]

    def ask(self, method: str, path: str, body: bytes | None = None) -> tuple[int, bytes]:
        """Return status and body of the answer; 0 if the API closed the connection, which was too slow for it."""
        with self.started.connection() as connection:
            try:
                connection.request(method, path, body, HEADERS)
                answer = connection.getresponse()
                return answer.status, answer.read()
            except ConnectionError:
                return 0, b""

    def score(self, transaction_ids: list[str]) -> int:
        """Score a transaction for each id, and return the status."""
        body = {"data": [[0.0] * 29] * len(transaction_ids), "transaction_ids": transaction_ids}
        return self.ask("POST", "/predict", json.dumps(body).encode())[0]

    def together(self, asks: list[Callable[[], tuple[int, bytes]]]) -> list[tuple[int, bytes]]:
        """Ask everything at once, each over a connection of its own."""
        with concurrent.futures.ThreadPoolExecutor(len(asks)) as threads:
            return [asked.result() for asked in [threads.submit(ask) for ask in asks]]

    @contextlib.contextmanager
    def peak(self) -> Iterator[list[int]]:
        """Give, when the block has ended, the most memory (VmHWM) that a process of the service had within it."""
        for pid in self._pids:
            Path(f"/proc/{pid}/clear_refs").write_text("5")  # the peak begins anew
        found: list[int] = []
        yield found
        statuses = [Path(f"/proc/{pid}/status").read_text() for pid in self._pids]
        found.append(
            max(int(kibibytes) * 1024 for status in statuses for kibibytes in re.findall(r"VmHWM:\s+(\d+)", status))
        )

    @contextlib.contextmanager
    def probed(self) -> Iterator[collections.Counter[int]]:
        """Ask /livez again and again until the block ends, and count the statuses."""
        statuses: collections.Counter[int] = collections.Counter()
        is_over = threading.Event()

        def probe() -> None:
            port = int(self.started.environment["PROBE_PORT"])
            while not is_over.wait(0.1):
                with contextlib.closing(
                    http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE_SECONDS)
                ) as asked:
                    asked.request("GET", "/livez")
                    statuses[asked.getresponse().status] += 1

        thread = threading.Thread(target=probe)
        thread.start()
        try:
            yield statuses
        finally:
            is_over.set()
            thread.join()


@contextlib.contextmanager
def running(environment: dict[str, str], log: Path, *, under: tuple[str, ...] = ()) -> Iterator[Running]:
    started = service(environment, log)
    with started.running(under=under) as process:
        yield Running(started, process)


@pytest.fixture
def served(sqlite_environment: dict[str, str], tmp_path: Path) -> Iterator[Running]:
    with running(sqlite_environment, tmp_path / "server.log") as api:
        yield api


@pytest.fixture
def crowded(sqlite_environment: dict[str, str], features: FeatureList) -> dict[str, str]:
    """An installation whose store has 80,000 rows under the id `t`."""
    store = Store.create_or_migrate(Path(sqlite_environment["LATEST_DB"]), features)
    for _ in range(ROWS // MAX_ROWS):
        with store.begin() as connection:
            decisions.append(store, connection, [scored(MAX_ROWS, transaction_ids=["t"] * MAX_ROWS)])
    store.close()
    return sqlite_environment


def look_up_together(api: Running) -> tuple[list[tuple[int, bytes]], int]:
    with api.peak() as peak:
        answers = api.together([partial(api.ask, "GET", "/transactions/t")] * AT_ONCE)
    print(f"{AT_ONCE} look-ups of {ROWS} rows: {peak[0] / 2**20:.0f} MiB")
    return answers, peak[0]


def test_look_ups_of_one_id_with_many_rows(crowded: dict[str, str], tmp_path: Path) -> None:
    with running(crowded, tmp_path / "server.log") as api:
        answers, peak = look_up_together(api)
    with running(crowded, tmp_path / "control.log", under=(sys.executable, "-c", WITHOUT_A_LIMIT)) as api:
        control, peak_without_a_limit = look_up_together(api)

    found = [json.loads(body) for _, body in answers]
    assert {(len(each["others"]), each["total_count"]) for each in found} == {(MAX_FOUND - 1, min(ROWS, MAX_COUNTED))}
    assert peak < LIMIT_BYTES
    assert len(json.loads(control[0][1])["others"]) == ROWS - 1
    assert peak_without_a_limit > LIMIT_BYTES


def test_bodies_that_are_large_when_parsed(served: Running) -> None:
    peaks = {}
    for path in ("/predict", "/labels"):
        for name, body in BODIES.items():
            assert len(body) <= MAX_BODY_BYTES
            with served.peak() as peak:
                answers = served.together([partial(served.ask, "POST", path, body)] * MANY_AT_ONCE)
            assert {status for status, _ in answers} <= {0, 400, 408, 422, 503}
            peaks[path, name] = peak[0]
    worst = max(peaks, key=lambda name: peaks[name])
    print(f"{MANY_AT_ONCE} bodies at once: at most {peaks[worst] / 2**20:.0f} MiB, with {worst}")

    assert [name for name, peak in peaks.items() if peak >= LIMIT_BYTES] == []


def test_as_many_whole_requests_as_may_be_in_flight(served: Running) -> None:
    row = json.dumps(dict.fromkeys(default_features().names, -1.2345678901234567e-300)).encode()
    labels = [label(f"{number:03}".rjust(128, "x"), reporter="r" * 64) for number in range(MAX_LABELS)]
    rows = b", ".join([row] * min(MAX_ROWS, MAX_BODY_BYTES // (len(row) + 2) - 1))
    bodies = {"/predict": b'{"data": [' + rows + b"]}", "/labels": json.dumps({"labels": labels}).encode()}

    for path, body in bodies.items():
        with served.peak() as peak:
            answers = served.together([partial(served.ask, "POST", path, body)] * IN_FLIGHT)
        statuses = collections.Counter(status for status, _ in answers)
        print(f"{IN_FLIGHT} whole requests to {path}: {peak[0] / 2**20:.0f} MiB, {dict(statuses)}")

        assert peak[0] < LIMIT_BYTES


def label(transaction_id: str, *, reporter: str) -> dict[str, object]:
    return {"transaction_id": transaction_id, "is_fraud": True, "source": "analyst", "reporter": reporter}


@dataclass(frozen=True)
class Labelling:
    """One request to label rows, under a reporter of its own, and its answer."""

    rows: int
    status: int
    is_unknown: bool
    """Whether the answer says that the outcome is unknown."""


def violations(sent: dict[str, Labelling], stored: dict[str, int]) -> list[str]:
    """Return the reporters whose labels are not stored as their request was answered."""
    return [
        reporter
        for reporter, request in sent.items()
        if stored.get(reporter, 0) != (request.rows if request.status == 200 else 0)
        and not (request.is_unknown and stored.get(reporter) == request.rows)
    ]


def test_labels_of_many_rows_are_stored_if_and_only_if_they_are_acknowledged(
    served: Running, sqlite_environment: dict[str, str]
) -> None:
    many = {f"many{number}": MAX_ROWS_PER_LABEL for number in range(MAX_LABEL_ROWS // MAX_ROWS_PER_LABEL)}
    single = {f"t{number}": 1 for number in range(MAX_LABELS)}
    for identifiers in ([name] * rows for name, rows in many.items()):
        assert served.score(identifiers) == 200
    assert served.score(list(single)) == 200
    wanted = {f"{number} of many": many for number in range(30)} | {
        f"{number} of single": single for number in range(6)
    }
    bodies = [
        json.dumps({"labels": [label(name, reporter=reporter) for name in names]}).encode()
        for reporter, names in wanted.items()
    ]

    with served.probed() as probes, served.peak() as peak:
        answers = served.together([partial(served.ask, "POST", "/labels", body) for body in bodies])
        wait_until(lambda: served.score(["afterwards"]) == 200)
    sent = {
        reporter: Labelling(sum(names.values()), status, b"the outcome is unknown" in body)
        for (reporter, names), (status, body) in zip(wanted.items(), answers, strict=True)
    }
    with contextlib.closing(pysqlite3.connect(sqlite_environment["LATEST_DB"])) as database:
        stored = dict(database.execute("SELECT reporter, COUNT(*) FROM labels GROUP BY reporter"))

    statuses = collections.Counter(request.status for request in sent.values())
    print(f"{len(sent)} requests to label: {dict(statuses)}, {peak[0] / 2**20:.0f} MiB, probes {dict(probes)}")
    acknowledged = next(reporter for reporter, request in sent.items() if request.status == 200)
    assert violations(sent, stored) == []
    assert violations(sent, stored | {acknowledged: 1}) == [acknowledged]
    assert probes.keys() == {200}
    assert peak[0] < LIMIT_BYTES
