"""Run an HTTP proxy as a process, and read which requests it was asked to forward."""

import contextlib
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.support.ports import free_port
from tests.support.waiting import wait_until

VARIABLES = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY")

_PROGRAM = """
import http.server, sys

class Proxy(http.server.BaseHTTPRequestHandler):
    def do_any(self):
        print(self.path, flush=True)
        self.send_error(502)
    do_GET = do_POST = do_PUT = do_CONNECT = do_any

server = http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Proxy)
print("listening", flush=True)
server.serve_forever()
"""


@dataclass(frozen=True)
class Proxy:
    """A proxy that answers 502 to every request."""

    url: str
    output: Path

    @property
    def asked(self) -> list[str]:
        """The addresses of all requests so far."""
        return self.output.read_text().splitlines()[1:]


@contextlib.contextmanager
def running_proxy(output: Path) -> Iterator[Proxy]:
    """Run a proxy for the length of the block."""
    port = free_port()
    with output.open("wb") as stdout:
        process = subprocess.Popen([sys.executable, "-c", _PROGRAM, port], stdout=stdout, stderr=subprocess.DEVNULL)
    try:
        wait_until(lambda: "listening" in output.read_text(), process=process)
        yield Proxy(f"http://127.0.0.1:{port}", output)
    finally:
        process.kill()
        process.wait()
