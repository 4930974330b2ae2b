"""Ends a server that a command has started, whatever ends it: Ctrl-C, SIGTERM, a closed terminal or an error."""

import contextlib
import os
import signal
import subprocess
from collections.abc import Iterator

_STOPS_WITHIN_SECONDS = 30  # the API finishes its requests within 20


@contextlib.contextmanager
def interrupted_by_signals() -> Iterator[None]:
    """Let SIGINT and SIGTERM raise KeyboardInterrupt, even if the shell ignores them, and SIGHUP unless nohup does."""
    numbers = [signal.SIGINT, signal.SIGTERM]
    if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:
        numbers.append(signal.SIGHUP)  # the terminal was closed
    before = {number: signal.signal(number, signal.default_int_handler) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def end(server: "subprocess.Popen[bytes]") -> None:
    """End a server that was started in a session of its own, with all its processes."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # a second Ctrl-C would leave processes behind
    server.terminate()  # does nothing if it has ended
    with contextlib.suppress(subprocess.TimeoutExpired):
        server.wait(_STOPS_WITHIN_SECONDS)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(server.pid, signal.SIGKILL)
    server.wait()
