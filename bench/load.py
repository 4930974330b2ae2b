"""A load generator for one core's small change: connections that each ask again as soon as they are answered.

Raw sockets, because an HTTP library would cost the client more than the request costs the server, and both share
the machine. A closed loop measures throughput and latency at a given concurrency; it cannot show overload.
"""

import contextlib
import json
import math
import select
import socket
import struct
import time
from collections.abc import Sequence
from dataclasses import dataclass

RECEIVE_BYTES = 262_144
PATIENCE_SECONDS = 30


class BrokenServer(Exception):
    """The server under test stopped answering, so there is nothing to measure."""


@dataclass(frozen=True)
class Question:
    """One HTTP request, ready to send, and the scores that a right answer holds."""

    payload: bytes
    scores: Sequence[float]


@dataclass(frozen=True)
class Answer:
    """What came back for the question with this index, and after how long."""

    question: int
    status: int
    body: bytes
    seconds: float


@dataclass(frozen=True)
class Round:
    """What one client saw of one server in one stretch of time."""

    seconds: float
    answers: list[Answer]

    @property
    def requests_per_second(self) -> float:
        """Answers with status 200 a second."""
        return len(self._latencies()) / self.seconds

    def percentile_ms(self, percent: float) -> float:
        """The latency that so many per cent of the good answers stayed within (nearest rank)."""
        latencies = sorted(self._latencies())
        return 1000 * latencies[max(0, math.ceil(len(latencies) * percent / 100) - 1)]

    def _latencies(self) -> list[float]:
        return [answer.seconds for answer in self.answers if answer.status == 200]


def question(rows: Sequence[Sequence[float]], scores: Sequence[float], *, token: str) -> Question:
    """A POST /predict with these rows, and the scores it should bring."""
    body = json.dumps({"data": rows}).encode()
    head = (
        "POST /predict HTTP/1.1\r\nHost: 127.0.0.1\r\n"
        f"Authorization: Bearer {token}\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return Question(head.encode() + body, scores)


def wrong_answers(questions: Sequence[Question], answers: Sequence[Answer]) -> int:
    """How many answers are not a 200 with the right scores (1e-6); read after the clock has stopped."""
    return sum(not _is_right(questions[answer.question], answer) for answer in answers)


def _is_right(asked: Question, answer: Answer) -> bool:
    if answer.status != 200:
        return False
    scores = json.loads(answer.body).get("fraud_probability", [])
    return len(scores) == len(asked.scores) and all(
        abs(score - expected) <= 1e-6 for score, expected in zip(scores, asked.scores, strict=True)
    )


def drive(port: int, questions: Sequence[Question], *, connections: int, seconds: float) -> Round:
    """Ask 127.0.0.1:port for so long over so many connections; answers under way at the end still count.

    Raises BrokenServer when a connection breaks or no answer comes for 30 s.
    """
    with contextlib.ExitStack() as open_connections:
        callers = [
            open_connections.enter_context(contextlib.closing(_Caller(port, questions, first=index, step=connections)))
            for index in range(connections)
        ]
        return _in_a_loop(callers, seconds)


def _in_a_loop(callers: "Sequence[_Caller]", seconds: float) -> Round:
    by_descriptor = {caller.descriptor: caller for caller in callers}
    answers: list[Answer] = []
    with select.epoll() as ready:
        for descriptor in by_descriptor:
            ready.register(descriptor, select.EPOLLIN)
        start = time.perf_counter()
        for caller in callers:
            caller.ask()
        asking = len(callers)
        while asking:
            events = ready.poll(PATIENCE_SECONDS)
            if not events:
                raise BrokenServer(f"no answer for {PATIENCE_SECONDS} s")
            for descriptor, _ in events:
                caller = by_descriptor[descriptor]
                answer = caller.receive()
                if answer is None:
                    continue
                answers.append(answer)
                if caller.must_reconnect:
                    del by_descriptor[descriptor]
                    caller.close()  # which also takes it out of the poll
                    caller.connect()
                    by_descriptor[caller.descriptor] = caller
                    ready.register(caller.descriptor, select.EPOLLIN)
                if time.perf_counter() - start < seconds:
                    caller.ask()
                else:
                    asking -= 1
        return Round(time.perf_counter() - start, answers)


class _Caller:
    """One connection with at most one request under way."""

    def __init__(self, port: int, questions: Sequence[Question], *, first: int, step: int) -> None:
        self.must_reconnect = False
        self._port = port
        self._questions = questions
        self._next = first % len(questions)
        self._step = step
        self.connect()

    @property
    def descriptor(self) -> int:
        return self._socket.fileno()

    def connect(self) -> None:
        self._socket = socket.create_connection(("127.0.0.1", self._port), timeout=PATIENCE_SECONDS)
        # A timeout of Python's would cost one more system call on every read and write.
        self._socket.settimeout(None)
        patience = struct.pack("ll", PATIENCE_SECONDS, 0)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, patience)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def close(self) -> None:
        self._socket.close()

    def ask(self) -> None:
        self._received = b""
        self._expected_bytes = 0
        self._asked = self._next
        self._next = (self._next + self._step) % len(self._questions)
        self._since = time.perf_counter()
        self._socket.sendall(self._questions[self._asked].payload)

    def receive(self) -> Answer | None:
        """Take what has arrived; None while the answer is not complete."""
        chunk = self._socket.recv(RECEIVE_BYTES)
        if not chunk:
            raise BrokenServer(f"port {self._port} closed a connection that waited for an answer")
        self._received += chunk
        end_of_head = self._received.find(b"\r\n\r\n")
        if end_of_head < 0:
            return None
        if not self._expected_bytes:
            head = self._received[:end_of_head].lower()
            length = head.split(b"content-length:", 1)[1].split(b"\r\n", 1)[0]
            self._expected_bytes = end_of_head + 4 + int(length)
            self.must_reconnect = b"connection: close" in head
        if len(self._received) < self._expected_bytes:
            return None
        seconds = time.perf_counter() - self._since
        return Answer(self._asked, int(self._received[9:12]), self._received[end_of_head + 4 :], seconds)
