"""Runs MLflow's UI on this installation's runs: on 127.0.0.1, without telemetry, in a separate process."""

import contextlib
import http.client
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from fraud_detection.exit_codes import ExpectedError
from jobs.rollout.artifacts import DATABASE, artifacts_uri
from jobs.rollout.own_server import end, interrupted_by_signals, start
from jobs.rollout.telemetry import NO_TELEMETRY

HOST = "127.0.0.1"
DEFAULT_PORT = 5051  # compose.yaml publishes its MLflow server on 5050
_INHERITED = ("LANG", "LC_ALL", "LC_CTYPE", "TZ", "TMPDIR", "PYTHONPATH", "LD_LIBRARY_PATH")
_STARTS_WITHIN_SECONDS = 180


class CannotOpen(ExpectedError):
    """The UI cannot run; the message says why and what to do."""


def serve_ui(folder: Path, port: int, environ: Mapping[str, str], *, when_ready: Callable[[str], None]) -> None:
    """Serve the UI of the database in `folder` until SIGINT or SIGTERM arrives.

    Calls `when_ready` with the address when the UI answers. When it returns, all processes of MLflow have ended. Call
    it in the main thread.

    Raises CannotOpen if there is no database, the port is taken or the server stops unexpectedly.
    """
    if not (folder / DATABASE).exists():
        raise CannotOpen(f"{folder / DATABASE}: does not exist. `fraudctl retrain` records the first run.")
    _require_free(port)
    with interrupted_by_signals(), tempfile.TemporaryDirectory(prefix="fraud-mlflow-") as scratch:
        server = start(_command(folder, port), cwd=scratch, env=_environment(environ, scratch))
        try:
            _wait_until_it_answers(server, port)
            when_ready(f"http://{HOST}:{port}")
            raise _ended_by_itself(server.wait())
        except KeyboardInterrupt:
            return
        finally:
            end(server)


def _require_free(port: int) -> None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as the server does: a port just closed is free
        try:
            probe.bind((HOST, port))
        except OSError as error:
            raise CannotOpen(f"port {port} cannot be used ({error.strerror}). Choose another with --port.") from error


def _command(folder: Path, port: int) -> list[str]:
    database = f"sqlite:///{folder.absolute() / DATABASE}"
    return [
        *(sys.executable, "-m", "mlflow", "server", "--host", HOST, "--port", str(port), "--workers", "1"),
        *("--backend-store-uri", database, "--registry-store-uri", database),
        *("--default-artifact-root", artifacts_uri(folder), "--no-serve-artifacts"),
        # MLflow would also allow private networks. Any port, because `kubectl port-forward` may use another.
        *("--allowed-hosts", "localhost,localhost:*,127.0.0.1,127.0.0.1:*"),
        *("--cors-allowed-origins", f"http://localhost:{port},http://{HOST}:{port}"),
        *("--uvicorn-opts", "--log-level warning --no-access-log"),
    ]


def _environment(environ: Mapping[str, str], scratch: str) -> dict[str, str]:
    """Return the server's environment: no token, no database address, none of the user's MLFLOW_ variables."""
    return {
        **{name: environ[name] for name in _INHERITED if name in environ},
        **NO_TELEMETRY,
        "HOME": scratch,  # MLflow keeps its assistant's and telemetry's files there
        "PATH": scratch,  # MLflow looks for docker when it starts, and its assistant for programs to run
        "GIT_PYTHON_REFRESH": "quiet",
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",  # otherwise five more processes wait for work
        "PYTHONWARNINGS": "ignore",  # deprecations in SQLAlchemy concern MLflow's developers
    }


def _wait_until_it_answers(server: "subprocess.Popen[bytes]", port: int) -> None:
    deadline = time.monotonic() + _STARTS_WITHIN_SECONDS
    while time.monotonic() < deadline:
        if (status := server.poll()) is not None:
            raise _ended_by_itself(status)
        connection = http.client.HTTPConnection(HOST, port, timeout=5)
        with contextlib.closing(connection), contextlib.suppress(OSError, http.client.HTTPException):
            connection.request("GET", "/health")
            if connection.getresponse().status == http.HTTPStatus.OK:
                return
        time.sleep(0.2)
    raise CannotOpen(f"MLflow's server did not answer within {_STARTS_WITHIN_SECONDS} seconds.")


def _ended_by_itself(status: int) -> CannotOpen:
    return CannotOpen(f"MLflow's server stopped with status {status}. Its own messages are above.")
