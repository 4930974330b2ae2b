"""Appends scored requests, replays replies to repeated ones, and looks up the newest decisions under an id."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import sqlalchemy as sa

from fraud_detection.contract import MAX_COUNTED, MAX_FOUND
from fraud_detection.decision import flagged
from fraud_detection.features import Matrix
from fraud_detection.schema import REVISION
from fraud_detection.store import Store, count_up_to, labels
from fraud_detection.store.labels import Label


@dataclass(frozen=True)
class ScoredRequest:
    """One scored request; the store holds all its rows or none."""

    request_id: str
    ts: str
    matrix: Matrix
    fraud_probability: list[float]
    threshold: float
    model_version: str
    model_digest: str
    transaction_ids: Sequence[str | None]
    idempotency_key: str | None = None
    body_sha256: str | None = None

    @property
    def is_flagged(self) -> list[bool]:
        """Return for each row whether it is flagged."""
        return flagged(self.fraud_probability, self.threshold)


@dataclass(frozen=True)
class StoredReply:
    """The stored reply to the first request with an idempotency key."""

    body_sha256: str
    request_id: str
    fraud_probability: list[float]
    is_flagged: list[bool]
    threshold: float
    model_version: str
    model_digest: str


@dataclass(frozen=True)
class Decision:
    """One stored transaction with its score, if it has one, and its labels."""

    request_id: str
    row_index: int
    ts: str
    transaction_id: str | None
    features: dict[str, float]
    fraud_probability: float | None
    is_flagged: bool | None
    threshold: float | None
    model_version: str | None
    model_digest: str | None
    is_fraud: bool | None
    labels: list[Label]
    """Those reported last, at most MAX_FOUND, in the order in which they were added."""
    labels_total_count: int


def append(store: Store, connection: sa.Connection, requests: Iterable[ScoredRequest]) -> None:
    """Insert requests, each with all its rows and its idempotency key.

    The values of a row stand in the order of `names_of(requests, Role.ROW, Role.FEATURE, Role.DECISION)`.

    Raises: sqlalchemy.exc.IntegrityError if an idempotency key is taken.
    """
    rows: list[tuple[object, ...]] = []
    keys: list[dict[str, str]] = []
    for request in requests:
        for index, (numbers, score, is_flagged, transaction_id) in enumerate(
            zip(
                request.matrix.tolist(),
                request.fraud_probability,
                request.is_flagged,
                request.transaction_ids,
                strict=True,
            )
        ):
            rows.append(
                (
                    request.request_id,
                    index,
                    request.ts,
                    *numbers,
                    score,
                    request.threshold,
                    int(is_flagged),
                    request.model_version,
                    request.model_digest,
                    transaction_id,
                    REVISION,
                )
            )
        if request.idempotency_key is not None and request.body_sha256 is not None:
            keys.append(
                {
                    "idempotency_key": request.idempotency_key,
                    "body_sha256": request.body_sha256,
                    "request_id": request.request_id,
                    "ts": request.ts,
                }
            )
    if keys:
        connection.execute(sa.insert(store.tables.idempotency), keys)
    connection.exec_driver_sql(store.insert_decisions, rows)


def replay(store: Store, connection: sa.Connection, idempotency_key: str) -> StoredReply | None:
    """Return the reply to the request that came with this idempotency key; None if the key is new."""
    keys, requests = store.tables.idempotency, store.tables.requests
    rows = connection.execute(
        sa.select(
            keys.c.body_sha256,
            requests.c.request_id,
            requests.c.fraud_probability,
            requests.c.is_flagged,
            requests.c.threshold,
            requests.c.model_version,
            requests.c.model_digest,
        )
        .join(requests, requests.c.request_id == keys.c.request_id)
        .where(keys.c.idempotency_key == idempotency_key)
        .order_by(requests.c.row_index)
    ).all()
    if not rows:
        return None
    first = rows[0]
    return StoredReply(
        body_sha256=first.body_sha256,
        request_id=first.request_id,
        fraud_probability=[row.fraud_probability for row in rows],
        is_flagged=[bool(row.is_flagged) for row in rows],
        threshold=first.threshold,
        model_version=first.model_version,
        model_digest=first.model_digest,
    )


def find(store: Store, connection: sa.Connection, identifier: str) -> list[Decision]:
    """Return the newest transactions that an identifier names, at most MAX_FOUND, the newest first.

    An identifier is the client's transaction id, `request_id:row`, or a request id (all rows of that request).
    """
    requests = store.tables.requests
    order = (requests.c.ts.desc(), requests.c.row_index)
    # One query for each index: with OR, the database would read and sort everything that is stored under the name.
    newest = [
        sa.select(requests.c.id).where(name).order_by(*order).limit(MAX_FOUND).subquery()
        for name in _names(store, identifier)
    ]
    either = sa.union(*(sa.select(ids.c.id) for ids in newest))
    query = sa.select(requests).where(requests.c.id.in_(either)).order_by(*order).limit(MAX_FOUND)
    return [_decision(store, connection, row) for row in connection.execute(query).mappings().all()]


def count(store: Store, connection: sa.Connection, identifier: str) -> int:
    """Return how many transactions an identifier names, as `find` reads it; at most MAX_COUNTED."""
    requests = store.tables.requests
    by_client, by_us = _names(store, identifier)
    not_twice = requests.c.transaction_id.is_distinct_from(identifier)
    names = (by_client, sa.and_(by_us, not_twice))
    return min(MAX_COUNTED, sum(count_up_to(connection, MAX_COUNTED, requests, name) for name in names))


def newest_model_digest(store: Store, connection: sa.Connection) -> str | None:
    """Return the digest of the model that scored the row stored last; None if there is none."""
    requests = store.tables.requests
    return connection.scalar(sa.select(requests.c.model_digest).order_by(requests.c.id.desc()).limit(1))


def rows_of(store: Store, connection: sa.Connection, identifier: str) -> list[tuple[str, int]]:
    """Return (request_id, row_index) of every row that an identifier names, as `find` reads it."""
    requests = store.tables.requests
    found = connection.execute(
        sa.select(requests.c.request_id, requests.c.row_index).where(named_by(store, identifier))
    )
    return [(row.request_id, row.row_index) for row in found]


def named_by(store: Store, identifier: str) -> sa.ColumnElement[bool]:
    """Return the condition that selects the rows which an identifier names, as `find` reads it."""
    return sa.or_(*_names(store, identifier))


def _names(store: Store, identifier: str) -> tuple[sa.ColumnElement[bool], sa.ColumnElement[bool]]:
    """Return what selects the rows whose transaction_id it is, and those of the request or row that it names."""
    requests = store.tables.requests
    by_client = requests.c.transaction_id == identifier
    request_id, row = key_in(identifier)
    by_us = requests.c.request_id == request_id
    return by_client, by_us if row is None else sa.and_(by_us, requests.c.row_index == row)


def key_in(identifier: str) -> tuple[str, int | None]:
    """Return request id and row of an identifier as `find` reads it; the row is None if it names all of the request.

    >>> key_in("0198c2a5-8f1e:7"), key_in("order-1001")
    (('0198c2a5-8f1e', 7), ('order-1001', None))
    """
    request_id, _, row = identifier.rpartition(":")
    if request_id and row.isdecimal() and len(row) <= 9:
        return request_id, int(row)
    return identifier, None


def _decision(store: Store, connection: sa.Connection, row: sa.RowMapping) -> Decision:
    key = (row["request_id"], row["row_index"])
    newest = [] if row["Class"] is None else labels.newest_of(store, connection, key)
    return Decision(
        request_id=row["request_id"],
        row_index=row["row_index"],
        ts=row["ts"],
        transaction_id=row["transaction_id"],
        features={name: row[name] for name in store.features.names},
        fraud_probability=row["fraud_probability"],
        is_flagged=None if row["is_flagged"] is None else bool(row["is_flagged"]),
        threshold=row["threshold"],
        model_version=row["model_version"],
        model_digest=row["model_digest"],
        is_fraud=None if row["Class"] is None else bool(row["Class"]),
        labels=newest,
        labels_total_count=len(newest) if len(newest) < MAX_FOUND else labels.count(store, connection, key),
    )
