"""Reads and parses the body of a request that declares JSON, within its limits."""

from typing import Any
from wsgiref.types import WSGIEnvironment

import gevent
from gevent.lock import Semaphore
from gunicorn.http.errors import ParseException
from werkzeug.http import parse_options_header
from werkzeug.wsgi import get_content_length

from fraud_detection.contract import MAX_BODY_BYTES
from fraud_detection.strict_json import parse

_LARGE_BYTES = 64 * 1024
_large_turn = Semaphore()


class UnsupportedBody(Exception):
    """A body that is not declared as plain application/json in UTF-8."""


class BodyTooLarge(Exception):
    """A body beyond MAX_BODY_BYTES, declared or sent."""


class BodyIncomplete(Exception):
    """A body that ended before its declared length, or whose chunks are broken."""


class BodyTooSlow(Exception):
    """A body that did not arrive within the time allowed for a request."""


def read_body(environ: WSGIEnvironment) -> bytes:
    """Return the whole body of a request.

    Raises UnsupportedBody, BodyTooLarge, BodyIncomplete or BodyTooSlow.
    """
    kind, parameters = parse_options_header(environ.get("CONTENT_TYPE"))
    if kind.lower() != "application/json":
        raise UnsupportedBody("expected Content-Type: application/json")
    if parameters.get("charset", "utf-8").lower() != "utf-8":
        raise UnsupportedBody("expected charset=utf-8, or none, in Content-Type: the API reads JSON as UTF-8")
    if environ.get("HTTP_CONTENT_ENCODING", "identity").lower() != "identity":
        raise UnsupportedBody("expected a body without Content-Encoding: the API never decompresses a body")
    declared = get_content_length(environ)
    if declared is not None and declared > MAX_BODY_BYTES:
        raise BodyTooLarge(f"expected at most {MAX_BODY_BYTES} bytes, the request declares more")
    try:
        # One byte more than allowed distinguishes a body at the limit from a larger one.
        body: bytes = environ["wsgi.input"].read(MAX_BODY_BYTES + 1 if declared is None else declared)
    except TimeoutError as error:
        raise BodyTooSlow("the body did not arrive in time") from error
    except (OSError, ParseException) as error:
        raise BodyIncomplete("the body ended early or its chunks are broken") from error
    if len(body) > MAX_BODY_BYTES:
        raise BodyTooLarge(f"expected at most {MAX_BODY_BYTES} bytes, got more")
    if declared is not None and len(body) != declared:
        raise BodyIncomplete(f"expected the {declared} bytes that Content-Length declares, got {len(body)}")
    return body


def parse_in_turn(body: bytes) -> Any:
    """Parse a body; before each large one, let other clients and the worker's heartbeat have their turn.

    Only a request that admission counts may call it, because whole bodies wait in memory meanwhile.

    Raises NotStrictJson.
    """
    if len(body) <= _LARGE_BYTES:
        return parse(body)
    with _large_turn:  # without it, many large bodies would take one turn together
        gevent.sleep(0)
        return parse(body)
