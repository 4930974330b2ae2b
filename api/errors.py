"""Maps each exception to a status and {"error": {"code", "message", "request_id"}}, as one table."""

import logging
import re

import flask
import sqlalchemy as sa
from werkzeug.exceptions import HTTPException, MethodNotAllowed, NotFound

from api.admission import TooManyInside
from api.arrival import request_id
from api.audit import Refusals
from api.auth import Forbidden, MalformedAuthorization, MisspeltPath, TooManyRequests, Unauthorized, UnknownToken
from api.labels import InvalidLabels
from api.metrics import Metrics
from api.predict import IdempotencyKeyReused, InvalidIdempotencyKey
from api.strict_json import BodyIncomplete, BodyTooLarge, BodyTooSlow, UnsupportedBody
from api.transactions import NoSuchTransaction
from api.writer import NotStored
from fraud_detection.contract import TOO_MANY_ROWS
from fraud_detection.database.trouble import trouble
from fraud_detection.features import InvalidTransactions
from fraud_detection.store.labels import ReportedTooEarly, TooManyRows, UnknownTransaction
from fraud_detection.strict_json import NotStrictJson

ANSWERS: dict[type[Exception], tuple[int, str]] = {
    InvalidIdempotencyKey: (400, "invalid_idempotency_key"),
    BodyIncomplete: (400, "body_incomplete"),
    NotStrictJson: (400, "not_strict_json"),
    Unauthorized: (401, "unauthorized"),
    MalformedAuthorization: (401, "unauthorized"),
    UnknownToken: (401, "unauthorized"),
    Forbidden: (403, "forbidden"),
    MisspeltPath: (404, "not_found"),
    UnknownTransaction: (404, "unknown_transaction"),
    NoSuchTransaction: (404, "unknown_transaction"),
    BodyTooSlow: (408, "body_too_slow"),
    BodyTooLarge: (413, "body_too_large"),
    UnsupportedBody: (415, "unsupported_body"),
    InvalidTransactions: (422, "invalid_transactions"),
    InvalidLabels: (422, "invalid_labels"),
    ReportedTooEarly: (422, "invalid_labels"),
    TooManyRows: (422, TOO_MANY_ROWS),
    IdempotencyKeyReused: (422, "idempotency_key_reused"),
    TooManyRequests: (429, "too_many_requests"),
    TooManyInside: (503, "overloaded"),
}
"""Status and code of each exception; its own message says how to repair the request."""

_HEADERS = {429: {"Retry-After": "1"}, 503: {"Retry-After": "1"}}
_HTTP_MESSAGES = {
    400: "expected a Host header of at most 63 characters between dots; send host and port of the API's URL",
}

logger = logging.getLogger(__name__)


def answer_errors(app: flask.Flask, metrics: Metrics) -> None:
    """Reply to every exception in one format; an unexpected one is a 500 with a traceback in the log."""
    refusals = Refusals(metrics)

    def answer(status: int, code: str, message: str) -> flask.Response:
        metrics.count_rejection(code)
        response = flask.jsonify(
            {"error": {"code": code, "message": message, "request_id": request_id(flask.request.environ)}}
        )
        response.status_code = status
        response.headers.update(_HEADERS.get(status, {}))
        return response

    def answer_known(error: Exception) -> flask.Response:
        status, code = ANSWERS[type(error)]
        if isinstance(error, Unauthorized | Forbidden):
            refusals.note(flask.request.environ)
        response = answer(status, code, str(error))
        if isinstance(error, Unauthorized):
            response.headers["WWW-Authenticate"] = error.challenge
        return response

    def answer_not_stored(error: NotStored) -> flask.Response:
        return answer(503, error.code, str(error))

    def answer_unreadable(error: sa.exc.DatabaseError) -> flask.Response:
        if not isinstance(error, sa.exc.OperationalError) and trouble(error) is None:
            return answer_unexpected(error)
        logger.error("request %s: the database cannot be read: %s", request_id(flask.request.environ), error.orig)
        return answer(503, "storage_failed", "the database cannot be read now; repeat the request later")

    def answer_http(error: HTTPException) -> flask.Response:
        status = error.code or 500
        return answer(status, re.sub(r"\W+", "_", error.name.lower()), _HTTP_MESSAGES.get(status, error.name.lower()))

    def answer_path(_error: NotFound) -> flask.Response:
        without_slash = flask.request.path.removesuffix("/")
        is_known = app.url_map.bind("").allowed_methods(without_slash)
        advice = f"expected {without_slash}, without a slash at the end" if is_known else "GET /docs lists all paths"
        return answer(404, "not_found", f"no such path; {advice}")

    def answer_method(error: MethodNotAllowed) -> flask.Response:
        allowed = sorted(error.valid_methods or ())
        named = " or ".join(method for method in allowed if method != "HEAD")  # which every GET allows too
        response = answer(405, "method_not_allowed", f"expected the method {named} for this path")
        response.headers["Allow"] = ", ".join(allowed)
        return response

    def answer_unexpected(_error: Exception) -> flask.Response:
        logger.exception("request %s failed", request_id(flask.request.environ))
        return answer(
            500, "internal_error", "an internal error; the log of the API has the details under this request_id"
        )

    for kind in ANSWERS:
        app.register_error_handler(kind, answer_known)
    app.register_error_handler(NotStored, answer_not_stored)
    app.register_error_handler(sa.exc.DatabaseError, answer_unreadable)
    app.register_error_handler(HTTPException, answer_http)
    app.register_error_handler(NotFound, answer_path)
    app.register_error_handler(MethodNotAllowed, answer_method)
    app.register_error_handler(Exception, answer_unexpected)
