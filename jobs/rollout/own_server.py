"""Starts a server for a command, and ends it, whatever ends the command: a signal, a closed terminal or an error."""

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from typing import Any

_PR_SET_PDEATHSIG = 1
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


def start(command: Sequence[str], **options: Any) -> "subprocess.Popen[bytes]":
    """Start a server in a session of its own, so that Ctrl-C reaches only this process, which then calls `end`.

    If this process is killed, the kernel sends SIGTERM to the server. Call it in the main thread.
    """
    through_this_file = [sys.executable, "-P", __file__, str(os.getpid()), *command]
    return subprocess.Popen(through_this_file, start_new_session=True, **options)  # noqa: S603  our own Python


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


if __name__ == "__main__":  # in the new process, which becomes the server
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
    if os.getppid() == int(sys.argv[1]):  # otherwise the command was killed before
        os.execv(sys.argv[2], sys.argv[2:])  # noqa: S606  without a shell
