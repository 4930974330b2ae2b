"""Reads stored transactions in bulk, for jobs that train, measure and list."""

import contextlib
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import sqlalchemy as sa
from numpy.typing import NDArray

from fraud_detection.database import reachable
from fraud_detection.database.engine import open_engine
from fraud_detection.database.sqlite import copy_sqlite
from fraud_detection.features import FeatureList, Matrix
from fraud_detection.schema import Role, names_of
from fraud_detection.store import PAGE_ROWS, Store
from fraud_detection.store.labels import Label, label_of, label_that_counts


@dataclass(frozen=True)
class History:
    """Stored transactions in order of time, as columns of equal length n."""

    request_id: NDArray[np.str_]
    row_index: NDArray[np.int64]
    ts: NDArray[np.str_]
    matrix: Matrix
    fraud_probability: NDArray[np.float64]
    """NaN if the row was imported and never scored."""
    is_flagged: NDArray[np.bool_]
    """False if the row was never scored."""
    model_digest: NDArray[np.str_]
    """Empty if the row was never scored."""
    is_fraud: NDArray[np.int8]
    """The label that counts: 1, 0, or -1 if there is none."""
    label_source: NDArray[np.str_]
    """Source of that label: one of SOURCES, `external` (Class set in the table by hand), or empty."""
    schema_version: NDArray[np.int64]
    """The REVISION of the version that stored the row."""

    def __len__(self) -> int:
        return len(self.ts)

    def take(self, rows: NDArray[Any]) -> "History":
        """Return the rows that an index or a boolean mask selects."""
        return History(**{name: column[rows] for name, column in vars(self).items()})


@dataclass(frozen=True)
class DecisionCount:
    """The number of transactions scored with one threshold, and of those flagged."""

    threshold: float
    rows: int
    alerts: int


@dataclass(frozen=True)
class Counts:
    """The number of transactions, of those that are scored, labelled, and frauds, and the time of the newest."""

    rows: int
    scored: int
    labelled: int
    frauds: int
    newest: str | None

    @classmethod
    def together(cls, parts: Iterable["Counts"]) -> "Counts":
        """Add counts."""
        known = list(parts)
        rows, scored, labelled, frauds = (
            sum(getattr(part, name) for part in known) for name in ("rows", "scored", "labelled", "frauds")
        )
        return cls(rows, scored, labelled, frauds, max((part.newest for part in known if part.newest), default=None))


@contextlib.contextmanager
def snapshot(store: Store, scratch: Path | None = None) -> Iterator[sa.Connection]:
    """Give a connection to a snapshot of the store: later writes do not change it, and no writer waits for it.

    SQLite: a copy by VACUUM INTO in `scratch` (default: the system's), mode 0600, deleted afterwards.
    PostgreSQL: one REPEATABLE READ READ ONLY transaction.
    """
    if isinstance(store.location, str):
        engine = open_engine(store.location, read_only=True)
        try:
            with reachable(store.location), engine.begin() as connection:
                connection.execute(sa.text("SELECT 1"))  # the first query takes the snapshot, not BEGIN
                yield connection
        finally:
            engine.dispose()
        return
    with tempfile.TemporaryDirectory(prefix="fraud-snapshot-", dir=scratch) as folder:
        copy = Path(folder) / "snapshot.db"
        copy_sqlite(store.location, copy)
        engine = open_engine(copy, read_only=True, allow_network_filesystem=True)
        try:
            with engine.connect() as connection:
                copy.unlink()  # it stays readable while open, and a killed process leaves no transactions behind
                yield connection
        finally:
            engine.dispose()


def read(store: Store, connection: sa.Connection, *, with_features: bool = True) -> History:
    """Return every stored transaction in order of time, with the label that counts.

    Without their features, which take most of the memory, the matrix has no columns.
    """
    requests = store.tables.requests
    query = sa.select(requests).order_by(requests.c.ts, requests.c.id)
    return _columns_of(store, connection, query, with_features=with_features)


def recent(
    store: Store,
    connection: sa.Connection,
    limit: int,
    since: str,
    *,
    scored_only: bool = True,
    until: str | None = None,
) -> History:
    """Return the newest `limit` transactions not older than `since`, in order of time."""
    requests = store.tables.requests
    query = sa.select(requests).where(requests.c.ts >= since)
    if until is not None:
        query = query.where(requests.c.ts < until)
    if scored_only:
        query = query.where(requests.c.fraud_probability.is_not(None))
    newest = query.order_by(requests.c.ts.desc(), requests.c.id.desc()).limit(limit).subquery()
    return _columns_of(store, connection, sa.select(newest).order_by(newest.c.ts, newest.c.id))


def _columns_of(
    store: Store, connection: sa.Connection, query: sa.Select[Any], *, with_features: bool = True
) -> History:
    requests = store.tables.requests
    features = names_of(requests, Role.FEATURE) if with_features else []
    kept = {field.name for field in fields(History)}
    names = [name for name in names_of(requests, Role.ROW, Role.DECISION) if name in kept] + ["Class"]
    columns: dict[str, list[Any]] = {name: [] for name in names}
    blocks: list[Matrix] = []
    selected = query.selected_columns
    query = query.with_only_columns(*(selected[name] for name in (*names, *features)))
    for page in connection.execution_options(stream_results=True).execute(query).partitions(PAGE_ROWS):
        for place, name in enumerate(names):
            columns[name].extend(row[place] for row in page)
        blocks.append(np.array([row[len(names) :] for row in page], dtype=np.float64))
    true_class = np.array([-1 if value is None else value for value in columns["Class"]], dtype=np.int8)
    sources = _label_sources(store, connection) if (true_class >= 0).any() else {}
    return History(
        request_id=_texts(columns["request_id"]),
        row_index=np.array(columns["row_index"], dtype=np.int64),
        ts=_texts(columns["ts"]),
        matrix=np.vstack(blocks) if blocks else np.empty((0, len(features))),
        fraud_probability=np.array(columns["fraud_probability"], dtype=np.float64),
        is_flagged=np.array([bool(value) for value in columns["is_flagged"]], dtype=np.bool_),
        model_digest=_texts([value or "" for value in columns["model_digest"]]),
        is_fraud=true_class,
        label_source=_texts(
            [
                "" if known < 0 else sources.get(key, "external")
                for known, key in zip(
                    true_class.tolist(), zip(columns["request_id"], columns["row_index"], strict=True), strict=True
                )
            ]
        ),
        schema_version=np.array(columns["schema_version"], dtype=np.int64),
    )


def _label_sources(store: Store, connection: sa.Connection) -> dict[tuple[str, int], str]:
    labels = store.tables.labels
    counting: dict[tuple[str, int], Label] = {}
    query = sa.select(labels).order_by(labels.c.id)
    for page in connection.execution_options(stream_results=True).execute(query).partitions(PAGE_ROWS):
        for row in page:
            label = label_of(row)
            key = (label.request_id, label.row_index)
            known = counting.get(key)
            counting[key] = label if known is None else label_that_counts((known, label))
    return {key: label.source for key, label in counting.items()}


def counts_by_age(store: Store, connection: sa.Connection, until: Mapping[str, str]) -> dict[str | None, Counts]:
    """Count transactions by age group, from one scan; groups without any are left out.

    `until` has the name of each group with the time of its newest transaction, the youngest group first. Transactions
    newer than that of the youngest group are under None.
    """
    requests = store.tables.requests
    group = sa.case(*((requests.c.ts <= ts, name) for name, ts in reversed(list(until.items()))))
    # Grouped outside, because the name of a group could be that of a feature.
    rows = sa.select(
        group.label("age_group"), requests.c.ts, requests.c.fraud_probability, requests.c["Class"]
    ).subquery()
    counts = connection.execute(
        sa.select(
            rows.c.age_group,
            sa.func.count(),
            sa.func.count(rows.c.fraud_probability),
            sa.func.count(rows.c["Class"]),
            sa.func.coalesce(sa.func.sum(rows.c["Class"]), 0),
            sa.func.max(rows.c.ts),
        ).group_by(rows.c.age_group)
    )
    return {
        name: Counts(total, scored, labelled, int(frauds), newest)
        for name, total, scored, labelled, frauds, newest in counts
    }


def decision_counts(
    store: Store, connection: sa.Connection, model_digest: str, since: str, until: str
) -> list[DecisionCount]:
    """Count a model's decisions on transactions from `since` and before `until`, for each threshold in use."""
    requests = store.tables.requests
    groups = connection.execute(
        sa.select(requests.c.threshold, sa.func.count(), sa.func.sum(requests.c.is_flagged))
        .where(requests.c.ts >= since, requests.c.ts < until, requests.c.model_digest == model_digest)
        .group_by(requests.c.threshold)
        .order_by(requests.c.threshold)
    )
    return [DecisionCount(threshold, rows, int(alerts)) for threshold, rows, alerts in groups]


def listed_columns(features: FeatureList) -> dict[str, str]:
    """Map the name of each column in a listing to its name in `requests`, in the order of the listing."""
    return {
        "request_id": "request_id",
        "row": "row_index",
        "transaction_id": "transaction_id",
        "ts": "ts",
        **{name: name for name in features.names},
        "fraud_probability": "fraud_probability",
        "is_flagged": "is_flagged",
        "threshold": "threshold",
        "model_version": "model_version",
        "is_fraud": "Class",
    }


def listing(
    store: Store, connection: sa.Connection, *, unlabelled_only: bool = False, since: str = "", limit: int | None = None
) -> Iterator[dict[str, Any]]:
    """Give transactions not older than `since` for analysts, in order of time, with the source of their label.

    With `unlabelled_only`: scored transactions without a label, the highest scores first. A column that the store has
    not yet, because it is of an older revision, is None.
    """
    requests = store.tables.requests
    query = sa.select(requests).where(requests.c.ts >= since).limit(limit)
    if unlabelled_only:
        query = query.where(requests.c["Class"].is_(None), requests.c.fraud_probability.is_not(None))
        query = query.order_by(requests.c.fraud_probability.desc(), requests.c.id)
    else:
        query = query.order_by(requests.c.ts, requests.c.id)
    sources = {} if unlabelled_only else _label_sources(store, connection)
    listed = listed_columns(store.features)
    rows = connection.execution_options(stream_results=True).execute(query).mappings()
    for page in rows.partitions(PAGE_ROWS):
        for row in page:
            key = (row["request_id"], row["row_index"])
            source = None if row["Class"] is None else sources.get(key, "external")
            yield {**{shown: row.get(name) for shown, name in listed.items()}, "label_source": source}


def _texts(values: list[str]) -> NDArray[np.str_]:
    return np.array(values, dtype=np.str_) if values else np.empty(0, dtype="U1")
