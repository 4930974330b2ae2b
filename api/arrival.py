"""Gives each request an id and an arrival time; adds X-Request-Id to each reply and measures its latency."""

import time
from collections.abc import Callable, Iterable
from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

from api.metrics import Metrics
from fraud_detection.clock import Clock

_ARRIVED_AT = "fraud.arrived_at"
_REQUEST_ID = "fraud.request_id"


def request_id(environ: WSGIEnvironment) -> str:
    """Return the id (UUIDv7) of a request."""
    identifier: str = environ[_REQUEST_ID]
    return identifier


def arrived_at(environ: WSGIEnvironment) -> str:
    """Return the arrival time of a request, in the format of `ts`."""
    moment: str = environ[_ARRIVED_AT]
    return moment


def at_the_door(application: WSGIApplication, clock: Clock, metrics: Metrics) -> WSGIApplication:
    """Wrap a WSGI application so that every reply has an id, 404 and 500 too."""

    def answer(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        began = time.perf_counter()
        environ[_ARRIVED_AT], identifier = clock.tick()
        environ[_REQUEST_ID] = identifier

        def start_identified(
            status: str, headers: list[tuple[str, str]], exc_info: object = None
        ) -> Callable[[bytes], object]:
            headers.append(("X-Request-Id", identifier))
            metrics.observe_request(environ["PATH_INFO"], status, time.perf_counter() - began)
            return start_response(status, headers, exc_info)  # type: ignore[arg-type]  # passed on unchanged

        return application(environ, start_identified)

    return answer
