"""The gunicorn worker: one greenlet per connection, so that a slow client delays no other; threads for the rest."""

import functools
import json
import logging
import mmap
import os
import resource
import sys
import threading
import time
from collections.abc import Callable
from typing import Any, NoReturn

import gevent
from gevent import socket
from gevent.event import Event
from gevent.hub import get_hub
from gevent.pool import Pool
from gevent.server import StreamServer
from gunicorn import util
from gunicorn.arbiter import Arbiter
from gunicorn.http import RequestParser, errors, wsgi
from gunicorn.workers.ggevent import GeventWorker

from api.connections import BROUGHT_TOKEN, Connection, Connections
from api.line_budget import LineBudget
from fraud_detection.clock import Clock
from fraud_detection.contract import FOR_BROWSERS

CLOSING_SECONDS = 2.0
LAST_QUESTION_SECONDS = 2.0  # closing a connection that was idle for longer hardly ever crosses a request
DRAIN_BYTES = 65_536
OTHER_DESCRIPTORS = 256  # databases, models, probes, the log: what the connections leave of the process's descriptors

logger = logging.getLogger(__name__)


class Worker(GeventWorker):  # type: ignore[misc]  # gunicorn ships no types
    """Serves a WSGI application; at the end it replies once more on each connection, and closes idle ones.

    Nothing is monkey-patched: only the sockets of clients cooperate. The application may have a method `drain`, which
    is called when no further connection is accepted, and a method `close`, which is called last. At the start, a method
    `watch_connections` is given the connections, and a method `answer_probes` every listening socket after the first.
    The application sets BROUGHT_TOKEN in the environ of a request whose client may keep its connection for long.
    """

    sockets: list[Any]

    def patch(self) -> None:
        """Make the first listening socket cooperative, and so the connections that it accepts; nothing else."""
        serving, *others = self.sockets
        self.sockets = [socket.socket(serving.FAMILY, socket.SOCK_STREAM, fileno=serving.sock.detach())]
        self._other_listeners = [other.sock for other in others]

    def init_process(self) -> None:
        """Prepare this process and serve until it receives a signal to stop."""
        self._connections = Connections(self._connection_limit())
        self._is_told_to_stop = Event()
        self._clock = Clock()
        self._refused_lines = LineBudget(lambda _name, count: logger.info("refused: %d more", count))
        super().init_process()

    def handle_exit(self, sig: int, frame: object) -> None:
        """Stop gracefully."""
        super().handle_exit(sig, frame)
        _is_ending.set()
        # The signal may have interrupted the code of the Event itself.
        get_hub().loop.run_callback_threadsafe(self._is_told_to_stop.set)

    def run(self) -> None:
        """Accept and answer connections; after the signal, close them."""
        watch_connections = getattr(self.wsgi, "watch_connections", None)
        if watch_connections is not None:
            watch_connections(self._connections)
        answer_probes = getattr(self.wsgi, "answer_probes", None)
        if answer_probes is not None:
            for listener in self._other_listeners:
                listener.set_inheritable(False)
                answer_probes(listener)
        servers = []
        for listener in self.sockets:
            listener.setblocking(1)
            server = StreamServer(listener, handle=self._handler(listener), spawn=Pool(self._connections.limit))
            server.start()
            servers.append(server)
        while self.alive:
            self.notify()
            self._connections.make_room()  # when none could go before, no place is left whose owner could make room
            self._is_told_to_stop.wait(1.0)
        # gunicorn's parent kills after graceful_timeout; the seconds left then are for the writer to close.
        until = time.monotonic() + self.cfg.graceful_timeout - CLOSING_SECONDS
        for server in servers:
            server.close()
        drain = getattr(self.wsgi, "drain", None)
        if drain is not None:
            drain()
        for server in servers:
            self._part(server.pool, until)

    def _part(self, connections: Pool, until: float) -> None:
        # The next reply on a kept connection says that it is the last. Closing the connection while it is idle could
        # cross a request that the client is just sending, which would fail.
        last_questions_until = min(until, time.monotonic() + LAST_QUESTION_SECONDS)
        while connections:
            if time.monotonic() > last_questions_until:
                self._close_idle()
            self.notify()
            if time.monotonic() > until:
                logger.warning("%d requests were not answered in time", len(connections))
                connections.kill()
            connections.join(timeout=0.1)

    def _close_idle(self) -> None:
        for connection in self._connections.resting():
            connection.leave("stopping")

    def _connection_limit(self) -> int:
        descriptors, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        affordable = descriptors - min(OTHER_DESCRIPTORS, descriptors // 2)
        wanted: int = self.worker_connections
        if affordable < wanted:
            logger.warning("only %d connections at once: the limit of open files is %d", affordable, descriptors)
        return min(affordable, wanted)

    def _handler(self, listener: Any) -> Callable[[Any, Any], None]:
        address = listener.getsockname()

        def handle(client: Any, peer: Any) -> None:
            peer = _unmapped(peer)
            connection = Connection(client, self._connections, self.cfg.keepalive)
            self._connections.add(connection)
            try:
                try:
                    self._converse(address, connection, peer)
                except errors.ParseException as error:
                    connection.end("not_http")
                    self._refuse(connection, error)
                except StopIteration:  # one side closes the connection
                    pass
                connection.state = "closing"
                util.close_graceful(client)
            except OSError:  # closed by the client, too slow, or told to go
                connection.end("broken")
                client.close()
            except gevent.GreenletExit:
                connection.end("stopping")
                client.close()
            except Exception:  # an error of one connection must not end the worker, which serves the others
                connection.end("failed")
                logger.exception("a connection failed")
                client.close()
            finally:
                self._connections.remove(connection)

        return handle

    def _converse(self, address: Any, connection: Connection, peer: Any) -> None:
        client = connection.sock
        parser = RequestParser(self.cfg, client, peer)
        parser.unreader = connection
        while True:
            request = next(parser)
            connection.is_in_head = False
            response, environ = wsgi.create(request, client, peer, address, self.cfg, response_class=Response)
            environ["wsgi.multithread"] = True
            response.worker = self
            response.connection = connection
            body = self.wsgi(environ, response.start_response)
            if BROUGHT_TOKEN in environ:
                connection.is_known = True
            try:
                for part in body:
                    response.write(part)
                response.close()
            finally:
                if hasattr(body, "close"):
                    body.close()
            if response.should_close() or not parser.finish_body(max_bytes=DRAIN_BYTES):
                raise StopIteration
            connection.expect_request()
            gevent.sleep(0)  # otherwise a client that repeats requests at once would starve the others

    def _refuse(self, connection: Connection, error: errors.ParseException) -> None:
        """Reply to what is not HTTP, in the format of our other errors and without repeating any of it."""
        status, code, message = next(
            (answer for kind, answer in _REFUSALS.items() if isinstance(error, kind)), _NOT_HTTP
        )
        _, request_id = self._clock.tick()
        if self._refused_lines.take("none"):
            logger.info("refused: %s", code, extra={"request_id": request_id})
        body = json.dumps({"error": {"code": code, "message": message, "request_id": request_id}}).encode()
        headers = (
            ("Content-Type", "application/json"),
            ("Content-Length", str(len(body))),
            ("X-Request-Id", request_id),
            *FOR_BROWSERS,
            ("Connection", "close"),
        )
        head = "".join(f"{name}: {value}\r\n" for name, value in headers)
        connection.send(f"HTTP/1.1 {status}\r\n{head}\r\n".encode() + body)


def _unmapped(peer: Any) -> Any:
    """Return the address of a client; of IPv4 as TRUSTED_PROXIES names it, not as a socket of both families maps it."""
    host, *rest = peer
    return (host.removeprefix("::ffff:") if "." in host else host, *rest)


_NOT_HTTP = ("400 Bad Request", "bad_request", "expected a well-formed HTTP/1.1 request")
_REFUSALS = {
    errors.LimitRequestLine: ("414 URI Too Long", "uri_too_long", "expected a request line of at most 4 KiB"),
    errors.LimitRequestHeaders: (
        "431 Request Header Fields Too Large",
        "headers_too_large",
        "expected at most 100 header fields of at most 8 KiB each, and 64 KiB in all",
    ),
    errors.UnsupportedTransferCoding: (
        "501 Not Implemented",
        "unsupported_transfer_coding",
        "expected no Transfer-Encoding or chunked",
    ),
    errors.InvalidSchemeHeaders: (
        "400 Bad Request",
        "contradicting_scheme",
        "the proxy sent headers that contradict one another: let it send only X-Forwarded-Proto",
    ),
    errors.ExpectationFailed: ("417 Expectation Failed", "expectation_failed", "expected no Expect or 100-continue"),
}


_CONSTANT_HEADERS = frozenset({("Content-Type", "application/json"), *FOR_BROWSERS})


class Response(wsgi.Response):  # type: ignore[misc]  # gunicorn ships no types
    """Sends header and body together, which saves a system call and a packet per reply."""

    worker: Worker
    connection: Connection
    headers_sent: bool
    _head = b""
    _is_at_the_end = False

    def process_headers(self, headers: list[tuple[str, str]]) -> None:
        """Check headers as gunicorn does, save those that never change: checking them takes as long as making them."""
        others: list[tuple[str, str]] = []
        for header in headers:
            (self.headers if header in _CONSTANT_HEADERS else others).append(header)
        super().process_headers(others)

    def should_close(self) -> bool:
        """Return whether this reply is the last: at the end, or if too much of the body is unread to receive it."""
        if not self.headers_sent:
            # Decided once, because the header announces it.
            self._is_at_the_end = self.connection.is_told_to_go or not self.worker.alive
        if self._is_at_the_end:
            return True
        body = self.req.body
        left = getattr(body.reader, "length", 0)
        is_chunked_and_unread = getattr(body.reader, "parser", None) is not None
        return bool(body.failed or left > DRAIN_BYTES or is_chunked_and_unread or super().should_close())

    def send_headers(self) -> None:
        """Hold the header back until the body or the end."""
        if not self.headers_sent:
            lines = [
                f"HTTP/{self.req.version[0]}.{self.req.version[1]} {self.status}\r\n",
                f"Date: {_http_date(int(time.time()))}\r\n",
                f"Connection: {'close' if self.should_close() else 'keep-alive'}\r\n",
                "Transfer-Encoding: chunked\r\n" if self.chunked else "",
            ]
            lines.extend(f"{name}: {value}\r\n" for name, value in self.headers)
            self._head = "".join(lines).encode("latin-1") + b"\r\n"
            self.headers_sent = True

    def _emit_body(self, data: bytes) -> None:
        if self.chunked:
            data = b"%X\r\n%b\r\n" % (len(data), data)
        self.connection.send(self._head + data)
        self._head = b""

    def close(self) -> None:
        """End the reply."""
        self.send_headers()
        if self._head or self.chunked:
            self.connection.send(self._head + (b"0\r\n\r\n" if self.chunked else b""))
            self._head = b""


@functools.lru_cache(maxsize=1)  # once per second, because rendering takes longer than parsing a row's JSON
def _http_date(seconds: int) -> str:
    date: str = util.http_date(seconds)
    return date


# -- how worker and parent end together -----------------------------------------------------------------------------

_is_ending = threading.Event()  # set in a worker that received a signal to stop
_exit_status = mmap.mmap(-1, 1)  # anonymous and shared: the worker, forked later, reports to its parent here


def halt(status: int) -> NoReturn:
    """End worker and parent with this exit status; gunicorn alone would restart the worker forever."""
    _exit_status[0] = status
    code = 0 if _is_ending.is_set() else Arbiter.WORKER_BOOT_ERROR  # a parent that is ending fails at this error
    if threading.current_thread() is threading.main_thread():
        sys.exit(code)
    time.sleep(0.2)  # so that the logging thread can write the reason
    os._exit(code)


def exit_with_status() -> None:
    """Exit, in the parent, with the status that a worker left."""
    if _exit_status[0]:
        sys.exit(_exit_status[0])
