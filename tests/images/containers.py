"""Run docker, and containers that are locked down as far as our images allow."""

import contextlib
import http.client
import json
import subprocess
import time
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from tests.support.environment import TOKEN
from tests.support.images import API_IMAGE, docker

LOCKED_DOWN = (
    *("--read-only", "--tmpfs", "/tmp:size=64m"),  # noqa: S108  a folder of the container
    *("--cap-drop", "ALL", "--security-opt", "no-new-privileges", "--user", "12345:0"),
)
PATIENCE_SECONDS = 60


def inspect(what: str, path: str) -> Any:
    """Return what docker knows of an image or a container, at a path of its Go template."""
    return json.loads(docker("inspect", "--format", f"{{{{json {path}}}}}", what).stdout)


def python(image: str, program: str) -> Any:
    """Run a few lines of Python in an image and return the JSON that they print."""
    return json.loads(docker("run", "--rm", "--entrypoint", "python", image, "-c", program).stdout)


@dataclass(frozen=True)
class Api:
    """A container of the API."""

    name: str

    def execute(self, *command: str, exit_code: int | None = 0) -> subprocess.CompletedProcess[str]:
        """Run a command beside the server, as `kubectl exec` does."""
        return docker("exec", self.name, *command, exit_code=exit_code)

    def sql(self, statement: str) -> str:
        """Return what the container's sqlite3 prints."""
        return self.execute("sqlite3", "/app/data/requests.db", statement).stdout.strip()

    def ask(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> tuple[int, dict[str, Any]]:
        """Send a request with the token to the port that docker published; return status and answer."""
        _, port = docker("port", self.name, "5000/tcp").stdout.split()[-1].rsplit(":", 1)
        with contextlib.closing(http.client.HTTPConnection("127.0.0.1", int(port), timeout=PATIENCE_SECONDS)) as server:
            headers = {"Authorization": f"Bearer {TOKEN}", "Content-Type": "application/json"}
            server.request(method, path, json.dumps(body), headers)
            response = server.getresponse()
            return response.status, json.load(response)

    def wait_until_healthy(self) -> None:
        """Return when GET /health answers 200."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while time.monotonic() < deadline and inspect(self.name, ".State.Running"):
            with contextlib.suppress(OSError, http.client.HTTPException):
                if self.ask("GET", "/health")[0] == 200:
                    return
            time.sleep(0.05)
        raise AssertionError(f"the API does not serve: {self.log()}")

    def log(self) -> str:
        """Return what it wrote so far."""
        done = docker("logs", self.name)
        return done.stdout + done.stderr


@contextlib.contextmanager
def empty_volume() -> Iterator[str]:
    """Create a named volume that exists until the block ends."""
    name = f"fraud-detection-test-{uuid.uuid4().hex[:8]}"
    docker("volume", "create", name)
    try:
        yield name
    finally:
        docker("volume", "rm", name)


@contextlib.contextmanager
def serving(*options: str, command: tuple[str, ...] = ()) -> Iterator[Api]:
    """Run the API image on a free port of 127.0.0.1 until the block ends."""
    api = Api(f"fraud-detection-test-{uuid.uuid4().hex[:8]}")
    ours = ("--name", api.name, "--env", f"API_TOKEN={TOKEN}", "--publish", "127.0.0.1::5000")
    try:
        docker("run", "--detach", *ours, *options, API_IMAGE, *command)
        api.wait_until_healthy()
        yield api
    finally:
        docker("rm", "--force", api.name, exit_code=None)
