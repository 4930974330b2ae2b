"""Writes the audit to the log: who looked decisions up, who added labels, and which requests were refused."""

import logging
import time
from wsgiref.types import WSGIEnvironment

from api.arrival import request_id
from api.auth import token_name
from api.metrics import Metrics

REFUSED_LINES_PER_SECOND = 10

logger = logging.getLogger(__name__)
logger.setLevel(logging.INFO)  # LOG_LEVEL hides what programs do, never who did what


def audit(environ: WSGIEnvironment, event: str, count: int) -> None:
    """Write one line: an event, who authenticated, in which request, and how many decisions or labels it is about."""
    name, identifier = token_name(environ) or "none", request_id(environ)
    logger.info(
        "audit: %s, token %s, request %s, count %d",
        event,
        name,
        identifier,
        count,
        extra={"event": event, "token_name": name, "request_id": identifier, "count": count},
    )


class Refusals:
    """Writes a line per refused request, at most REFUSED_LINES_PER_SECOND; counts the others, so that none is lost."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self._second = 0
        self._lines = 0

    def note(self, environ: WSGIEnvironment) -> None:
        """Note a request that was refused because of its token."""
        second = int(time.monotonic())
        if second != self._second:
            self._second, self._lines = second, 0
        self._lines += 1
        if self._lines > REFUSED_LINES_PER_SECOND:
            self._metrics.audit_lines_left_out.inc()
        else:
            audit(environ, "refused", 1)
