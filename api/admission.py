"""Limits requests in flight: beyond the limit, or if the store is slow, the API replies 503 before it reads a body."""

from types import TracebackType

from api.writer import NotStored, Writer

OLDEST_WAIT_SECONDS = 1.0  # half of the time allowed for storing: a further request would hardly be stored in time


class TooManyInside(Exception):
    """Too many requests are in flight, or the store is slow; the client may repeat the request shortly."""


class Admission:
    """A limit on requests in flight; only greenlets of one thread may share it.

    A request enters with `with admission:` when its body is whole, so that a client that sends slowly takes no place.
    """

    def __init__(self, limit: int, writer: Writer) -> None:
        self._limit = limit
        self._writer = writer
        self._inside = 0

    def check(self) -> None:
        """Raise TooManyInside or NotStored if no request may enter now; reading its body would then be in vain."""
        if self._writer.problem == "vanished":  # nor may a row be read that no next start will find
            raise NotStored("storage_failed")
        if self._writer.oldest_wait_seconds > OLDEST_WAIT_SECONDS:
            raise TooManyInside(
                f"the store is slow: a request has waited for it for more than {OLDEST_WAIT_SECONDS:g} s; nothing of "
                "this one was stored; repeat it after Retry-After seconds"
            )
        if self._inside >= self._limit:
            raise TooManyInside("too many requests in flight; repeat this one after Retry-After seconds")

    def __enter__(self) -> None:
        self.check()
        self._inside += 1

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._inside -= 1
