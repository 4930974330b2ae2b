"""The time and the request id, neither of which ever runs backwards within a process."""

import os
import threading
import time
from datetime import UTC, datetime
from uuid import UUID

_FORMAT = "%Y-%m-%d %H:%M:%S.%f"


def timestamp(moment: datetime) -> str:
    """Render a moment as it is stored: UTC with a space, so that text sorts by time and compares with datetime('now').

    >>> timestamp(datetime(2026, 8, 22, 10, 15, 30, 5, tzinfo=UTC))
    '2026-08-22 10:15:30.000005'
    """
    return moment.astimezone(UTC).replace(tzinfo=None).isoformat(" ", "microseconds")  # a tenth of strftime's time


def parse_timestamp(text: str) -> datetime:
    """Read back what `timestamp` wrote; raises ValueError."""
    return datetime.strptime(text, _FORMAT).replace(tzinfo=UTC)


class Clock:
    """Gives each request its time and a UUIDv7 of the same microsecond, both strictly increasing."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._microseconds = 0

    def tick(self) -> tuple[str, str]:
        """Return the stored form of now and a request id (UUIDv7, RFC 9562, with microseconds in rand_a)."""
        with self._lock:
            # The wall clock may step back; the ids and times of one process must not.
            self._microseconds = max(time.time_ns() // 1000, self._microseconds + 1)
            microseconds = self._microseconds
        milliseconds, fraction = divmod(microseconds, 1000)
        number = milliseconds << 80 | 0x7 << 76 | fraction << 66 | 0b10 << 62
        number |= int.from_bytes(os.urandom(8), "big") & ((1 << 62) - 1)
        seconds, rest = divmod(microseconds, 1_000_000)
        return f"{_second(seconds)}.{rest:06d}", str(UUID(int=number))


def _second(seconds: int) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(seconds))
