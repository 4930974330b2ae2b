"""Gives the time, and request ids that never run backwards within a process."""

import random
import re
import threading
import time
from datetime import UTC, datetime, timedelta
from functools import lru_cache

CLOCK_DIFFERENCE = timedelta(minutes=5)
"""By how much the clocks of two machines may differ, in either direction."""
TIME_FORM = "a time such as 2026-08-22 10:15:30"
"""The description in messages of what `read_time` reads."""

_STEP_BACK_MICROSECONDS = 3_600_000_000
_WRITTEN_OUT = re.compile(
    r"\d{4}-\d\d-\d\d([T ]([01]\d|2[0-3]):\d\d(:\d\d([.,]\d+)?)?(Z|[+-]\d\d(:?\d\d)?)?)?", re.ASCII
)


def timestamp(moment: datetime) -> str:
    """Render a time as stored: UTC with a space, so that text sorts by time and compares with datetime('now').

    >>> timestamp(datetime(2026, 8, 22, 10, 15, 30, 5, tzinfo=UTC))
    '2026-08-22 10:15:30.000005'
    """
    return moment.astimezone(UTC).replace(tzinfo=None).isoformat(" ", "microseconds")  # ten times faster than strftime


def read_time(text: str) -> datetime:
    """Read a time in written-out ISO 8601, such as 2026-08-22T10:15:30+02:00; zone and time of day may be absent.

    Every other form is refused, because readers differ about it: Python reads 20260822120000Z as eight hours later,
    and only newer versions of it read 24:00.

    Raises ValueError.
    """
    if not _WRITTEN_OUT.fullmatch(text):
        raise ValueError(f"expected {TIME_FORM}")
    return datetime.fromisoformat(text)


def parse_timestamp(text: str) -> datetime:
    """Read a time as `read_time` does; without a zone it is UTC, as `timestamp` writes it. Raises ValueError."""
    moment = read_time(text)
    try:
        return moment.astimezone(UTC) if moment.tzinfo else moment.replace(tzinfo=UTC)
    except OverflowError as error:  # the zone moves it out of the calendar
        raise ValueError("expected a time between the years 1 and 9999") from error


def stored_time(text: str) -> str:
    """Return a time that `parse_timestamp` can read as it is stored. Raises ValueError.

    >>> stored_time("2026-08-22T10:15:30+02:00")
    '2026-08-22 08:15:30.000000'
    """
    return timestamp(parse_timestamp(text.strip()))


def is_date(text: str) -> bool:
    """Return whether a text that `read_time` can read names a day without a time of day."""
    return len(text) == len("2026-08-22")


class Clock:
    """Gives each request its time and a UUIDv7 of the same microsecond.

    Ids strictly increase. Times do too if the wall clock steps back by an hour at most, because arrivals then stay in
    order; they wait until it has caught up. After a larger step they follow the wall clock, so that a time that was
    far ahead for a moment does not stay.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._microseconds = 0
        self._id_microseconds = 0
        self._random = random.Random()  # noqa: S311  ids are unique, not secret; seeded by the system

    def tick(self) -> tuple[str, str]:
        """Return the stored form of now and a request id (UUIDv7, RFC 9562, with microseconds in rand_a)."""
        with self._lock:
            microseconds = time.time_ns() // 1000
            if self._microseconds - _STEP_BACK_MICROSECONDS <= microseconds <= self._microseconds:
                microseconds = self._microseconds + 1
            self._microseconds = microseconds
            self._id_microseconds = max(microseconds, self._id_microseconds + 1)
            id_microseconds = self._id_microseconds
        seconds, rest = divmod(microseconds, 1_000_000)
        milliseconds, fraction = divmod(id_microseconds, 1000)
        begin = milliseconds << 16 | 0x7000 | fraction << 2
        end = 1 << 63 | self._random.getrandbits(62)
        digits = f"{begin:016x}{end:016x}"
        request_id = f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}"
        return f"{_second(seconds)}.{rest:06d}", request_id


@lru_cache(maxsize=4)
def _second(seconds: int) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(seconds))
