"""Adds labels to stored transactions, and decides which label of a transaction counts if it has several."""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from fraud_detection.schema import SOURCES
from fraud_detection.store import Store

_STRENGTH = {source: len(SOURCES) - place for place, source in enumerate(SOURCES)}
_KEYS_PER_QUERY = 5000  # each binds two values: fewer than the limit of either database


@dataclass(frozen=True)
class Label:
    """A stored label: what a source reported of a transaction, and when."""

    request_id: str
    row_index: int
    is_fraud: bool
    source: str
    reporter: str
    reported_at: str
    received_at: str


@dataclass(frozen=True)
class NewLabel:
    """A label to add; it names its transaction by request_id and row_index, or by transaction_id."""

    is_fraud: bool
    source: str
    reporter: str
    reported_at: str | None
    """If None, the time of receipt; a repetition if the last label of this source and reporter says the same."""
    request_id: str | None = None
    row_index: int | None = None
    transaction_id: str | None = None
    latest_ts: str | None = None
    """The latest time at which the transaction can have been, as it was reported then; None if there is no bound."""


class UnknownTransaction(Exception):
    """A label names a transaction that is not stored; `position` is its place in the list."""

    def __init__(self, position: int) -> None:
        super().__init__(f"label {position}: no such transaction is stored")
        self.position = position


class ReportedTooEarly(Exception):
    """A label was reported before its transaction; the message names its place in the list and both times."""


def add(store: Store, connection: sa.Connection, labels: Sequence[NewLabel], received_at: str) -> int:
    """Add labels and set `Class` of their transactions to the label that counts; return how many labels were new.

    A label by transaction_id applies to every row stored under that id. A repeated label changes nothing.

    Raises: UnknownTransaction for the first label that names no stored row, ReportedTooEarly for the first new one that
    was reported before its transaction; roll the transaction back.
    """
    named = _named_by(store, connection, labels)
    for position, rows in enumerate(named):
        if not rows:
            raise UnknownTransaction(position)
    said = of_rows(store, connection, {key for rows in named for key in rows})
    new: list[Label] = []
    added = 0
    for position, (label, rows) in enumerate(zip(labels, named, strict=True)):
        reported_at = label.reported_at or received_at
        fresh = [
            Label(*key, label.is_fraud, label.source, label.reporter, reported_at, received_at)
            for key in rows
            if not _is_repetition(label, said[key])
        ]
        # Rows under one transaction id are one transaction, which was first stored with the earliest of them.
        ts = min(rows.values())
        if fresh and label.latest_ts is not None and label.latest_ts < ts:
            raise ReportedTooEarly(
                f"label {position}, reported_at: {reported_at[:19]} UTC is before its transaction, which is of "
                f"{ts[:19]} UTC; give the time of the report, or leave reported_at out"
            )
        for verdict in fresh:
            said[verdict.request_id, verdict.row_index].append(verdict)
        new += fresh
        added += bool(fresh)
    if new:
        values = [{**vars(verdict), "is_fraud": int(verdict.is_fraud)} for verdict in new]
        connection.execute(sa.insert(store.tables.labels), values)
        _set_classes(store, connection, {key: said[key] for key in ((one.request_id, one.row_index) for one in new)})
    return added


def label_that_counts(labels: Iterable[Label]) -> Label:
    """Return the label reported last; on a tie the stronger source, then the one received last.

    The order in which labels arrive does not matter. If these are equal too and the verdicts differ, fraud counts.
    """
    return max(
        labels,
        key=lambda label: (
            label.reported_at,
            _STRENGTH[label.source],
            label.received_at,
            label.is_fraud,
            label.reporter,
        ),
    )


def _named_by(store: Store, connection: sa.Connection, labels: Sequence[NewLabel]) -> list[dict[tuple[str, int], str]]:
    """Return the rows that each label names: the ts of each by its (request_id, row_index)."""
    requests = store.tables.requests
    key = (requests.c.request_id, requests.c.row_index)
    names = {_name(label) for label in labels}
    found: dict[str | tuple[str | None, int | None], dict[tuple[str, int], str]] = {name: {} for name in names}
    for page in _pages([name for name in names if isinstance(name, str)]):
        query = sa.select(*key, requests.c.ts, requests.c.transaction_id).where(requests.c.transaction_id.in_(page))
        for request_id, row_index, ts, transaction_id in connection.execute(query):
            found[transaction_id][request_id, row_index] = ts
    for page in _pages([name for name in names if isinstance(name, tuple)]):
        query = sa.select(*key, requests.c.ts).where(sa.tuple_(*key).in_(page))
        for request_id, row_index, ts in connection.execute(query):
            found[request_id, row_index] = {(request_id, row_index): ts}
    return [found[_name(label)] for label in labels]


def _set_classes(store: Store, connection: sa.Connection, said: Mapping[tuple[str, int], Sequence[Label]]) -> None:
    requests = store.tables.requests
    connection.execute(
        sa.update(requests)
        .where(requests.c.request_id == sa.bindparam("of_request"), requests.c.row_index == sa.bindparam("of_row"))
        .values({"Class": sa.bindparam("counting")}),
        [
            {"of_request": key[0], "of_row": key[1], "counting": int(label_that_counts(labels).is_fraud)}
            for key, labels in sorted(said.items())
        ],
    )


def of_rows(
    store: Store, connection: sa.Connection, keys: Collection[tuple[str, int]]
) -> dict[tuple[str, int], list[Label]]:
    """Return the labels of each of these rows, in the order in which they were added."""
    labels = store.tables.labels
    said: dict[tuple[str, int], list[Label]] = {key: [] for key in keys}
    for page in _pages(keys):
        query = sa.select(labels).where(sa.tuple_(labels.c.request_id, labels.c.row_index).in_(page))
        for row in connection.execute(query.order_by(labels.c.id)):
            said[row.request_id, row.row_index].append(label_of(row))
    return said


def _pages(keys: Collection[Any]) -> Iterator[list[Any]]:
    """Split keys into lists that each fit into one query."""
    ordered = list(keys)
    for start in range(0, len(ordered), _KEYS_PER_QUERY):
        yield ordered[start : start + _KEYS_PER_QUERY]


def _name(label: NewLabel) -> str | tuple[str | None, int | None]:
    return label.transaction_id if label.transaction_id is not None else (label.request_id, label.row_index)


def _is_repetition(label: NewLabel, said: Sequence[Label]) -> bool:
    same = [known for known in said if (known.source, known.reporter) == (label.source, label.reporter)]
    if label.reported_at is not None:
        return (label.is_fraud, label.reported_at) in {(known.is_fraud, known.reported_at) for known in same}
    same.sort(key=lambda known: (known.reported_at, known.received_at))
    return bool(same) and same[-1].is_fraud == label.is_fraud


def label_of(row: sa.Row[Any]) -> Label:
    """Return a row of the table `labels` as a Label."""
    return Label(
        request_id=row.request_id,
        row_index=row.row_index,
        is_fraud=bool(row.is_fraud),
        source=row.source,
        reporter=row.reporter,
        reported_at=row.reported_at,
        received_at=row.received_at,
    )
