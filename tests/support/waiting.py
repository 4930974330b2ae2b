"""Wait for a condition, as long as a busy machine may need."""

import contextlib
import http.client
import subprocess
import time
import urllib.request
from collections.abc import Callable
from typing import Any

PATIENCE_SECONDS = 180  # it costs time only when something is wrong


def wait_until(
    is_so: Callable[[], object],
    *,
    process: "subprocess.Popen[Any] | None" = None,
    otherwise: Callable[[], object] = str,
    pause: Callable[[float], object] = time.sleep,
) -> None:
    """Return when `is_so`; fail with what `otherwise` returns if that takes too long or if the process ends before."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not is_so():
        assert process is None or process.poll() is None, otherwise()
        assert time.monotonic() < deadline, otherwise()
        pause(0.02)


def answers(url: str) -> bool:
    """Say whether GET answers with success."""
    with (
        contextlib.suppress(OSError, http.client.HTTPException),
        urllib.request.urlopen(url, timeout=PATIENCE_SECONDS),  # noqa: S310  our own address
    ):
        return True
    return False
