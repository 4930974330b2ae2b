"""Gives each request an id and an arrival time; adds X-Request-Id to each reply and measures its latency."""

import logging
import time
from collections.abc import Callable, Iterable
from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

from api.line_budget import LineBudget
from api.metrics import Metrics
from fraud_detection.clock import Clock
from fraud_detection.contract import FOR_BROWSERS
from fraud_detection.logs import is_text
from fraud_detection.settings import ApiSettings

TOKEN_NAME = "fraud.token_name"  # noqa: S105  where environ holds who authenticated
_ARRIVED_AT = "fraud.arrived_at"
_REQUEST_ID = "fraud.request_id"


_LOGGED: dict[str, Callable[[str], bool]] = {
    "all": lambda _status: True,
    "errors": lambda status: not status.startswith("200"),
    "none": lambda _status: False,
}

logger = logging.getLogger(__name__)


def access_log(settings: ApiSettings) -> Callable[[str], bool]:
    """Return which statuses have a line in the log."""
    chosen = settings.access_log
    if chosen == "auto":
        chosen = "all" if is_text(settings.log_format) else "errors"
    return _LOGGED[chosen]


def request_id(environ: WSGIEnvironment) -> str:
    """Return the id (UUIDv7) of a request."""
    identifier: str = environ[_REQUEST_ID]
    return identifier


def arrived_at(environ: WSGIEnvironment) -> str:
    """Return the arrival time of a request, in the format of `ts`."""
    moment: str = environ[_ARRIVED_AT]
    return moment


def at_the_door(
    application: WSGIApplication, clock: Clock, metrics: Metrics, is_logged: Callable[[str], bool]
) -> WSGIApplication:
    """Wrap a WSGI application so that every reply has an id, 404 and 500 too.

    `is_logged` says which statuses have a line in the log. Of the requests that are rejected (4xx), a flood has few.
    """
    rejected = LineBudget(_log_left_out)

    def answer(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        began = time.perf_counter()
        environ[_ARRIVED_AT], identifier = clock.tick()
        environ[_REQUEST_ID] = identifier

        def start_identified(
            status: str, headers: list[tuple[str, str]], exc_info: object = None
        ) -> Callable[[bytes], object]:
            headers += (("X-Request-Id", identifier), *FOR_BROWSERS)
            seconds = time.perf_counter() - began
            metrics.observe_request(environ["PATH_INFO"], status, seconds)
            if is_logged(status) and (status[0] != "4" or rejected.take(environ.get(TOKEN_NAME, "none"))):
                _log(environ, metrics.handler(environ["PATH_INFO"]), status, seconds)
            return start_response(status, headers, exc_info)  # type: ignore[arg-type]  # passed on unchanged

        return application(environ, start_identified)

    return answer


def _log(environ: WSGIEnvironment, handler: str, status: str, seconds: float) -> None:
    """Write one line about a request; of its path only the route, because the rest may be the id of a transaction."""
    method, code, milliseconds = environ["REQUEST_METHOD"], int(status[:3]), round(seconds * 1000, 1)
    name, identifier = environ.get(TOKEN_NAME, "none"), environ[_REQUEST_ID]
    logger.info(
        "%s /%s %d, token %s, %s ms, request %s",
        method,
        handler,
        code,
        name,
        milliseconds,
        identifier,
        extra={
            "method": method,
            "handler": handler,
            "status": code,
            "token_name": name,
            "milliseconds": milliseconds,
            "request_id": identifier,
        },
    )


def _log_left_out(name: str, count: int) -> None:
    logger.info("%d more answered 4xx, token %s", count, name, extra={"token_name": name, "count": count})
