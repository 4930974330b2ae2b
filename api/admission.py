"""How many requests may be inside at once; one too many is answered 503 before its body is read."""

from types import TracebackType

from api.writer import Writer

OLDEST_WAIT_SECONDS = 1.0  # half of what a request may wait to be stored: the next would hardly be served in time


class TooManyInside(Exception):
    """The service has as much to do as it can finish in time; the caller may try again shortly."""


class Admission:
    """A limit on requests inside, entered with `with admission:`; only greenlets of one thread may share it."""

    def __init__(self, limit: int, writer: Writer) -> None:
        self._limit = limit
        self._writer = writer
        self._inside = 0

    def __enter__(self) -> None:
        if self._inside >= self._limit or self._writer.oldest_wait_seconds > OLDEST_WAIT_SECONDS:
            raise TooManyInside("too many requests at once; try again after Retry-After seconds")
        self._inside += 1

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._inside -= 1
