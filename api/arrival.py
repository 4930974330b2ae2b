"""Gives each request its id and time of arrival, and every answer X-Request-Id and its place in the latencies."""

import time
from collections.abc import Callable, Iterable
from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

from api.metrics import Metrics
from fraud_detection.clock import Clock

_ARRIVED_AT = "fraud.arrived_at"
_REQUEST_ID = "fraud.request_id"


def request_id(environ: WSGIEnvironment) -> str:
    """The id (UUIDv7) of a request."""
    identifier: str = environ[_REQUEST_ID]
    return identifier


def arrived_at(environ: WSGIEnvironment) -> str:
    """When a request arrived, in the form of `ts`."""
    moment: str = environ[_ARRIVED_AT]
    return moment


def at_the_door(application: WSGIApplication, clock: Clock, metrics: Metrics) -> WSGIApplication:
    """Wrap a WSGI application, so that not even its 404 or 500 leaves without an id."""

    def answer(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        began = time.perf_counter()
        environ[_ARRIVED_AT], identifier = clock.tick()
        environ[_REQUEST_ID] = identifier

        def start_identified(
            status: str, headers: list[tuple[str, str]], exc_info: object = None
        ) -> Callable[[bytes], object]:
            headers.append(("X-Request-Id", identifier))
            metrics.observe_request(environ["PATH_INFO"], status, time.perf_counter() - began)
            return start_response(status, headers, exc_info)  # type: ignore[arg-type]  # handed on as it came

        return application(environ, start_identified)

    return answer
