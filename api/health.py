"""GET /health for people; /livez and /readyz for Kubernetes or a supervisor, on a port of their own."""

import collections
import contextlib
import http.server
import io
import json
import logging
import re
import socket
import sys
import threading
import time
from typing import Any

import flask

from api.scopes import needs
from api.served_model import ServedModel
from api.writer import Writer
from fraud_detection.contract import FOR_BROWSERS

HEARTBEAT_LIMIT_SECONDS = 10.0
PROBES_AT_ONCE = 64
PROBE_SECONDS = 5.0
MAX_PROBE_BYTES = 8 * 1024  # the standard library would take a hundred lines of 64 KiB from each connection

_STORAGE_PROBLEMS = {
    "starting": "the first commit has not succeeded yet",
    "full": "the disk of the database is full: free space or set RETENTION_DAYS",
    "busy": "the database is locked or slow: stop the job that writes to it, or look at its disk",
    "failed": "the database cannot be written: see the log",
    "vanished": "the database was removed, replaced or truncated while it was open: see the log",
    "corrupt": "the database is damaged: stop the service and restore a backup (`fraudctl db restore`)",
}

logger = logging.getLogger(__name__)


class Health:
    """Knows whether the API works and, if not, why."""

    def __init__(self, served: ServedModel, writer: Writer) -> None:
        self._served = served
        self._writer = writer
        self.is_draining = False

    @property
    def is_live(self) -> bool:
        """Whether the process works; storage does not count, because a restart would not repair it."""
        return self._writer.heartbeat_age_seconds < HEARTBEAT_LIMIT_SECONDS

    def problems(self) -> list[dict[str, str]]:
        """Return why the API is not ready, each as `code` and `message`; empty if it is ready."""
        found = []
        if self.is_draining:
            found.append({"code": "stopping", "message": "the service is stopping"})
        if not self.is_live:
            found.append({"code": "writer_stuck", "message": "the writer thread is stuck: restart the service"})
        trouble = self._writer.problem
        if trouble is not None:
            found.append({"code": f"storage_{trouble}", "message": _STORAGE_PROBLEMS[trouble]})
        return found

    def report(self) -> tuple[dict[str, object], int]:
        """Return the health as JSON and its HTTP status: 200, or 503 with the problems."""
        problems = self.problems()
        if problems:
            return {"status": "unavailable", "problems": problems}, 503
        return {"status": "ok", "model_version": self._served.current.version}, 200


def blueprint(health: Health) -> flask.Blueprint:
    """GET /health."""
    routes = flask.Blueprint("health", __name__)

    @routes.get("/health")
    @needs("no token")
    def show_health() -> tuple[dict[str, object], int]:
        return health.report()

    return routes


class _Listener(http.server.ThreadingHTTPServer):
    """Serves so many connections at once: for a further one the oldest is closed, because a probe takes no time."""

    def __init__(self, listener: socket.socket, handler: type[http.server.BaseHTTPRequestHandler]) -> None:
        super().__init__(listener.getsockname(), handler, bind_and_activate=False)
        self.socket.close()
        self.socket = listener
        self._open: collections.deque[Any] = collections.deque()

    def process_request(self, request: Any, client_address: Any) -> None:
        self._open.append(request)
        if len(self._open) > PROBES_AT_ONCE:
            with contextlib.suppress(OSError):  # it has just ended
                self._open.popleft().shutdown(socket.SHUT_RDWR)
        super().process_request(request, client_address)

    def close_request(self, request: Any) -> None:
        with contextlib.suppress(ValueError):  # it was the oldest
            self._open.remove(request)
        super().close_request(request)

    def handle_error(self, *_: object) -> None:
        """Log what failed; a client that breaks off or is too slow is no failure."""
        if not isinstance(sys.exception(), OSError):
            logger.exception("a probe failed")


def _receive_head(connection: socket.socket) -> bytes:
    """Receive the head of a request; of a long one only the start, because a probe is told by its first line.

    Raises TimeoutError if it does not arrive within PROBE_SECONDS, even if it trickles in.
    """
    deadline = time.monotonic() + PROBE_SECONDS
    head = b""
    while len(head) < MAX_PROBE_BYTES and not re.search(rb"\n\r?\n", head):
        connection.settimeout(max(deadline - time.monotonic(), 0.001))
        received = connection.recv(MAX_PROBE_BYTES - len(head))
        if not received:
            break
        head += received
    return head


class ProbeServer:
    """Answers /livez and /readyz in a thread of its own, so that no load on the API delays it."""

    def __init__(self, listener: socket.socket, health: Health) -> None:
        class Probe(http.server.BaseHTTPRequestHandler):
            def handle(self) -> None:
                self.rfile = io.BytesIO(_receive_head(self.connection))
                super().handle()

            def do_GET(self) -> None:
                if self.path == "/livez":
                    self._say(200 if health.is_live else 503, {"live": health.is_live})
                elif self.path == "/readyz":
                    problems = health.problems()
                    self._say(503 if problems else 200, {"ready": not problems, "problems": problems})
                else:
                    self._say(404, {"paths": ["/livez", "/readyz"]})

            def _say(self, status: int, answer: dict[str, object]) -> None:
                body = json.dumps(answer).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def end_headers(self) -> None:
                for name, value in FOR_BROWSERS:
                    self.send_header(name, value)
                super().end_headers()

            def log_message(self, *_: object) -> None:
                """Log nothing: probes arrive every few seconds."""

        self._server = _Listener(listener, Probe)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.1,), name="probes", daemon=True)

    def start(self) -> None:
        """Start answering."""
        self._thread.start()

    def close(self) -> None:
        """Stop answering."""
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()
