"""The real service as a child process on free ports of 127.0.0.1."""

import contextlib
import http.client
import json
import os
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from tests.support.environment import TOKEN
from tests.support.ports import free_port
from tests.support.project import ROOT

PATIENCE_SECONDS = 30


@dataclass(frozen=True)
class Service:
    """How to start the service; its addresses stay the same from one start to the next."""

    environment: Mapping[str, str]
    port: int
    log: Path

    @contextlib.contextmanager
    def running(self, *, under: Sequence[str] = ()) -> Iterator[subprocess.Popen[bytes]]:
        """Run gunicorn, if wanted under another program, until the block ends; then SIGTERM and wait."""
        process = self.start(under=under)
        try:
            self.wait_until_ready()
            yield process
        finally:
            end(process)

    def start(self, *, under: Sequence[str] = ()) -> subprocess.Popen[bytes]:
        """Start gunicorn and return at once."""
        command = [sys.executable, "-m", "gunicorn", "-c", "python:api.gunicorn_conf"]
        with self.log.open("ab") as log:
            return subprocess.Popen(
                [*under, *command], cwd=ROOT, env=dict(self.environment), stdout=log, stderr=log, start_new_session=True
            )

    def wait_until_ready(self) -> None:
        """Return when GET /health answers 200."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while time.monotonic() < deadline:
            with contextlib.suppress(OSError, http.client.HTTPException), self.connection() as connection:
                connection.request("GET", "/health")
                if connection.getresponse().status == 200:
                    return
            time.sleep(0.05)
        raise TimeoutError(f"the service is not ready after {PATIENCE_SECONDS} s: {self.log.read_text()[-4000:]}")

    def connection(self) -> "contextlib.closing[http.client.HTTPConnection]":
        """An HTTP connection, closed when its block ends."""
        return contextlib.closing(http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE_SECONDS))


def service(environment: Mapping[str, str], log: Path) -> Service:
    """A service of these variables on ports that are free now."""
    port = free_port()
    variables = {"PATH": os.environ["PATH"], **environment, "PORT": port, "PROBE_PORT": free_port()}
    return Service(variables, int(port), log)


def post(
    connection: http.client.HTTPConnection, path: str, body: Mapping[str, Any], headers: Mapping[str, str] | None = None
) -> tuple[int, dict[str, Any]]:
    """POST JSON with the token; return status and answer."""
    authorised = {"Authorization": f"Bearer {TOKEN}", "Content-Type": "application/json", **(headers or {})}
    connection.request("POST", path, json.dumps(body), authorised)
    response = connection.getresponse()
    return response.status, json.loads(response.read())


def family(process: subprocess.Popen[bytes]) -> list[psutil.Process]:
    """The process and all that it started, the eldest first."""
    with contextlib.suppress(psutil.NoSuchProcess):
        eldest = psutil.Process(process.pid)
        return [eldest, *eldest.children(recursive=True)]
    return []


def end(process: subprocess.Popen[bytes]) -> None:
    """SIGTERM, as a good operator does; SIGKILL for all that is left when that takes too long."""
    members = family(process)
    for member in members[:2]:  # the master is the eldest, or the child of a program that watches it
        if "gunicorn" in member.cmdline() and member.name() != "strace":
            member.terminate()
            break
    try:
        process.wait(timeout=PATIENCE_SECONDS)
    except subprocess.TimeoutExpired:
        for member in members:
            with contextlib.suppress(psutil.NoSuchProcess):
                member.kill()
        process.wait()


class ApiDidNotStart(Exception):
    """The API ended before it answered; the message is its log."""


@contextlib.contextmanager
def api_process(environment: dict[str, str], log: Path) -> Iterator[str]:
    """Run the API of an installation as a process, and give the address where it answers; raises ApiDidNotStart."""
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    with log.open("wb") as stderr:
        server = subprocess.Popen(
            [sys.executable, "-m", "gunicorn", "-c", "python:api.gunicorn_conf"],
            env={"PATH": os.environ["PATH"], **environment, "PORT": port, "PROBE_PORT": free_port()},
            cwd=ROOT,
            stderr=stderr,
        )
    try:
        deadline = time.monotonic() + 30
        while not _is_healthy(url):
            if server.poll() is not None or time.monotonic() > deadline:
                raise ApiDidNotStart(log.read_text())
            time.sleep(0.05)
        yield url
    finally:
        server.terminate()
        server.wait(30)


def _is_healthy(url: str) -> bool:
    try:
        with urllib.request.urlopen(f"{url}/health", timeout=5):  # noqa: S310  an address of ours
            return True
    except OSError:
        return False
