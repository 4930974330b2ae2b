"""The time and the request id, neither of which ever runs backwards within a process."""

import random
import threading
import time
from datetime import UTC, datetime
from functools import lru_cache

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
        self._random = random.Random()  # noqa: S311  ids are unique, not secret; seeded by the system

    def tick(self) -> tuple[str, str]:
        """Return the stored form of now and a request id (UUIDv7, RFC 9562, with microseconds in rand_a)."""
        with self._lock:
            # The wall clock may step back; the ids and times of one process must not.
            self._microseconds = max(time.time_ns() // 1000, self._microseconds + 1)
            microseconds = self._microseconds
        seconds, rest = divmod(microseconds, 1_000_000)
        milliseconds, fraction = divmod(microseconds, 1000)
        begin = milliseconds << 16 | 0x7000 | fraction << 2
        end = 1 << 63 | self._random.getrandbits(62)
        digits = f"{begin:016x}{end:016x}"
        request_id = f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}"
        return f"{_second(seconds)}.{rest:06d}", request_id


@lru_cache(maxsize=4)
def _second(seconds: int) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(seconds))
