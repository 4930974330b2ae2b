"""1,500 idle connections and 300 slow bodies do not make other clients wait."""

import contextlib
import dataclasses
import multiprocessing
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import Executor, ProcessPoolExecutor
from pathlib import Path
from statistics import median

import pytest

from api import connections
from api.app import Api
from api.wsgi import serve
from bench.load import BrokenServer, drive, question
from tests.support.environment import TOKEN
from tests.support.service import Service, service

pytestmark = [pytest.mark.faults, pytest.mark.alone]

ROUNDS = 3
SECONDS = 5.0
SETTLING_SECONDS = 2.0  # before the quiet window: connections of the previous crowd end, and caches fill
IDLE = 1500
SLOW = 300
CLIENTS = 2
AT_MOST_TIMES = 2.0

PLACES = ["prlimit", "--nofile=1956:1956"]
"""Leaves the server 1,700 places for connections, fewer than the crowd wants."""

ATTACKER = """
import heapq, random, selectors, socket, sys, time

port, idle, slow, token = int(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), sys.argv[4]
half_a_request = (
    "POST /predict HTTP/1.1\\r\\nHost: x\\r\\nContent-Type: application/json\\r\\n"
    f"Authorization: Bearer {token}\\r\\nContent-Length: 100000\\r\\n\\r\\n" + '{"data": [['
).encode()
selector = selectors.DefaultSelector()
to_open = []

def open_one(says):
    connection = socket.create_connection(("127.0.0.1", port))
    connection.sendall(says)
    connection.setblocking(False)
    selector.register(connection, selectors.EVENT_READ, says)

for number in range(idle + slow):
    open_one(b"" if number < idle else half_a_request)
print("open", flush=True)
while True:
    for key, _ in selector.select(timeout=0.01):
        try:
            if key.fileobj.recv(65536):
                continue
        except OSError:
            pass
        selector.unregister(key.fileobj)
        key.fileobj.close()
        # What the server closes, the attacker opens again, within two seconds.
        heapq.heappush(to_open, (time.monotonic() + random.uniform(0, 2), key.data))
    while to_open and to_open[0][0] < time.monotonic():
        open_one(heapq.heappop(to_open)[1])
"""


@contextlib.contextmanager
def crowd(port: int) -> Iterator[None]:
    """Hold the idle connections and the slow bodies open, from another process, until the block ends."""
    attacker = subprocess.Popen(
        ["prlimit", "--nofile=4096:4096", sys.executable, "-c", ATTACKER, str(port), str(IDLE), str(SLOW), TOKEN],
        stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        assert attacker.stdout is not None
        assert attacker.stdout.readline() == "open\n"
        yield
    finally:
        attacker.kill()
        attacker.communicate()


def times_as_slow(port: int, rounds: int) -> list[float]:
    """Return how many times as slow the slowest request in a hundred is in the crowd as without it, for each round.

    Every request opens a connection of its own, as a client does that comes while the crowd is there.
    """
    asked = question([[0.5] * 29], [], token=TOKEN)
    asked = dataclasses.replace(asked, payload=asked.payload.replace(b"\r\n", b"\r\nConnection: close\r\n", 1))

    def slowest(client: Executor, seconds: float = SECONDS) -> float:
        seen = client.submit(drive, port, [asked], connections=CLIENTS, seconds=seconds).result()
        assert {answer.status for answer in seen.answers} == {200}
        return seen.percentile_ms(99)

    ratios = []
    # In a process of its own, because the memory and the threads of a whole run of tests make a client stutter.
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as client:
        for _ in range(rounds):
            slowest(client, SETTLING_SECONDS)
            quiet = slowest(client)
            with crowd(port):
                ratios.append(slowest(client) / quiet)
    return ratios


@pytest.fixture
def installed(sqlite_environment: dict[str, str], tmp_path: Path) -> Service:
    return service(sqlite_environment, tmp_path / "log")


def test_a_crowd_of_idle_connections_and_slow_bodies_makes_no_other_client_wait(installed: Service) -> None:
    with installed.running(under=PLACES):
        ratios = times_as_slow(installed.port, ROUNDS)

    print("times as slow in the crowd:", *(f"{ratio:.2f}" for ratio in ratios))
    assert median(ratios) <= AT_MOST_TIMES


def serve_without_making_room() -> Api:
    """Serve as a server does that accepts no connection while all places are taken."""
    connections.Connections.make_room = lambda _self: None  # type: ignore[assignment, method-assign]
    return serve()


def test_control_a_server_that_makes_no_room_lets_them_wait(installed: Service) -> None:
    with installed.running("tests.faults.test_crowd:serve_without_making_room()", under=PLACES):
        try:
            (ratio,) = times_as_slow(installed.port, 1)
        except BrokenServer:
            return

    assert ratio > AT_MOST_TIMES
