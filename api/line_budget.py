"""Limits the lines that the log gets per second about one name, and counts the others."""

import collections
import time
from collections.abc import Callable

LINES_PER_SECOND = 10


class LineBudget:
    """The lines that may be written in one second: LINES_PER_SECOND for each name, so that none hides another.

    All requests without a valid token share one name. When the next line of any name is asked for in a later second,
    `tell_left_out` receives each name that exceeded its lines, and by how many.
    """

    def __init__(self, tell_left_out: Callable[[str, int], object]) -> None:
        self._tell_left_out = tell_left_out
        self._second = 0
        self._asked: collections.Counter[str] = collections.Counter()  # of this second, so it stays small

    def take(self, name: str) -> bool:
        """Return whether the log gets a line about this name now; otherwise it is counted."""
        second = int(time.monotonic())
        if second != self._second:
            before, self._asked, self._second = self._asked, collections.Counter(), second
            for other, asked in before.items():
                if asked > LINES_PER_SECOND:
                    self._tell_left_out(other, asked - LINES_PER_SECOND)
        self._asked[name] += 1
        return self._asked[name] <= LINES_PER_SECOND
