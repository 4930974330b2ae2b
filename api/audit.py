"""Writes the audit to the log: who looked decisions up, who added labels, and which requests were refused."""

import logging
from wsgiref.types import WSGIEnvironment

from api.arrival import request_id
from api.auth import token_name
from api.line_budget import LineBudget
from api.metrics import Metrics

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
    """Writes a line per refused request while its name has lines left; counts the others, so that none is lost."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self._lines = LineBudget(_audit_left_out)

    def note(self, environ: WSGIEnvironment) -> None:
        """Note a request that was refused because of its token."""
        if self._lines.take(token_name(environ) or "none"):
            audit(environ, "refused", 1)
        else:
            self._metrics.audit_lines_left_out.inc()


def _audit_left_out(name: str, count: int) -> None:
    """Write how many requests of a name were refused without a line of their own."""
    logger.info(
        "audit: refused, token %s, without a line of its own, count %d",
        name,
        count,
        extra={"event": "refused", "token_name": name, "count": count},
    )
