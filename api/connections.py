"""Keeps account of the open connections: how long each may rest, what they may send, and which one goes first."""

import collections
import contextlib
import select
import socket
import time
from typing import Any, Literal

import gevent
from gunicorn.http.errors import LimitRequestHeaders
from gunicorn.http.unreader import SocketUnreader

from api.strict_json import BodyTooLarge
from fraud_detection.contract import MAX_BODY_BYTES

REQUEST_SECONDS = 5.0
ANONYMOUS_SECONDS = 10.0
ANSWER_SECONDS = 10.0
MAX_BYTES_BEING_READ = 64 * 1024 * 1024
MAX_HEAD_BYTES = 64 * 1024  # gunicorn looks through all of it whenever more arrives
MAX_REQUEST_BYTES = 8 * MAX_BODY_BYTES  # a body at the limit in chunks of one byte takes six times its size
BROUGHT_TOKEN = "fraud.brought_token"  # noqa: S105  the name of a mark that the application sets in environ

State = Literal["resting", "receiving", "working", "sending", "closing"]
"""What a connection does: only while it is "working" does the client wait for us, otherwise we wait for the client."""

Outcome = Literal["finished", "idle", "slow", "crowded", "broken", "not_http", "failed", "stopping"]
"""Why a connection ended."""


class Connections:
    """The open connections of a worker; when they reach the limit, the one that waited longest for its client goes.

    Connections that never brought a valid token go first, so that strangers displace no client. A request in work is
    never given up.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.ended: collections.Counter[Outcome] = collections.Counter()
        self.bytes_being_read = 0
        self._open: collections.OrderedDict[Connection, None] = collections.OrderedDict()

    def states(self) -> "collections.Counter[State]":
        """Return how many connections are in each state."""
        return collections.Counter(connection.state for connection in self._open)

    def resting(self) -> "list[Connection]":
        """Return the connections on which no request has begun to arrive."""
        return [connection for connection in self._open if connection.state == "resting" and connection.may_go]

    def add(self, connection: "Connection") -> None:
        """Count a new connection, and make room for the next one."""
        self._open[connection] = None
        self.make_room()

    def remove(self, connection: "Connection") -> None:
        """Count a connection that has ended, by its outcome."""
        self._open.pop(connection, None)
        self.ended[connection.outcome] += 1

    def touch(self, connection: "Connection") -> None:
        """Note that a connection begins to wait for its client anew, so that all others go before it."""
        if connection in self._open:  # not if it was told to go meanwhile
            self._open.move_to_end(connection)

    def make_room(self) -> None:
        """Tell one connection to go if there is no place for a further one; without any that may go, do nothing."""
        if len(self._open) < self.limit:
            return
        for is_known in (False, True):
            for connection in self._open:
                if connection.is_known == is_known and connection.may_go:
                    self._dismiss(connection)
                    return

    def count_bytes(self, connection: "Connection") -> None:
        """Count what a connection holds of an incomplete request; tell the slowest senders to go if it is too much."""
        self.bytes_being_read += connection.bytes_counted
        while self.bytes_being_read > MAX_BYTES_BEING_READ:
            self._dismiss(next(slow for slow in self._open if slow.bytes_counted))

    def _dismiss(self, connection: "Connection") -> None:
        del self._open[connection]
        connection.leave("crowded")


class Connection(SocketUnreader):  # type: ignore[misc]  # gunicorn ships no types
    """One client's connection; a request has REQUEST_SECONDS from its first byte to its last, even if it trickles in.

    Between two requests it may rest: for long if it once brought a valid token, because load balancers keep
    connections open, and otherwise for ANONYMOUS_SECONDS.
    """

    def __init__(self, client: Any, connections: Connections, keepalive_seconds: float) -> None:
        super().__init__(client)
        self.state: State = "resting"
        self.is_known = False
        self.is_told_to_go = False
        self.is_in_head = True
        self.outcome: Outcome = "finished"
        self.bytes_counted = 0
        self._connections = connections
        self._keepalive_seconds = keepalive_seconds
        self._rest_seconds = REQUEST_SECONDS  # a client that connects has a request
        self._deadline: float | None = None
        self._bytes_held = 0
        self._is_in_parts = False

    def expect_request(self) -> None:
        """Wait for the next request: the connection rests until its first byte arrives."""
        self._rest_seconds = self._keepalive_seconds if self.is_known else ANONYMOUS_SECONDS
        self._bytes_held = self.buf.getbuffer().nbytes  # the client sent it right behind the previous one
        self._deadline = time.monotonic() + REQUEST_SECONDS if self._bytes_held else None
        self._is_in_parts = False
        self.is_in_head = True
        self._connections.touch(self)

    def chunk(self, size_hint: int | None = None) -> bytes:
        """Receive available bytes; raises TimeoutError."""
        return self._receive_first() if self._deadline is None else self._receive_more(size_hint)

    def _receive_first(self) -> bytes:
        self.sock.settimeout(self._rest_seconds)
        self.state = "resting"
        try:
            received: bytes = super().chunk()
        except OSError as error:
            self._note_end(error, "idle")
            raise
        self.state = "working"
        self._deadline = time.monotonic() + REQUEST_SECONDS
        self._bytes_held = len(received)
        self.sock.settimeout(ANSWER_SECONDS)
        return received

    def _receive_more(self, size_hint: int | None) -> bytes:
        if not self._is_in_parts:
            self._is_in_parts = True
            self._connections.touch(self)
        if self.is_in_head and self._bytes_held > MAX_HEAD_BYTES:
            raise LimitRequestHeaders("the head of the request is too large")
        if self._bytes_held > MAX_REQUEST_BYTES:
            raise BodyTooLarge(f"expected at most {MAX_REQUEST_BYTES} bytes with the framing of the chunks, got more")
        self._require_place()
        self.bytes_counted = self._bytes_held
        self._connections.count_bytes(self)
        self._require_place()  # this one may be the slowest itself
        self.state = "receiving"
        try:
            # While bytes are waiting, receiving neither lets others have their turn nor looks at a timeout.
            gevent.sleep(0)
            left = (self._deadline or 0.0) - time.monotonic()
            if left <= 0:
                raise TimeoutError("the request did not arrive in time")
            self.sock.settimeout(left)
            received: bytes = super().chunk(size_hint)
        except OSError as error:
            self._note_end(error, "slow")
            raise
        finally:
            self._count_no_longer()
        if not received:  # the client's end, or the one that leave() made
            self._require_place()
        self.state = "working"
        self._bytes_held += len(received)
        self.sock.settimeout(ANSWER_SECONDS)
        return received

    def send(self, data: bytes) -> None:
        """Send all of it; raises TimeoutError if the client does not take it."""
        self.state = "sending"
        try:
            self.sock.sendall(data)
        except OSError as error:
            self._note_end(error, "slow")
            raise
        self.state = "working"

    @property
    def may_go(self) -> bool:
        """Whether ending the connection now breaks no request in work, and none that has just arrived."""
        return self.state != "working" and not (self.state == "resting" and self._has_arrived())

    def end(self, outcome: Outcome) -> None:
        """Note why the connection ends, unless that is known already."""
        if self.outcome == "finished":
            self.outcome = outcome

    def leave(self, outcome: Outcome) -> None:
        """End the connection from another greenlet; the one that waits for the client wakes up."""
        self.is_told_to_go = True
        self.end(outcome)
        self._count_no_longer()
        with contextlib.suppress(OSError):  # the client has closed it meanwhile
            # The other direction stays open for the answer to a body that is given up.
            self.sock.shutdown(socket.SHUT_RDWR if self.state == "sending" else socket.SHUT_RD)

    def _has_arrived(self) -> bool:
        arrived = select.poll()
        arrived.register(self.sock.fileno(), select.POLLIN)
        return bool(arrived.poll(0))

    def _count_no_longer(self) -> None:
        self._connections.bytes_being_read -= self.bytes_counted
        self.bytes_counted = 0

    def _require_place(self) -> None:
        if self.is_told_to_go:
            raise TimeoutError("the connection was told to go")

    def _note_end(self, error: OSError, too_late: Outcome) -> None:
        self._require_place()
        self.end(too_late if isinstance(error, TimeoutError) else "broken")
