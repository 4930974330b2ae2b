"""Run the real API as a child process on free ports of 127.0.0.1."""

import contextlib
import http.client
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from tests.support.environment import TOKEN
from tests.support.ports import free_port
from tests.support.project import ROOT
from tests.support.waiting import PATIENCE_SECONDS, answers, wait_until


class ApiDidNotStart(Exception):
    """The API ended before it answered, or did not answer; the message is the end of its log."""


@dataclass(frozen=True)
class Service:
    """How to start the API; its address stays the same from one start to the next."""

    environment: Mapping[str, str]
    port: int
    log: Path

    @property
    def url(self) -> str:
        """The address where the API answers."""
        return f"http://127.0.0.1:{self.port}"

    @contextlib.contextmanager
    def running(self, *application: str, under: Sequence[str] = ()) -> Iterator[subprocess.Popen[bytes]]:
        """Run gunicorn until the block ends, if wanted another application or under a program; then send SIGTERM."""
        process = self.start(*application, under=under)
        try:
            self.wait_until_ready(process)
            yield process
        finally:
            end(process)

    def start(self, *application: str, under: Sequence[str] = ()) -> subprocess.Popen[bytes]:
        """Start gunicorn and return at once."""
        command = [sys.executable, "-m", "gunicorn", "-c", "python:api.gunicorn_conf", *application]
        with self.log.open("ab") as log:
            return subprocess.Popen(
                [*under, *command], cwd=ROOT, env=dict(self.environment), stdout=log, stderr=log, start_new_session=True
            )

    def wait_until_ready(self, process: subprocess.Popen[bytes]) -> None:
        """Return when GET /health answers 200; raises ApiDidNotStart."""
        try:
            wait_until(lambda: answers(f"{self.url}/health"), process=process)
        except AssertionError:
            raise ApiDidNotStart(self.log.read_text()[-4000:]) from None

    def connection(self) -> "contextlib.closing[http.client.HTTPConnection]":
        """Return an HTTP connection that is closed when its block ends."""
        return contextlib.closing(http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE_SECONDS))


def service(environment: Mapping[str, str], log: Path) -> Service:
    """Return how to start the API with these variables on free ports."""
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
    """Return the process and all that it started, the oldest first."""
    with contextlib.suppress(psutil.NoSuchProcess):
        eldest = psutil.Process(process.pid)
        return [eldest, *eldest.children(recursive=True)]
    return []


def end(process: subprocess.Popen[bytes]) -> None:
    """Send SIGTERM and wait; send SIGKILL to every process that is left if that takes too long."""
    members = family(process)
    for member in members[:2]:  # the master is the first, or the child of a program that watches it
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


@contextlib.contextmanager
def api_process(environment: Mapping[str, str], log: Path) -> Iterator[str]:
    """Run the API of an installation as a process, and yield its address; raises ApiDidNotStart."""
    started = service(environment, log)
    with started.running():
        yield started.url
