"""Every query of the system: remember what was scored, label it, and hand it to the jobs."""

import contextlib
import json
import tempfile
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import numpy as np
import sqlalchemy as sa
from alembic import command
from alembic.config import Config
from numpy.typing import NDArray

from fraud_detection.database import (
    DatabaseRefused,
    copy_sqlite,
    create_engine,
    damage,
    open_engine,
    reachable,
    remember_store,
)
from fraud_detection.decision import flagged
from fraud_detection.features import LIMIT, FeatureList, Matrix
from fraud_detection.schema import REVISION, Role, Tables, names_of, tables
from fraud_detection.store.labels import Label, label_that_counts

FACTS_OF_THE_TABLES = ("features", "features_digest", "oldest_writer")
"""What schema_meta holds of any store, however empty."""

_PAGE_ROWS = 5000


@dataclass(frozen=True)
class ScoredRequest:
    """One scored request, stored whole or not at all."""

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
        """The decision on each row."""
        return flagged(self.fraud_probability, self.threshold)


@dataclass(frozen=True)
class StoredReply:
    """What a request with this idempotency key was answered."""

    body_sha256: str
    request_id: str
    fraud_probability: list[float]
    is_flagged: list[bool]
    threshold: float
    model_version: str
    model_digest: str


@dataclass(frozen=True)
class ImportedRows:
    """Transactions from before this installation, which it never scored; columns of equal length n."""

    request_id: str
    ts: Sequence[str]
    matrix: Matrix
    is_fraud: Sequence[bool | None]
    """What each turned out to be, None where nobody knows."""
    transaction_ids: Sequence[str | None]


@dataclass(frozen=True)
class NewLabel:
    """A label on its way in; it names its transaction by request_id and row_index, or by transaction_id."""

    is_fraud: bool
    source: str
    reporter: str
    reported_at: str | None
    """None is the time of receipt, unless this source and reporter said the same last: then it is a repetition."""
    request_id: str | None = None
    row_index: int | None = None
    transaction_id: str | None = None


class UnknownTransaction(Exception):
    """A label for a transaction that is not stored; `position` is its place in the list that was given."""

    def __init__(self, position: int) -> None:
        super().__init__(f"label {position}: no such transaction is stored")
        self.position = position


@dataclass(frozen=True)
class Decision:
    """One stored transaction with everything known of it."""

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


@dataclass(frozen=True)
class History:
    """Stored transactions in order of time, as columns of equal length n."""

    request_id: NDArray[np.str_]
    row_index: NDArray[np.int64]
    ts: NDArray[np.str_]
    matrix: Matrix
    fraud_probability: NDArray[np.float64]
    """NaN where the row was imported and never scored."""
    is_flagged: NDArray[np.bool_]
    """False where the row was never scored."""
    model_digest: NDArray[np.str_]
    """Empty where the row was never scored."""
    is_fraud: NDArray[np.int8]
    """The label that counts: 1, 0, or -1 where there is none."""
    label_source: NDArray[np.str_]
    """Source of that label: one of SOURCES, `external` (Class set in the table by hand), or empty."""

    def __len__(self) -> int:
        return len(self.ts)

    def take(self, rows: NDArray[Any]) -> "History":
        """Return the rows that an index or a boolean mask selects."""
        return History(**{name: column[rows] for name, column in vars(self).items()})


@dataclass(frozen=True)
class DecisionCount:
    """How many transactions were scored with one threshold, and how many of them were flagged."""

    threshold: float
    rows: int
    alerts: int


@dataclass(frozen=True)
class Forgotten:
    """What erasing a transaction removed; `keys` are (request_id, row_index)."""

    keys: list[tuple[str, int]]
    labels: int
    idempotency_keys: int


class Store:
    """The tables of one installation behind one engine.

    Methods that take a connection work inside the caller's transaction: `with store.begin() as connection:`.
    """

    def __init__(self, engine: sa.Engine, features: FeatureList, location: str | Path) -> None:
        self.engine = engine
        self.features = features
        self.location = location
        self.tables: Tables = tables(features.names)

    @classmethod
    def open(
        cls,
        location: str | Path,
        features: FeatureList,
        *,
        read_only: bool = False,
        allow_network_filesystem: bool = False,
    ) -> Self:
        """Open a store that exists and check that this code and this feature list fit it.

        Raises DatabaseRefused.
        """
        engine = open_engine(location, read_only=read_only, allow_network_filesystem=allow_network_filesystem)
        store = cls(engine, features, location)
        with _disposed_on_error(engine), reachable(location), engine.connect() as connection:
            store._check(connection)
        return store

    @classmethod
    def create_or_migrate(
        cls, location: str | Path, features: FeatureList, *, allow_network_filesystem: bool = False
    ) -> Self:
        """As open, but make the tables where there are none and bring older ones up to date.

        Each step runs in one transaction; when nothing is to be done nothing is written. Two at once is safe.

        Raises DatabaseRefused.
        """
        engine = create_engine(location, allow_network_filesystem=allow_network_filesystem)
        store = cls(engine, features, location)
        with _disposed_on_error(engine), reachable(location):
            with engine.begin() as connection:
                if connection.dialect.name == "postgresql":
                    connection.exec_driver_sql("SELECT pg_advisory_xact_lock(46726175)")
                store._migrate(connection)
            with engine.connect() as connection:
                store._check(connection)
        remember_store(location)
        return store

    def close(self) -> None:
        """Close every connection."""
        self.engine.dispose()

    @contextlib.contextmanager
    def begin(self) -> Iterator[sa.Connection]:
        """One transaction: committed when the block ends, rolled back when it raises."""
        with self.engine.begin() as connection:
            yield connection

    # -- start ---------------------------------------------------------------------------------------------------

    def _migrate(self, connection: sa.Connection) -> None:
        revision = self._revision(connection)
        if revision is not None and revision >= REVISION:
            return
        if revision is None and sa.inspect(connection).has_table("requests"):
            self._check(connection)  # refuses the table of another program
        config = Config()
        config.set_main_option("script_location", "fraud_detection:migrations")
        config.attributes.update(connection=connection, features=self.features)
        command.upgrade(config, "head")
        if revision is None:
            self.set_meta(connection, "features", json.dumps(self.features.names))
            self.set_meta(connection, "features_digest", self.features.digest)
            self.set_meta(connection, "oldest_writer", str(REVISION))

    def _revision(self, connection: sa.Connection) -> int | None:
        if not sa.inspect(connection).has_table("alembic_version"):
            return None
        number = connection.scalar(sa.text("SELECT version_num FROM alembic_version"))
        return None if number is None else int(number)

    def _check(self, connection: sa.Connection) -> None:
        where = self.location if isinstance(self.location, Path) else "PostgreSQL"
        if self._revision(connection) is None:
            if sa.inspect(connection).has_table("requests"):
                raise DatabaseRefused(
                    "not_ours",
                    f"{where}: holds a `requests` table of another program; move it away, then "
                    "`fraudctl import-db` brings its rows into a store of ours",
                )
            raise DatabaseRefused("missing", f"{where}: has no tables yet; `fraudctl bootstrap` makes them")
        oldest_writer = self.get_meta(connection, "oldest_writer")
        if oldest_writer is None or int(oldest_writer) > REVISION:
            raise DatabaseRefused(
                "too_new", f"{where}: was written by a newer version that this one (revision {REVISION}) would damage"
            )
        if self.get_meta(connection, "features_digest") != self.features.digest:
            names = json.loads(self.get_meta(connection, "features") or "[]")
            raise DatabaseRefused(
                "other_features",
                f"{where}: belongs to another feature list ({len(names)} features: {_ends(names)}), this installation "
                f"has {len(self.features)} ({_ends(self.features.names)}); set FEATURES_FILE to the list of the store, "
                "or name another file in LATEST_DB and TRAIN_DB",
            )

    # -- facts about the store -----------------------------------------------------------------------------------

    def get_meta(self, connection: sa.Connection, key: str) -> str | None:
        """Return one fact about the store, None when it is not known."""
        meta = self.tables.schema_meta
        value: str | None = connection.scalar(sa.select(meta.c.value).where(meta.c.key == key))
        return value

    def set_meta(self, connection: sa.Connection, key: str, value: str) -> None:
        """Remember one fact about the store."""
        meta = self.tables.schema_meta
        connection.execute(sa.delete(meta).where(meta.c.key == key))
        connection.execute(sa.insert(meta).values(key=key, value=value))

    def count_rows(self, connection: sa.Connection) -> int:
        """Return how many transactions are stored."""
        return int(connection.scalar(sa.select(sa.func.count()).select_from(self.tables.requests)) or 0)

    # -- score and remember --------------------------------------------------------------------------------------

    @cached_property
    def _insert_row(self) -> str:
        """The INSERT of `append`, compiled once: compiling it for each request costs more than running it."""
        requests = self.tables.requests
        return self._insert(requests, names_of(requests, Role.ROW, Role.FEATURE, Role.DECISION))

    def _insert(self, table: sa.Table, columns: Sequence[str]) -> str:
        """Return an INSERT for the driver that takes tuples in the order of the columns."""
        insert = sa.insert(table).values({name: sa.bindparam(name) for name in columns})
        paramstyle = "qmark" if self.engine.dialect.name == "sqlite" else "format"
        dialect_class: Any = type(self.engine.dialect)
        compiled = insert.compile(dialect=dialect_class(paramstyle=paramstyle), column_keys=list(columns))
        if list(compiled.positiontup or ()) != list(columns):
            raise AssertionError("the tuples are built in the order of the columns")
        return str(compiled)

    def append(self, connection: sa.Connection, requests: Iterable[ScoredRequest]) -> None:
        """Insert requests, each with all its rows and its idempotency key.

        Raises sqlalchemy.exc.IntegrityError when an idempotency key is taken.
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
            connection.execute(sa.insert(self.tables.idempotency), keys)
        connection.exec_driver_sql(self._insert_row, rows)

    def replay_reply(self, connection: sa.Connection, idempotency_key: str) -> StoredReply | None:
        """Return what the request with this key was answered, None when the key is new."""
        keys, requests = self.tables.idempotency, self.tables.requests
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

    # -- bring in history ----------------------------------------------------------------------------------------

    def import_history(
        self, connection: sa.Connection, pages: Iterable[ImportedRows], *, reporter: str, received_at: str
    ) -> int:
        """Insert transactions without a score, with their labels (source `import`); return how many."""
        places = names_of(self.tables.requests, Role.ROW, Role.FEATURE, Role.LABEL)
        said = [column.name for column in self._carried("labels")]
        imported = 0
        for page in pages:
            rows: list[tuple[object, ...]] = []
            labels: list[tuple[object, ...]] = []
            columns = zip(page.ts, page.matrix.tolist(), page.transaction_ids, page.is_fraud, strict=True)
            for index, (ts, numbers, transaction_id, is_fraud) in enumerate(columns):
                known = None if is_fraud is None else int(is_fraud)
                rows.append((page.request_id, index, ts, *numbers, transaction_id, REVISION, known))
                if known is not None:
                    labels.append((page.request_id, index, known, "import", reporter, received_at, received_at))
            self._insert_many(connection, self.tables.requests, places, rows)
            self._insert_many(connection, self.tables.labels, said, labels)
            imported += len(rows)
        return imported

    def _insert_many(
        self, connection: sa.Connection, table: sa.Table, columns: Sequence[str], rows: Sequence[tuple[object, ...]]
    ) -> None:
        if not rows:
            return
        if connection.dialect.name == "sqlite":
            connection.exec_driver_sql(self._insert(table, columns), list(rows))
            return
        quote = connection.dialect.identifier_preparer.quote
        names = ", ".join(quote(name) for name in columns)
        driver: Any = connection.connection.driver_connection
        # COPY: an INSERT for each row takes several times as long
        with driver.cursor() as cursor, cursor.copy(f"COPY {quote(table.name)} ({names}) FROM STDIN") as copy:
            for row in rows:
                copy.write_row(row)

    # -- label ---------------------------------------------------------------------------------------------------

    def add_labels(self, connection: sa.Connection, labels: Sequence[NewLabel], received_at: str) -> int:
        """Add labels to the history and set `Class` to the one that counts; return how many of them were new.

        A label by transaction_id is for every row stored under that id. Repeating a label changes nothing.

        Raises UnknownTransaction for the first that names nothing stored; the caller's transaction then rolls back.
        """
        named = self._named_by(connection, labels)
        for position, keys in enumerate(named):
            if not keys:
                raise UnknownTransaction(position)
        said = self._labels_of(connection, {key for keys in named for key in keys})
        new: list[Label] = []
        added = 0
        for label, keys in zip(labels, named, strict=True):
            fresh = [
                Label(*key, label.is_fraud, label.source, label.reporter, label.reported_at or received_at, received_at)
                for key in keys
                if not _is_repetition(label, said[key])
            ]
            for verdict in fresh:
                said[verdict.request_id, verdict.row_index].append(verdict)
            new += fresh
            added += bool(fresh)
        if new:
            rows = [{**vars(verdict), "is_fraud": int(verdict.is_fraud)} for verdict in new]
            connection.execute(sa.insert(self.tables.labels), rows)
            self._set_classes(connection, {key: said[key] for key in ((one.request_id, one.row_index) for one in new)})
        return added

    def _named_by(self, connection: sa.Connection, labels: Sequence[NewLabel]) -> list[list[tuple[str, int]]]:
        """Return the (request_id, row_index) of the rows that each label names."""
        requests = self.tables.requests
        key = (requests.c.request_id, requests.c.row_index)
        names = {_name(label) for label in labels}
        found: dict[str | tuple[str | None, int | None], list[tuple[str, int]]] = {name: [] for name in names}
        for page in _pages([name for name in names if isinstance(name, str)]):
            query = sa.select(*key, requests.c.transaction_id).where(requests.c.transaction_id.in_(page))
            for request_id, row_index, transaction_id in connection.execute(query):
                found[transaction_id].append((request_id, row_index))
        for page in _pages([name for name in names if isinstance(name, tuple)]):
            for request_id, row_index in connection.execute(sa.select(*key).where(sa.tuple_(*key).in_(page))):
                found[request_id, row_index].append((request_id, row_index))
        return [found[_name(label)] for label in labels]

    def _set_classes(self, connection: sa.Connection, said: Mapping[tuple[str, int], Sequence[Label]]) -> None:
        requests = self.tables.requests
        connection.execute(
            sa.update(requests)
            .where(requests.c.request_id == sa.bindparam("of_request"), requests.c.row_index == sa.bindparam("of_row"))
            .values({"Class": sa.bindparam("counting")}),
            [
                {"of_request": key[0], "of_row": key[1], "counting": int(label_that_counts(labels).is_fraud)}
                for key, labels in sorted(said.items())
            ],
        )

    def _labels_of(
        self, connection: sa.Connection, keys: Collection[tuple[str, int]]
    ) -> dict[tuple[str, int], list[Label]]:
        """Return the labels of each of these rows, in the order in which they came."""
        labels = self.tables.labels
        said: dict[tuple[str, int], list[Label]] = {key: [] for key in keys}
        for page in _pages(keys):
            query = sa.select(labels).where(sa.tuple_(labels.c.request_id, labels.c.row_index).in_(page))
            for row in connection.execute(query.order_by(labels.c.id)):
                said[row.request_id, row.row_index].append(_label(row))
        return said

    # -- look up -------------------------------------------------------------------------------------------------

    def decisions(self, connection: sa.Connection, identifier: str) -> list[Decision]:
        """Return the transactions that an identifier names, the newest first.

        An identifier is the client's transaction id, `request_id:row`, or a request id (all rows of that request).
        """
        requests = self.tables.requests
        query = (
            sa.select(requests).where(self._identified(identifier)).order_by(requests.c.ts.desc(), requests.c.row_index)
        )
        rows = connection.execute(query).mappings().all()
        said = self._labels_of(connection, [(row["request_id"], row["row_index"]) for row in rows])
        return [self._decision(row, said[row["request_id"], row["row_index"]]) for row in rows]

    def rows_of(self, connection: sa.Connection, identifier: str) -> list[tuple[str, int]]:
        """Return (request_id, row_index) of every row that an identifier names, as `decisions` reads it."""
        requests = self.tables.requests
        found = connection.execute(
            sa.select(requests.c.request_id, requests.c.row_index).where(self._identified(identifier))
        )
        return [(row.request_id, row.row_index) for row in found]

    def _identified(self, identifier: str) -> sa.ColumnElement[bool]:
        requests = self.tables.requests
        request_id, _, row = identifier.rpartition(":")
        if request_id and row.isdecimal() and len(row) <= 9:
            return sa.or_(
                requests.c.transaction_id == identifier,
                sa.and_(requests.c.request_id == request_id, requests.c.row_index == int(row)),
            )
        return sa.or_(requests.c.transaction_id == identifier, requests.c.request_id == identifier)

    def _decision(self, row: sa.RowMapping, labels: list[Label]) -> Decision:
        return Decision(
            request_id=row["request_id"],
            row_index=row["row_index"],
            ts=row["ts"],
            transaction_id=row["transaction_id"],
            features={name: row[name] for name in self.features.names},
            fraud_probability=row["fraud_probability"],
            is_flagged=None if row["is_flagged"] is None else bool(row["is_flagged"]),
            threshold=row["threshold"],
            model_version=row["model_version"],
            model_digest=row["model_digest"],
            is_fraud=None if row["Class"] is None else bool(row["Class"]),
            labels=labels,
        )

    # -- hand to the jobs ----------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def snapshot(self, scratch: Path | None = None) -> Iterator[sa.Connection]:
        """Give a connection to the store as it is now, which no later write changes and which holds up no writer.

        SQLite: a copy by VACUUM INTO, made in `scratch` (default: the system's), mode 0600, removed afterwards.
        PostgreSQL: one REPEATABLE READ READ ONLY transaction.
        """
        if isinstance(self.location, str):
            engine = open_engine(self.location, read_only=True)
            try:
                with reachable(self.location), engine.begin() as connection:
                    connection.execute(sa.text("SELECT 1"))  # the snapshot is taken by the first query, not by BEGIN
                    yield connection
            finally:
                engine.dispose()
            return
        with tempfile.TemporaryDirectory(prefix="fraud-snapshot-", dir=scratch) as folder:
            copy = Path(folder) / "snapshot.db"
            self.copy_to(copy)
            engine = open_engine(copy, read_only=True, allow_network_filesystem=True)
            try:
                with engine.connect() as connection:
                    copy.unlink()  # open it stays readable; killed, this process leaves no transactions behind
                    yield connection
            finally:
                engine.dispose()

    def copy_to(self, target: Path) -> None:
        """Write a consistent copy of an SQLite store to `target`, which must not exist; whole or not at all.

        Raises DatabaseRefused; FileExistsError.
        """
        if not isinstance(self.location, Path):
            raise TypeError("only an SQLite store is a file; use pg_dump for PostgreSQL")
        copy_sqlite(self.location, target)

    def recent(
        self, connection: sa.Connection, limit: int, since: str, *, scored_only: bool = True, until: str | None = None
    ) -> History:
        """Return the newest `limit` transactions not older than `since`, in order of time."""
        requests = self.tables.requests
        query = sa.select(requests).where(requests.c.ts >= since)
        if until is not None:
            query = query.where(requests.c.ts < until)
        if scored_only:
            query = query.where(requests.c.fraud_probability.is_not(None))
        newest = query.order_by(requests.c.ts.desc(), requests.c.id.desc()).limit(limit).subquery()
        return self._history(connection, sa.select(newest).order_by(newest.c.ts, newest.c.id))

    def history(self, connection: sa.Connection) -> History:
        """Return every stored transaction in order of time, with the label that counts."""
        requests = self.tables.requests
        return self._history(connection, sa.select(requests).order_by(requests.c.ts, requests.c.id))

    def decision_counts(self, connection: sa.Connection, model_digest: str, since: str) -> list[DecisionCount]:
        """Count what a model decided on transactions not older than `since`, once for each threshold in use."""
        requests = self.tables.requests
        groups = connection.execute(
            sa.select(requests.c.threshold, sa.func.count(), sa.func.sum(requests.c.is_flagged))
            .where(requests.c.ts >= since, requests.c.model_digest == model_digest)
            .group_by(requests.c.threshold)
            .order_by(requests.c.threshold)
        )
        return [DecisionCount(threshold, rows, int(alerts)) for threshold, rows, alerts in groups]

    def _history(self, connection: sa.Connection, query: sa.Select[Any]) -> History:
        requests = self.tables.requests
        features = names_of(requests, Role.FEATURE)
        kept = {field.name for field in fields(History)}
        names = [name for name in names_of(requests, Role.ROW, Role.DECISION) if name in kept] + ["Class"]
        columns: dict[str, list[Any]] = {name: [] for name in names}
        blocks: list[Matrix] = []
        selected = query.selected_columns
        query = query.with_only_columns(*(selected[name] for name in (*names, *features)))
        for page in connection.execution_options(stream_results=True).execute(query).partitions(_PAGE_ROWS):
            for place, name in enumerate(names):
                columns[name].extend(row[place] for row in page)
            blocks.append(np.array([row[len(names) :] for row in page], dtype=np.float64))
        true_class = np.array([-1 if value is None else value for value in columns["Class"]], dtype=np.int8)
        sources = self._label_sources(connection) if (true_class >= 0).any() else {}
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
        )

    def _label_sources(self, connection: sa.Connection) -> dict[tuple[str, int], str]:
        labels = self.tables.labels
        counting: dict[tuple[str, int], Label] = {}
        query = sa.select(labels).order_by(labels.c.id)
        for page in connection.execution_options(stream_results=True).execute(query).partitions(_PAGE_ROWS):
            for row in page:
                label = _label(row)
                key = (label.request_id, label.row_index)
                known = counting.get(key)
                counting[key] = label if known is None else label_that_counts((known, label))
        return {key: label.source for key, label in counting.items()}

    def listing(
        self, connection: sa.Connection, *, unlabelled_only: bool = False, since: str = "", limit: int | None = None
    ) -> Iterator[dict[str, Any]]:
        """Give transactions not older than `since`, for people to read, in order of time.

        `unlabelled_only` gives scored ones of which nobody said what they turned out to be, the highest scores first.
        """
        requests = self.tables.requests
        query = sa.select(requests).where(requests.c.ts >= since).limit(limit)
        if unlabelled_only:
            query = query.where(requests.c["Class"].is_(None), requests.c.fraud_probability.is_not(None))
            query = query.order_by(requests.c.fraud_probability.desc(), requests.c.id)
        else:
            query = query.order_by(requests.c.ts, requests.c.id)
        sources = {} if unlabelled_only else self._label_sources(connection)
        listed = listed_columns(self.features)
        rows = connection.execution_options(stream_results=True).execute(query).mappings()
        for page in rows.partitions(_PAGE_ROWS):
            for row in page:
                key = (row["request_id"], row["row_index"])
                source = None if row["Class"] is None else sources.get(key, "external")
                yield {shown: row[name] for shown, name in listed.items()} | {"label_source": source}

    # -- look after it -------------------------------------------------------------------------------------------

    def problems(self, connection: sa.Connection) -> list[str]:
        """Look the whole store through and return what is wrong with it; nothing when it is well."""
        requests, labels = self.tables.requests, self.tables.labels
        found = damage(connection)
        if found:
            return found  # a damaged file answers nothing else reliably
        # What SQLite's Inf and a hand at the table could have left behind; the service itself cannot.
        out_of_range = sa.or_(
            *(sa.or_(requests.c[name] > LIMIT, requests.c[name] < -LIMIT) for name in self.features.names)
        )
        labelled = sa.select(labels.c.id).where(
            labels.c.request_id == requests.c.request_id, labels.c.row_index == requests.c.row_index
        )
        for meaning, wrong in (
            ("rows have a feature that is no number in range", out_of_range),
            ("rows are labelled, but have no Class", sa.and_(requests.c["Class"].is_(None), labelled.exists())),
        ):
            count = connection.scalar(sa.select(sa.func.count()).select_from(requests).where(wrong))
            found += [f"{count} {meaning}"] if count else []
        return found

    # -- carry elsewhere -----------------------------------------------------------------------------------------

    def contents(self, connection: sa.Connection, table: str) -> Iterator[list[tuple[Any, ...]]]:
        """Give the rows of requests, labels, idempotency or schema_meta in pages, without their id, in its order."""
        columns = self._carried(table)
        order = self.tables.metadata.tables[table].primary_key.columns
        query = sa.select(*columns).order_by(*order)
        for page in connection.execution_options(stream_results=True).execute(query).partitions(_PAGE_ROWS):
            yield [tuple(row) for row in page]

    def fill(self, connection: sa.Connection, table: str, rows: Sequence[tuple[Any, ...]]) -> None:
        """Insert rows as `contents` of another store of the same features gives them."""
        names = [column.name for column in self._carried(table)]
        self._insert_many(connection, self.tables.metadata.tables[table], names, rows)

    def _carried(self, table: str) -> list[sa.Column[Any]]:
        return [column for column in self.tables.metadata.tables[table].columns if column.name != "id"]

    def clear(self, connection: sa.Connection) -> None:
        """Erase every row of every table; the tables and what they belong to stay."""
        for table in (self.tables.labels, self.tables.idempotency, self.tables.requests):
            connection.execute(sa.delete(table))
        meta = self.tables.schema_meta
        connection.execute(sa.delete(meta).where(meta.c.key.not_in(FACTS_OF_THE_TABLES)))

    # -- erase ---------------------------------------------------------------------------------------------------

    def forget(self, connection: sa.Connection, identifier: str) -> Forgotten:
        """Erase every row that an identifier names, as `decisions` reads it, with its labels and idempotency keys.

        A request that loses a row can no longer be replayed whole, so its key goes too.
        """
        keys = self.rows_of(connection, identifier)
        requests, labels = self.tables.requests, self.tables.labels
        named = self._identified(identifier)
        # Two statements, however many rows: the API waits for the end of this transaction.
        rows = sa.select(requests.c.request_id, requests.c.row_index).where(named)
        erased = connection.execute(
            sa.delete(labels).where(sa.tuple_(labels.c.request_id, labels.c.row_index).in_(rows))
        ).rowcount
        connection.execute(sa.delete(requests).where(named))
        idempotency_keys = self._erase_keys(connection, {request_id for request_id, _ in keys})
        return Forgotten(keys, erased, idempotency_keys)

    def expire(self, connection: sa.Connection, before: str, limit: int) -> int:
        """Erase at most `limit` of the oldest unlabelled, scored rows from before a time; return how many went.

        Labelled rows stay: they are what the next models learn from and are judged on.
        """
        requests = self.tables.requests
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
            self._erase_row(connection, *key)
        self._erase_keys(connection, {request_id for request_id, _ in keys})
        return len(keys)

    def _erase_row(self, connection: sa.Connection, request_id: str, row_index: int) -> None:
        for table in (self.tables.labels, self.tables.requests):
            connection.execute(sa.delete(table).where(table.c.request_id == request_id, table.c.row_index == row_index))

    def _erase_keys(self, connection: sa.Connection, request_ids: set[str]) -> int:
        keys = self.tables.idempotency
        return sum(
            connection.execute(sa.delete(keys).where(keys.c.request_id == request_id)).rowcount
            for request_id in sorted(request_ids)
        )


def listed_columns(features: FeatureList) -> dict[str, str]:
    """Map what a listing calls a column to its name in `requests`, in the order of the listing."""
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


@contextlib.contextmanager
def _disposed_on_error(engine: sa.Engine) -> Iterator[None]:
    try:
        yield
    except BaseException:
        engine.dispose()
        raise


def _pages(keys: Collection[Any]) -> Iterator[list[Any]]:
    """Split keys so that a query binds fewer values than any database allows."""
    ordered = list(keys)
    for start in range(0, len(ordered), _PAGE_ROWS):
        yield ordered[start : start + _PAGE_ROWS]


def _name(label: NewLabel) -> str | tuple[str | None, int | None]:
    return label.transaction_id if label.transaction_id is not None else (label.request_id, label.row_index)


def _is_repetition(label: NewLabel, said: Sequence[Label]) -> bool:
    same = [known for known in said if (known.source, known.reporter) == (label.source, label.reporter)]
    if label.reported_at is not None:
        return (label.is_fraud, label.reported_at) in {(known.is_fraud, known.reported_at) for known in same}
    same.sort(key=lambda known: (known.reported_at, known.received_at))
    return bool(same) and same[-1].is_fraud == label.is_fraud


def _texts(values: list[str]) -> NDArray[np.str_]:
    return np.array(values, dtype=np.str_) if values else np.empty(0, dtype="U1")


def _label(row: sa.Row[Any]) -> Label:
    return Label(
        request_id=row.request_id,
        row_index=row.row_index,
        is_fraud=bool(row.is_fraud),
        source=row.source,
        reporter=row.reporter,
        reported_at=row.reported_at,
        received_at=row.received_at,
    )


def _ends(names: Sequence[str]) -> str:
    return ", ".join(names) if len(names) <= 3 else f"{names[0]} … {names[-1]}"
