"""POST /predict: scores transactions, stores them, and replies after the commit."""

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Never
from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

import flask

from api.admission import Admission
from api.arrival import arrived_at, request_id
from api.auth import Tokens, authenticate
from api.metrics import Metrics
from api.scopes import needs
from api.served_model import ServedModel
from api.strict_json import parse_in_turn, read_body
from api.writer import Writer
from fraud_detection.contract import IDEMPOTENCY_KEY, MAX_ROWS, TRANSACTION_ID, TRANSACTION_ID_FORM
from fraud_detection.features import FeatureList, InvalidTransactions, Matrix
from fraud_detection.model.manifest import AmountScaling
from fraud_detection.store.decisions import ScoredRequest, StoredReply

_ERROR = "fraud.error"


class InvalidIdempotencyKey(Exception):
    """An Idempotency-Key that is not 1 to 255 visible ASCII characters."""


class IdempotencyKeyReused(Exception):
    """An Idempotency-Key that was used before with another body."""


@dataclass(frozen=True)
class Transactions:
    """The transactions of a request."""

    matrix: Matrix
    suspicious_rows: int
    """How many have a value that was never seen, although it is within its bounds."""
    transaction_ids: list[str | None]
    """The client's id of each, None if it gave none."""


def in_front_of(
    application: WSGIApplication,
    features: FeatureList,
    *,
    threshold: float,
    served: ServedModel,
    writer: Writer,
    admission: Admission,
    tokens: Tokens,
    metrics: Metrics,
) -> WSGIApplication:
    """Serve POST /predict; pass on every other request, and failed ones with their error.

    A transaction that scores at least the threshold is flagged. Plain WSGI, because Flask's routing, contexts and
    response objects cost more time than scoring and storing together.
    """

    def answer(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        # The method as lenient as in Flask, which would otherwise receive a request that has no error.
        if environ["PATH_INFO"] != "/predict" or environ["REQUEST_METHOD"].upper() != "POST":
            return application(environ, start_response)
        try:
            headers, body = predict(environ)
        except Exception as error:  # api/errors.py replies to it
            environ[_ERROR] = error
            try:
                return application(environ, start_response)
            finally:
                # Its traceback holds environ and the parsed body: as a cycle, these would stay in memory for a while.
                del environ[_ERROR]
        start_response("200 OK", headers)
        return [body]

    def predict(environ: WSGIEnvironment) -> tuple[list[tuple[str, str]], bytes]:
        authenticate(environ, tokens, "predict")
        admission.check()
        key = _idempotency_key(environ.get("HTTP_IDEMPOTENCY_KEY"))
        body = read_body(environ)
        with admission:
            body_sha256 = None if key is None else hashlib.sha256(body).hexdigest()
            document = parse_in_turn(body)
            model = served.current  # read once, so that the model that scores also says how to scale amounts
            sent = read_transactions(document, features, model.manifest.amount_scaling)
            del body, document  # hundreds of requests may wait for the writer, and they are most of their memory
            scored = ScoredRequest(
                request_id=request_id(environ),
                ts=arrived_at(environ),
                matrix=sent.matrix,
                fraud_probability=model.score(sent.matrix).tolist(),
                threshold=threshold,
                model_version=model.version,
                model_digest=model.digest,
                transaction_ids=sent.transaction_ids,
                idempotency_key=key,
                body_sha256=body_sha256,
            )
            stored_before = writer.append(scored)
        if stored_before is not None and stored_before.body_sha256 != scored.body_sha256:
            raise IdempotencyKeyReused("this Idempotency-Key was used with another body; use a new key")
        if stored_before is not None:
            headers, reply = _reply(stored_before)
            return [*headers, ("Idempotency-Replayed", "true")], reply
        metrics.count_predictions(scored.fraud_probability, sum(scored.is_flagged))
        if sent.suspicious_rows:
            metrics.suspicious_rows.inc(sent.suspicious_rows)
        return _reply(scored)

    return answer


def blueprint() -> flask.Blueprint:
    """Serve the rest of /predict in Flask: methods other than POST, and the errors of POST."""
    routes = flask.Blueprint("predict", __name__)

    @routes.post("/predict")
    @needs("predict")
    def answer_error() -> Never:
        raise flask.request.environ[_ERROR]

    return routes


def _idempotency_key(header: str | None) -> str | None:
    if header is not None and not IDEMPOTENCY_KEY.fullmatch(header):
        raise InvalidIdempotencyKey("Idempotency-Key: expected 1 to 255 visible ASCII characters")
    return header


def _reply(of: ScoredRequest | StoredReply) -> tuple[list[tuple[str, str]], bytes]:
    """Render headers and body of the reply; a stored reply renders to the same bytes as before."""
    answer = {
        "fraud_probability": of.fraud_probability,
        "is_flagged": of.is_flagged,
        "threshold": of.threshold,
        "model_version": of.model_version,
        "request_id": of.request_id,
    }
    body = json.dumps(answer, allow_nan=False).encode() + b"\n"
    headers = [
        ("Content-Type", "application/json"),
        ("Content-Length", str(len(body))),
        ("X-Model-Digest", of.model_digest),
    ]
    return headers, body


def read_transactions(document: object, features: FeatureList, amount_scaling: AmountScaling | None) -> Transactions:
    """Return the rows of a body, with every Amount scaled, and the client's ids for them.

    Raises InvalidTransactions.
    """
    if not isinstance(document, dict) or "data" not in document:
        raise InvalidTransactions(f'expected an object with the field data: {{"data": [[{len(features)} numbers], …]}}')
    if not document.keys() <= {"data", "transaction_ids"}:
        raise InvalidTransactions("expected the fields data and transaction_ids, and no others")
    rows = document["data"]
    if isinstance(rows, list) and len(rows) > MAX_ROWS:
        raise InvalidTransactions(f"expected at most {MAX_ROWS} rows in data, got {len(rows)}")
    matrix = features.to_numbers(rows, amount_scaling)
    return Transactions(matrix, features.check(matrix), _transaction_ids(document.get("transaction_ids"), len(matrix)))


def _transaction_ids(identifiers: object, rows: int) -> list[str | None]:
    if identifiers is None:
        return [None] * rows
    if not isinstance(identifiers, list) or len(identifiers) != rows:
        raise InvalidTransactions(f"transaction_ids: expected a list of {rows}, one for each row of data")
    for index, identifier in enumerate(identifiers):
        if identifier is not None and not (isinstance(identifier, str) and TRANSACTION_ID.fullmatch(identifier)):
            raise InvalidTransactions(f"transaction_ids, row {index}: expected {TRANSACTION_ID_FORM}, or null")
    return identifiers
