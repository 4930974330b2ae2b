"""Adds labels to stored transactions, and decides which label of a transaction counts if it has several."""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import sqlalchemy as sa

from fraud_detection.contract import MAX_COUNTED, MAX_FOUND, MAX_KNOWN_LABELS, MAX_LABEL_ROWS, MAX_ROWS_PER_LABEL
from fraud_detection.schema import SOURCES
from fraud_detection.store import Store, count_up_to

_STRENGTH = {source: len(SOURCES) - place for place, source in enumerate(SOURCES)}
_ROWS_PER_STATEMENT = 1000


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


class _Row(NamedTuple):
    """A stored transaction that a label names."""

    id: int
    request_id: str
    row_index: int
    ts: str


class UnknownTransaction(Exception):
    """A label names a transaction that is not stored; `position` is its place in the list."""

    def __init__(self, position: int) -> None:
        super().__init__(f"label {position}: no such transaction is stored")
        self.position = position


class ReportedTooEarly(Exception):
    """A label was reported before its transaction; the message names its place in the list and both times."""


class TooManyRows(Exception):
    """Labels name more stored rows, or rows with more labels, than one request may."""


def add(
    store: Store,
    connection: sa.Connection,
    labels: Sequence[NewLabel],
    received_at: str,
    go_on: Callable[[], object] = lambda: None,
) -> int:
    """Add labels and set `Class` of their transactions to the label that counts; return how many labels were new.

    A label by transaction_id applies to every row stored under that id. A repeated label changes nothing. `go_on` is
    called between statements, and may raise to end the work.

    Raises, before it writes: UnknownTransaction for the first label that names no stored row, TooManyRows, and
    ReportedTooEarly for the first new one that was reported before its transaction.
    """
    named = _named_by(store, connection, labels)
    known = _known(store, connection, {row.id for rows in named for row in rows}, go_on)
    new: list[Label] = []
    changed: set[int] = set()
    added = 0
    for position, (label, rows) in enumerate(zip(labels, named, strict=True)):
        reported_at = label.reported_at or received_at
        fresh = [row for row in rows if not known.repeats(row.id, label)]
        # Rows under one transaction id are one transaction, which was first stored with the earliest of them.
        ts = min(row.ts for row in rows)
        if fresh and label.latest_ts is not None and label.latest_ts < ts:
            raise ReportedTooEarly(
                f"label {position}, reported_at: {reported_at[:19]} UTC is before its transaction, which is of "
                f"{ts[:19]} UTC; give the time of the report, or leave reported_at out"
            )
        for row in fresh:
            verdict = Label(
                row.request_id,
                row.row_index,
                label.is_fraud,
                label.source,
                label.reporter,
                reported_at,
                received_at,
            )
            known.take(row.id, verdict)
            new.append(verdict)
        changed.update(row.id for row in fresh)
        added += bool(fresh)
    for page in _pages(new):
        go_on()
        values = [{**vars(verdict), "is_fraud": int(verdict.is_fraud)} for verdict in page]
        connection.execute(sa.insert(store.tables.labels), values)
    _set_classes(store, connection, {row: known.counting[row].is_fraud for row in changed}, go_on)
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


def _named_by(store: Store, connection: sa.Connection, labels: Sequence[NewLabel]) -> list[list[_Row]]:
    """Return the rows that each label names.

    Raises: UnknownTransaction, TooManyRows.
    """
    requests = store.tables.requests
    key = (requests.c.request_id, requests.c.row_index)
    wanted = [requests.c[name] for name in _Row._fields]
    names = {_name(label) for label in labels}
    found: dict[str | tuple[str | None, int | None], list[_Row]] = {name: [] for name in names}
    for page in _pages([name for name in names if isinstance(name, tuple)]):
        for row in connection.execute(sa.select(*wanted).where(sa.tuple_(*key).in_(page))):
            found[row.request_id, row.row_index].append(_Row(*row))
    identifiers = [name for name in names if isinstance(name, str)]
    limit = min(MAX_LABEL_ROWS, MAX_ROWS_PER_LABEL * len(identifiers))
    for page in _pages(identifiers):
        query = sa.select(requests.c.transaction_id, *wanted).where(requests.c.transaction_id.in_(page))
        for transaction_id, *columns in connection.execute(query.limit(limit + 1)):
            found[transaction_id].append(_Row(*columns))
    is_cut_off = sum(len(found[identifier]) for identifier in identifiers) > limit
    total = 0
    for position, label in enumerate(labels):
        name = _name(label)
        # If the limit has cut them off, the rows of an id are counted.
        rows = _count_rows(store, connection, name) if is_cut_off and isinstance(name, str) else len(found[name])
        total += rows
        if rows == 0:
            raise UnknownTransaction(position)
        if rows > MAX_ROWS_PER_LABEL:
            raise TooManyRows(
                f"label {position}: its transaction_id names more than {MAX_ROWS_PER_LABEL} stored rows; name one of "
                "them by request_id and row"
            )
        if total > MAX_LABEL_ROWS:
            raise TooManyRows(
                f"labels 0 to {position} name more than {MAX_LABEL_ROWS} stored rows: send fewer labels in a request, "
                "or name each row by request_id and row"
            )
    return [found[_name(label)] for label in labels]


def _count_rows(store: Store, connection: sa.Connection, transaction_id: str) -> int:
    """Return how many rows have this id, counting only as far as a label may reach."""
    requests = store.tables.requests
    return count_up_to(connection, MAX_ROWS_PER_LABEL + 1, requests, requests.c.transaction_id == transaction_id)


class _Known:
    """What the labels of some rows (by `requests.id`) say: what a further label repeats, and which one counts."""

    def __init__(self) -> None:
        self.counting: dict[int, Label] = {}
        self._verdicts: dict[tuple[int, str, str], set[tuple[bool, str]]] = {}
        self._last: dict[tuple[int, str, str], Label] = {}

    def take(self, row: int, label: Label) -> None:
        """Add a label of a row."""
        said = (row, label.source, label.reporter)
        last, counting = self._last.get(said), self.counting.get(row)
        self._verdicts.setdefault(said, set()).add((label.is_fraud, label.reported_at))
        if last is None or (label.reported_at, label.received_at) >= (last.reported_at, last.received_at):
            self._last[said] = label
        self.counting[row] = label if counting is None else label_that_counts((counting, label))

    def repeats(self, row: int, label: NewLabel) -> bool:
        """Return whether its source and reporter said the same of the row before."""
        said = (row, label.source, label.reporter)
        if label.reported_at is not None:
            return (label.is_fraud, label.reported_at) in self._verdicts.get(said, ())
        return said in self._last and self._last[said].is_fraud == label.is_fraud


def _known(store: Store, connection: sa.Connection, rows: Collection[int], go_on: Callable[[], object]) -> _Known:
    """Return what the labels of these rows say.

    Raises: TooManyRows.
    """
    requests, labels = store.tables.requests, store.tables.labels
    # By the number of the row: thousands of pairs in one IN would take PostgreSQL minutes.
    both = labels.join(
        requests, sa.and_(labels.c.request_id == requests.c.request_id, labels.c.row_index == requests.c.row_index)
    )
    pages = [requests.c.id.in_(page) for page in _pages(rows)]
    if sum(count_up_to(connection, MAX_KNOWN_LABELS + 1, both, is_named) for is_named in pages) > MAX_KNOWN_LABELS:
        raise TooManyRows(
            f"the transactions have more than {MAX_KNOWN_LABELS} labels already: send fewer labels in a request"
        )
    known = _Known()
    for is_named in pages:
        go_on()
        query = sa.select(requests.c.id, labels).select_from(both).where(is_named).order_by(labels.c.id)
        for row, *columns in connection.execute(query):
            known.take(row, label_of(columns))
    return known


def _set_classes(
    store: Store, connection: sa.Connection, is_fraud: Mapping[int, bool], go_on: Callable[[], object]
) -> None:
    requests = store.tables.requests
    for value in (False, True):
        for page in _pages(sorted(row for row, is_its_class in is_fraud.items() if is_its_class is value)):
            go_on()
            differs = requests.c["Class"].is_distinct_from(
                int(value)
            )  # rows are not rewritten for what they say already
            connection.execute(
                sa.update(requests).where(requests.c.id.in_(page), differs).values({"Class": int(value)})
            )


def newest_of(store: Store, connection: sa.Connection, key: tuple[str, int]) -> list[Label]:
    """Return the labels of a row that were reported last, at most MAX_FOUND, in the order in which they were added."""
    labels = store.tables.labels
    of_row = sa.and_(labels.c.request_id == key[0], labels.c.row_index == key[1])
    newest = sa.select(labels).where(of_row).order_by(labels.c.reported_at.desc(), labels.c.id.desc()).limit(MAX_FOUND)
    return [label_of(row) for row in sorted(connection.execute(newest), key=lambda row: row.id)]


def count(store: Store, connection: sa.Connection, key: tuple[str, int]) -> int:
    """Return how many labels a row has, at most MAX_COUNTED."""
    labels = store.tables.labels
    of_row = sa.and_(labels.c.request_id == key[0], labels.c.row_index == key[1])
    return count_up_to(connection, MAX_COUNTED, labels, of_row)


def _pages(rows: Collection[Any]) -> Iterator[list[Any]]:
    """Split rows into lists that each fit into one statement."""
    ordered = list(rows)
    for start in range(0, len(ordered), _ROWS_PER_STATEMENT):
        yield ordered[start : start + _ROWS_PER_STATEMENT]


def _name(label: NewLabel) -> str | tuple[str | None, int | None]:
    return label.transaction_id if label.transaction_id is not None else (label.request_id, label.row_index)


def label_of(row: Sequence[Any]) -> Label:
    """Return a row of the table `labels` as a Label."""
    _, request_id, row_index, is_fraud, *said = row  # by place, because requests may read tens of thousands
    return Label(request_id, row_index, bool(is_fraud), *said)
