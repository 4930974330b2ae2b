"""GET /transactions/<id>: returns the newest decision with everything known about it, for a support desk."""

import re
from typing import Any

import flask
import sqlalchemy as sa
from gevent import get_hub

from api.admission import Admission
from api.audit import audit
from api.scopes import needs
from api.writer import Writer
from fraud_detection.contract import MAX_FOUND
from fraud_detection.database.trouble import trouble
from fraud_detection.store import Store, decisions
from fraud_detection.store.decisions import Decision
from fraud_detection.store.labels import Label

_IDENTIFIER = re.compile(r"[\x21-\x7e]{1,140}")  # a transaction id has at most 128, a request id with its row fewer


class NoSuchTransaction(Exception):
    """No transaction is stored under the requested id."""


def blueprint(reader: Store, writer: Writer, admission: Admission) -> flask.Blueprint:
    """Serve GET /transactions/<id>; `reader` is a read-only store, because only the writer uses the other one."""
    routes = flask.Blueprint("transactions", __name__)

    @routes.get("/transactions/<path:identifier>")
    @needs("read")
    def show_transaction(identifier: str) -> dict[str, Any]:
        with admission:
            # In gevent's native threads, because a query would delay every other request.
            found: dict[str, Any] | sa.exc.DatabaseError | None = get_hub().threadpool.apply(
                _look_up, (reader, identifier)
            )
        if isinstance(found, Exception):
            if trouble(found) == "corrupt":
                writer.stop_storing(found)
            raise found
        audit(flask.request.environ, "look-up", 0 if found is None else 1 + len(found["others"]))
        if found is None:
            raise NoSuchTransaction("no transaction is stored under this id")
        return found

    @routes.after_request
    def forbid_storing(response: flask.Response) -> flask.Response:
        response.headers["Cache-Control"] = "no-store"  # nor may a browser or a proxy keep what was deleted here
        return response

    return routes


def _look_up(reader: Store, identifier: str) -> dict[str, Any] | sa.exc.DatabaseError | None:
    if not _IDENTIFIER.fullmatch(identifier):  # no such id is stored, and PostgreSQL rejects a NUL
        return None
    try:
        with reader.begin() as connection:
            found = decisions.find(reader, connection, identifier)
            # Counted only if there may be more, in the same snapshot.
            total = len(found) if len(found) < MAX_FOUND else decisions.count(reader, connection, identifier)
    except sa.exc.DatabaseError as error:
        return error  # if raised in this thread it would also be printed, bypassing the log
    if not found:
        return None
    newest, *others = found
    return _in_full(newest) | {"others": [_in_short(decision) for decision in others], "total_count": total}


def _in_full(decision: Decision) -> dict[str, Any]:
    return {
        **_in_short(decision),
        "model_digest": decision.model_digest,
        "features": decision.features,
        "labels": [_label(label) for label in decision.labels],
        "labels_total_count": decision.labels_total_count,
    }


def _in_short(decision: Decision) -> dict[str, Any]:
    return {
        "request_id": decision.request_id,
        "row": decision.row_index,
        "transaction_id": decision.transaction_id,
        "ts": _iso(decision.ts),
        "fraud_probability": decision.fraud_probability,
        "is_flagged": decision.is_flagged,
        "threshold": decision.threshold,
        "model_version": decision.model_version,
        "is_fraud": decision.is_fraud,
    }


def _label(label: Label) -> dict[str, Any]:
    return {
        "is_fraud": label.is_fraud,
        "source": label.source,
        "reporter": label.reporter,
        "token_name": label.token_name,
        "reported_at": _iso(label.reported_at),
        "received_at": _iso(label.received_at),
    }


def _iso(ts: str) -> str:
    return f"{ts.replace(' ', 'T')}Z"
