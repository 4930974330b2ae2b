"""GET /health for people; /livez and /readyz for Kubernetes or a supervisor, on a port of their own."""

import http.server
import json
import threading

import flask

from api.served_model import ServedModel
from api.writer import Writer

HEARTBEAT_LIMIT_SECONDS = 10.0

_STORAGE_PROBLEMS = {
    "starting": "the first commit has not succeeded yet",
    "full": "the disk of the database is full: free space or set RETENTION_DAYS",
    "busy": "another process holds the database: stop the job that writes to it",
    "failed": "the database cannot be written: see the log",
    "vanished": "the database was removed or replaced while it was open: see the log",
    "corrupt": "the database is damaged: stop the service and restore a backup (`fraudctl db restore`)",
}


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
    routes.get("/health")(health.report)
    return routes


class _Listener(http.server.ThreadingHTTPServer):
    allow_reuse_port = True  # when gunicorn replaces its worker (SIGHUP), the new one starts before the old one ends


class ProbeServer:
    """Answers /livez and /readyz in a thread of its own, so that no load on the API delays it."""

    def __init__(self, host: str, port: int, health: Health) -> None:
        class Probe(http.server.BaseHTTPRequestHandler):
            timeout = 5

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

            def log_message(self, *_: object) -> None:
                """Log nothing: probes arrive every few seconds."""

        self._server = _Listener((host, port), Probe)
        self.port = self._server.server_port
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.1,), name="probes", daemon=True)

    def start(self) -> None:
        """Start answering."""
        self._thread.start()

    def close(self) -> None:
        """Stop answering and release the port."""
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()
