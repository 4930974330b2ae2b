"""Adds labels to stored transactions, and decides which label of a transaction counts if it has several."""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import sqlalchemy as sa

from fraud_detection.contract import MAX_COUNTED, MAX_FOUND, MAX_LABEL_ROWS, MAX_ROWS_PER_LABEL
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
    token_name: str | None = None
    """Who authenticated to report it; None for an imported one, and for one that is older than the column."""


@dataclass(frozen=True)
class NewLabel:
    """A label to add; it names its transaction by request_id and row_index, or by transaction_id."""

    is_fraud: bool
    source: str
    reporter: str
    reported_at: str | None
    """If None, the time of receipt; a repetition if the label of its source and reporter that counts says the same."""
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

    @property
    def key(self) -> tuple[str, int]:
        """Return how a label names it."""
        return self.request_id, self.row_index


class UnknownTransaction(Exception):
    """A label names a transaction that is not stored; `position` is its place in the list."""

    def __init__(self, position: int) -> None:
        super().__init__(f"label {position}: no such transaction is stored")
        self.position = position


class ReportedTooEarly(Exception):
    """A label was reported before its transaction; the message names its place in the list and both times."""


class TooManyRows(Exception):
    """Labels name more stored rows than one request may."""


def add(
    store: Store,
    connection: sa.Connection,
    labels: Sequence[NewLabel],
    received_at: str,
    go_on: Callable[[], object] = lambda: None,
    *,
    token_name: str | None = None,
) -> int:
    """Add labels and set `Class` of their transactions to the label that counts; return how many labels were new.

    A label by transaction_id applies to every row stored under that id. A repeated label changes nothing. `go_on` is
    called between statements, and may raise to end the work. `token_name` is who authenticated.

    Raises, before it writes: UnknownTransaction for the first label that names no stored row, TooManyRows, and
    ReportedTooEarly for the first new one that was reported before its transaction.
    """
    named = _named_by(store, connection, labels)
    pairs = [(label, row) for label, rows in zip(labels, named, strict=True) for row in rows]
    wanted = {said for label, row in pairs for said in _would_repeat(label, row, received_at)}
    known = _known(store, connection, {row.key for _, row in pairs}, wanted, go_on)
    new: list[Label] = []
    changed: set[_Row] = set()
    added = 0
    for position, (label, rows) in enumerate(zip(labels, named, strict=True)):
        verdicts = {row: _verdict(label, row, received_at, token_name) for row in rows}
        fresh = [
            row
            for row, verdict in verdicts.items()
            if not known.repeats(verdict, has_time=label.reported_at is not None)
        ]
        # Rows under one transaction id are one transaction, which was first stored with the earliest of them.
        ts = min(row.ts for row in rows)
        if fresh and label.latest_ts is not None and label.latest_ts < ts:
            reported_at = label.reported_at or received_at
            raise ReportedTooEarly(
                f"label {position}, reported_at: {reported_at[:19]} UTC is before its transaction, which is of "
                f"{ts[:19]} UTC; give the time of the report, or leave reported_at out"
            )
        for row in fresh:
            known.take(verdicts[row])
            new.append(verdicts[row])
        changed.update(fresh)
        added += bool(fresh)
    for page in _pages(new):
        go_on()
        insert(store, connection, page)
    _set_classes(store, connection, {row.id: known.counting[row.key].is_fraud for row in changed}, go_on)
    return added


def insert(store: Store, connection: sa.Connection, labels: Sequence[Label]) -> None:
    """Insert labels as they are, without those of their columns that the store has not yet."""
    columns = store.tables.labels.columns.keys()
    values = [{name: value for name, value in vars(label).items() if name in columns} for label in labels]
    connection.execute(sa.insert(store.tables.labels), [{**row, "is_fraud": int(row["is_fraud"])} for row in values])


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


def _verdict(label: NewLabel, row: _Row, received_at: str, token_name: str | None) -> Label:
    reported_at = label.reported_at or received_at
    return Label(*row.key, label.is_fraud, label.source, label.reporter, reported_at, received_at, token_name)


class _Known:
    """What the labels of some rows say: what a further label repeats, and which one counts."""

    def __init__(self) -> None:
        self.counting: dict[tuple[str, int], Label] = {}
        self._said: set[tuple[object, ...]] = set()
        self._counting_of: dict[tuple[object, ...], Label] = {}

    def take(self, label: Label) -> None:
        """Add a label of a row."""
        row, reporter = (label.request_id, label.row_index), _reporter(label)
        self._said.add((*reporter, label.is_fraud, label.reported_at))
        self.counting[row] = label_that_counts([label, self.counting.get(row, label)])
        self._counting_of[reporter] = label_that_counts([label, self._counting_of.get(reporter, label)])

    def repeats(self, label: Label, *, has_time: bool) -> bool:
        """Return whether its source and reporter said the same of the row: at that time, or last if it has no time."""
        reporter = _reporter(label)
        if (*reporter, label.is_fraud, label.reported_at) in self._said:
            return True
        return not has_time and reporter in self._counting_of and self._counting_of[reporter].is_fraud == label.is_fraud


def _reporter(label: Label) -> tuple[object, ...]:
    return label.request_id, label.row_index, label.source, label.reporter


def _would_repeat(label: NewLabel, row: _Row, received_at: str) -> Iterator[tuple[object, ...]]:
    """Give what a label of the row says, and for one without a time each verdict of its reporter, whatever the time."""
    yield (*row.key, int(label.is_fraud), label.source, label.reporter, label.reported_at or received_at)
    if label.reported_at is None:
        yield from ((*row.key, is_fraud, label.source, label.reporter, None) for is_fraud in (0, 1))


def _known(
    store: Store,
    connection: sa.Connection,
    rows: Collection[tuple[str, int]],
    wanted: Collection[tuple[object, ...]],
    go_on: Callable[[], object],
) -> _Known:
    """Return what the label of each row that counts says, and those that are wanted: a few, however many a row has."""
    known = _Known()
    queries = [(_counting, page) for page in _pages(rows)] + [(_equal_or_last, page) for page in _pages(wanted)]
    for query_for, page in queries:
        go_on()
        for row in connection.execute(query_for(store, connection, page)):
            known.take(label_of(row))
    return known


def _counting(store: Store, connection: sa.Connection, keys: Sequence[tuple[str, int]]) -> sa.Select[Any]:
    """Return the query for the label of each row that counts; it reads a few entries of an index for each of them."""
    labels, of_row = store.tables.labels, store.tables.labels.alias("of_row")
    rows = _as_table(connection, keys, [labels.c.request_id, labels.c.row_index])
    last = sa.select(of_row.c.reported_at).where(*(of_row.c[column.name] == column for column in rows.c))
    last = last.order_by(of_row.c.reported_at.desc()).limit(1)  # unlike max(), it never reads all of them
    moments = sa.select(rows, last.scalar_subquery().label("reported_at")).subquery()
    counting = [
        sa.select(of_row.c.id)
        .where(*(of_row.c[column.name] == column for column in moments.c), of_row.c.source == source)
        .order_by(of_row.c.received_at.desc(), of_row.c.is_fraud.desc())
        .limit(1)
        .scalar_subquery()
        for source in SOURCES
    ]
    return sa.select(labels).where(labels.c.id.in_(sa.select(sa.func.coalesce(*counting)).select_from(moments)))


def _equal_or_last(store: Store, connection: sa.Connection, wanted: Sequence[tuple[object, ...]]) -> sa.Select[Any]:
    """Return the query for labels by all that they say; without a time, for the last one that says the rest."""
    labels, before = store.tables.labels, store.tables.labels.alias("before")
    columns = [labels.c[name] for name in ("request_id", "row_index", "is_fraud", "source", "reporter", "reported_at")]
    said = _as_table(connection, wanted, columns)
    rest = [column.name for column in columns[:-1]]
    last = sa.select(before.c.reported_at).where(*(before.c[name] == said.c[name] for name in rest))
    last = last.order_by(before.c.reported_at.desc()).limit(1)
    is_wanted = sa.and_(
        *(labels.c[name] == said.c[name] for name in rest),
        labels.c.reported_at == sa.func.coalesce(said.c.reported_at, last.scalar_subquery()),
    )
    return sa.select(labels).join_from(said, labels, is_wanted)


def _as_table(
    connection: sa.Connection, rows: Sequence[tuple[object, ...]], columns: Sequence[sa.Column[Any]]
) -> sa.Subquery:
    """Return rows as a table with these columns, sent as JSON: thousands of VALUES take SQLAlchemy a second."""
    unpack = sa.func.json_each if connection.dialect.name == "sqlite" else sa.func.json_array_elements
    row = unpack(sa.literal(rows, sa.JSON)).table_valued("value").c.value
    cells = (sa.cast(row.op("->>")(place), column.type) for place, column in enumerate(columns))
    return sa.select(*(cell.label(column.name) for cell, column in zip(cells, columns, strict=True))).subquery()


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
    order = (labels.c.reported_at.desc(), labels.c.source, labels.c.received_at.desc(), labels.c.is_fraud.desc())
    newest = sa.select(labels).where(of_row).order_by(*order).limit(MAX_FOUND)  # as they stand in the index
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
