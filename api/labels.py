"""POST /labels: stores what transactions turned out to be."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import flask

from api.admission import Admission
from api.arrival import arrived_at, request_id
from api.audit import audit
from api.auth import token_name
from api.scopes import needs
from api.strict_json import parse_in_turn, read_body
from api.writer import Writer
from fraud_detection.clock import CLOCK_DIFFERENCE, is_date, read_time, timestamp
from fraud_detection.contract import LABEL_SOURCES, MAX_LABELS, STORED_ID
from fraud_detection.store import Store, labels
from fraud_detection.store.labels import NewLabel

REPORTER = "api"

_EARLIEST = datetime(1970, 1, 1, tzinfo=UTC)


class InvalidLabels(Exception):
    """JSON that is not labels; the message names the label's position and the field, never the value."""


def blueprint(store: Store, writer: Writer, admission: Admission) -> flask.Blueprint:
    """Serve POST /labels: store all labels of a request, or none."""
    routes = flask.Blueprint("labels", __name__)

    @routes.post("/labels")
    @needs("label")
    def add_labels() -> dict[str, object]:
        admission.check()
        body = read_body(flask.request.environ)
        with admission:
            new_labels = read_labels(parse_in_turn(body), datetime.now(UTC))
            del body  # hundreds of requests may wait for the writer
            received_at = arrived_at(flask.request.environ)
            environ = flask.request.environ
            name = token_name(environ)
            try:
                added = writer.run(
                    lambda connection: labels.add(
                        store, connection, new_labels, received_at, writer.go_on, token_name=name
                    )
                )
            finally:  # of an error as well: the labels may be stored, and a 404 says which transactions are
                audit(environ, "labels", len(new_labels))
        return {
            "labels_added": added,
            "labels_known": len(new_labels) - added,
            "request_id": request_id(flask.request.environ),
        }

    return routes


def read_labels(document: object, now: datetime) -> list[NewLabel]:
    """Return the labels of a body.

    Raises InvalidLabels.
    """
    entries = document.get("labels") if isinstance(document, dict) and len(document) == 1 else None
    if not isinstance(entries, list):
        raise InvalidLabels('expected {"labels": [{"transaction_id": …, "is_fraud": …, "source": …}, …]}')
    if not 1 <= len(entries) <= MAX_LABELS:
        raise InvalidLabels(f"expected 1 to {MAX_LABELS} labels, got {len(entries)}")
    return [_label(place, entry, now) for place, entry in enumerate(entries)]


def _label(place: int, entry: object, now: datetime) -> NewLabel:
    if not isinstance(entry, dict) or not entry.keys() <= _FIELDS.keys():
        raise InvalidLabels(f"label {place}: expected an object with no other fields than {', '.join(_FIELDS)}")
    named_by = entry.keys() & {"request_id", "row", "transaction_id"}
    if named_by not in ({"request_id", "row"}, {"transaction_id"}):
        raise InvalidLabels(f"label {place}: expected either request_id and row, or transaction_id")
    for name in ("is_fraud", "source"):
        if name not in entry:
            raise InvalidLabels(f"label {place}: the field {name} is missing")
    for name, value in entry.items():
        is_right, expected = _FIELDS[name]
        if not is_right(value):
            raise InvalidLabels(f"label {place}, {name}: expected {expected}")
    reported_at, latest_ts = _moment(place, entry["reported_at"], now) if "reported_at" in entry else (None, None)
    return NewLabel(
        is_fraud=entry["is_fraud"],
        source=entry["source"],
        reporter=entry.get("reporter", REPORTER),
        reported_at=reported_at,
        request_id=entry.get("request_id"),
        row_index=entry.get("row"),
        transaction_id=entry.get("transaction_id"),
        latest_ts=latest_ts,
    )


def _moment(place: int, text: str, now: datetime) -> tuple[str, str]:
    """Return when a label was reported, and the latest time that its transaction can then have.

    A date has no time of day: of its day every transaction may be.
    """
    try:
        moment = read_time(text)
    except ValueError:
        moment = None
    if moment is not None and is_date(text):
        moment = moment.replace(tzinfo=UTC)
    # Compared with their zones: converting a date at the edge of the calendar would overflow.
    if moment is None or moment.tzinfo is None or not _EARLIEST <= moment <= now + CLOCK_DIFFERENCE:
        raise InvalidLabels(
            f"label {place}, reported_at: expected a past time in ISO 8601 with its zone, as 2026-08-22T10:15:30Z, "
            "or a date, as 2026-08-22"
        )
    end = moment + timedelta(days=1, microseconds=-1) if is_date(text) else moment
    return timestamp(moment), timestamp(end + CLOCK_DIFFERENCE)


def _is_identifier(value: object) -> bool:
    return isinstance(value, str) and STORED_ID.fullmatch(value) is not None


_FIELDS: dict[str, tuple[Callable[[object], bool], str]] = {
    "request_id": (_is_identifier, "the request_id of a reply of this API"),
    "row": (lambda value: type(value) is int and 0 <= value < 2**31, "the position of the transaction, from 0"),
    "transaction_id": (_is_identifier, "1 to 128 visible ASCII characters without spaces"),
    "is_fraud": (lambda value: isinstance(value, bool), "true or false"),
    "source": (lambda value: value in LABEL_SOURCES, f"one of {', '.join(LABEL_SOURCES)}"),
    "reported_at": (lambda value: isinstance(value, str), "a text"),
    "reporter": (
        lambda value: isinstance(value, str) and 1 <= len(value) <= 64 and value.isprintable(),
        "1 to 64 printable characters",
    ),
}
