"""kill -9 of master, worker or both, while eight clients write, loses no acknowledged row."""

import contextlib
import http.client
import shutil
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import psutil
import pysqlite3
import pytest

from fraud_detection.features import FeatureList
from tests.faults.invariants import Acknowledged, Expected, Sent, violations
from tests.support.service import Service, family, post, service
from tests.support.waiting import PATIENCE_SECONDS

pytestmark = pytest.mark.faults

KILLS = 60
CLIENTS = 8
CHECK_EVERY = 10


class Client(threading.Thread):
    """Sends one request after another on its own connection, and remembers requests and answers.

    Two of three requests bear an idempotency key and are sent again, under it, until they are answered.
    """

    def __init__(self, port: int, number: int) -> None:
        super().__init__(name=f"client-{number}")
        self.expected = Expected()
        self.statuses: Counter[int] = Counter()
        self.replayed = 0
        self.broken = 0
        self.stopping = threading.Event()
        self._random = np.random.default_rng(number)
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE_SECONDS)

    def run(self) -> None:
        pending: Sent | None = None
        while not self.stopping.is_set():
            request = pending or self._next()
            try:
                is_answered = self._send(request, again=pending is not None)
            except (OSError, http.client.HTTPException):
                self.broken += 1
                self._connection.close()
                time.sleep(0.05)
                is_answered = False
            pending = None if is_answered or request.idempotency_key is None else request
        self._connection.close()

    def _next(self) -> Sent:
        number = len(self.expected.sent)
        rows = self._random.normal(size=(int(self._random.integers(1, 6)), 29)).clip(-3, 3).tolist()
        key = f"{self.name}-{number}" if number % 3 else None
        request = Sent([f"{self.name}-{number}-{index}" for index in range(len(rows))], rows, key)
        self.expected.sent.append(request)
        return request

    def _send(self, request: Sent, *, again: bool) -> bool:
        headers = {} if request.idempotency_key is None else {"Idempotency-Key": request.idempotency_key}
        body = {"data": request.rows, "transaction_ids": request.transaction_ids}
        status, answer = post(self._connection, "/predict", body, headers)
        self.statuses[status] += 1
        if status != 200:
            return False
        self.replayed += again
        self.expected.acknowledged.append(Acknowledged(answer["request_id"], request, answer["fraud_probability"]))
        return True


@contextlib.contextmanager
def clients(port: int) -> Iterator[list[Client]]:
    """Run eight clients until the block ends."""
    started = [Client(port, number) for number in range(CLIENTS)]
    for client in started:
        client.start()
    try:
        yield started
    finally:
        for client in started:
            client.stopping.set()
        for client in started:
            client.join(timeout=PATIENCE_SECONDS)


def known_to(started: list[Client]) -> Expected:
    """Return what all clients together know at this moment."""
    together = Expected()
    for client in started:
        # Acknowledgements first, because every answered request was sent before.
        together.acknowledged += list(client.expected.acknowledged)
        together.sent += list(client.expected.sent)
    return together


def answered(started: list[Client]) -> int:
    return sum(len(client.expected.acknowledged) for client in started)


def kill(process: subprocess.Popen[bytes], victims: str) -> None:
    """Send SIGKILL; return when a service without its master is gone, with all that it started."""
    master, *workers = family(process)
    for victim in {"master": [master], "worker": workers, "both": [master, *workers]}[victims]:
        victim.kill()
    if victims != "worker":
        process.wait(timeout=PATIENCE_SECONDS)
        _, left = psutil.wait_procs(workers, timeout=PATIENCE_SECONDS)
        assert not left, "an orphaned worker did not end"


def wait_for_answers(started: list[Client], more: int) -> float:
    """Return after how many seconds this number of further requests was answered."""
    since = time.monotonic()
    enough = answered(started) + more
    while answered(started) < enough:
        assert time.monotonic() - since < PATIENCE_SECONDS, "the API does not answer"
        time.sleep(0.005)
    return time.monotonic() - since


@pytest.fixture
def killable(sqlite_environment: dict[str, str], tmp_path: Path) -> Service:
    return service(sqlite_environment, tmp_path / "service.log")


def test_no_acknowledged_row_is_lost(killable: Service, tmp_path: Path, features: FeatureList) -> None:
    models_dir = Path(killable.environment["MODEL_PATH"]).parent
    database = Path(killable.environment["LATEST_DB"])
    random = np.random.default_rng(1)
    recoveries = []

    copy = tmp_path / "copy" / database.name

    def check(expected: Expected) -> None:
        """Check a copy, so that the service itself has to recover from what the kill left."""
        shutil.rmtree(copy.parent, ignore_errors=True)
        copy.parent.mkdir()
        for file in database.parent.glob(f"{database.name}*"):
            shutil.copyfile(file, copy.parent / file.name)
        assert violations(copy, models_dir, features, expected) == []

    process = killable.start()
    try:
        with clients(killable.port) as started:
            for round_ in range(1, KILLS + 1):
                recoveries.append(wait_for_answers(started, CLIENTS))
                time.sleep(random.uniform(0, 0.5))
                victims = ("both", "worker", "master")[round_ % 3]
                kill(process, victims)
                if victims != "worker":
                    if round_ % CHECK_EVERY == 0:
                        check(known_to(started))
                    process = killable.start()
            wait_for_answers(started, CLIENTS)
    finally:
        kill(process, "both")
    expected = known_to(started)
    check(expected)
    lost = expected.acknowledged[0].request_id
    with contextlib.closing(pysqlite3.connect(copy)) as connection, connection:
        connection.execute("DELETE FROM requests WHERE request_id = ?", (lost,))
    (would_be_found,) = violations(copy, models_dir, features, expected)
    assert lost in would_be_found

    statuses = sum((client.statuses for client in started), Counter[int]())
    print(
        f"{KILLS} kills: {len(expected.sent)} requests sent, {len(expected.acknowledged)} acknowledged, 0 lost; "
        f"{sum(client.broken for client in started)} broken connections, "
        f"{sum(client.replayed for client in started)} answered only when sent again, statuses {dict(statuses)}; "
        f"first answers after {np.median(recoveries):.1f} s (median), {max(recoveries):.1f} s (longest)"
    )
    assert statuses.keys() <= {200, 503}
    assert statuses[200] > KILLS * CLIENTS
