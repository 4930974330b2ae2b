"""Erases transactions, on demand or past their retention, and finds problems of a store."""

from dataclasses import dataclass

import sqlalchemy as sa

from fraud_detection.counted import counted
from fraud_detection.database.sqlite import damage
from fraud_detection.features import LIMIT
from fraud_detection.store import Store, decisions


@dataclass(frozen=True)
class Erased:
    """The rows that were erased, by (request_id, row_index), with how many labels and idempotency keys."""

    keys: list[tuple[str, int]]
    labels: int
    idempotency_keys: int


def forget(store: Store, connection: sa.Connection, identifier: str, limit: int) -> Erased:
    """Erase at most `limit` rows that an identifier names, as `decisions.find` reads it, with labels and keys.

    A request that loses a row can no longer be replayed whole, so its idempotency key is erased too.
    """
    requests, labels = store.tables.requests, store.tables.labels
    ids = connection.scalars(sa.select(requests.c.id).where(decisions.named_by(store, identifier)).limit(limit)).all()
    named = requests.c.id.in_(ids)
    rows = sa.select(requests.c.request_id, requests.c.row_index).where(named)
    keys = [(row.request_id, row.row_index) for row in connection.execute(rows)]
    erased = connection.execute(
        sa.delete(labels).where(sa.tuple_(labels.c.request_id, labels.c.row_index).in_(rows))
    ).rowcount
    connection.execute(sa.delete(requests).where(named))
    idempotency_keys = _erase_keys(store, connection, {request_id for request_id, _ in keys})
    return Erased(keys, erased, idempotency_keys)


def expire(store: Store, connection: sa.Connection, before: str, limit: int) -> int:
    """Erase at most `limit` of the oldest scored rows before a time that have no label; return how many were erased.

    Labelled rows stay, because the next models are trained and judged on them.
    """
    requests = store.tables.requests
    old = connection.execute(
        sa.select(requests.c.request_id, requests.c.row_index)
        .where(
            requests.c.ts < before,
            requests.c["Class"].is_(None),
            requests.c.fraud_probability.is_not(None),
        )
        .order_by(requests.c.ts)
        .limit(limit)
    )
    keys = [(row.request_id, row.row_index) for row in old]
    for key in keys:
        _erase_row(store, connection, *key)
    _erase_keys(store, connection, {request_id for request_id, _ in keys})
    return len(keys)


def _erase_row(store: Store, connection: sa.Connection, request_id: str, row_index: int) -> None:
    for table in (store.tables.labels, store.tables.requests):
        connection.execute(sa.delete(table).where(table.c.request_id == request_id, table.c.row_index == row_index))


def _erase_keys(store: Store, connection: sa.Connection, request_ids: set[str]) -> int:
    keys = store.tables.idempotency
    return sum(
        connection.execute(sa.delete(keys).where(keys.c.request_id == request_id)).rowcount
        for request_id in sorted(request_ids)
    )


def problems(store: Store, connection: sa.Connection) -> list[str]:
    """Check the whole store and return its problems, if any."""
    requests, labels = store.tables.requests, store.tables.labels
    found = damage(connection)
    if found:
        return found  # a damaged file gives no other reliable answer
    # The API never writes such rows; a manual UPDATE and SQLite's Inf can.
    out_of_range = sa.or_(
        *(sa.or_(requests.c[name] > LIMIT, requests.c[name] < -LIMIT) for name in store.features.names)
    )
    labelled = sa.select(labels.c.id).where(
        labels.c.request_id == requests.c.request_id, labels.c.row_index == requests.c.row_index
    )
    for meaning, wrong in (
        ("with a feature that is not a number in range", out_of_range),
        ("with a label, but without Class", sa.and_(requests.c["Class"].is_(None), labelled.exists())),
    ):
        count = connection.scalar(sa.select(sa.func.count()).select_from(requests).where(wrong))
        found += [f"{counted(count, 'row')} {meaning}"] if count else []
    return found
