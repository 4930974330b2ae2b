"""Moves rows into and out of a store in bulk: imported history, copies, whole tables."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from fraud_detection.database.sqlite import copy_sqlite
from fraud_detection.features import Matrix
from fraud_detection.schema import REVISION, Role, names_of, tables
from fraud_detection.store import FACTS_OF_THE_TABLES, PAGE_ROWS, Store


@dataclass(frozen=True)
class ImportedRows:
    """Transactions that this installation never scored; columns of equal length n."""

    request_id: str
    ts: Sequence[str]
    matrix: Matrix
    is_fraud: Sequence[bool | None]
    """The label of each, None if there is none."""
    transaction_ids: Sequence[str | None]


def import_history(
    store: Store, connection: sa.Connection, pages: Iterable[ImportedRows], *, reporter: str, received_at: str
) -> int:
    """Insert transactions without a score, with their labels (source `import`); return how many.

    The values of a row stand in the order of `names_of(requests, Role.ROW, Role.FEATURE, Role.LABEL)`.
    """
    places = names_of(store.tables.requests, Role.ROW, Role.FEATURE, Role.LABEL)
    said = ["request_id", "row_index", "is_fraud", "source", "reporter", "reported_at", "received_at"]
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
        _insert_many(store, connection, store.tables.requests, places, rows)
        _insert_many(store, connection, store.tables.labels, said, labels)
        imported += len(rows)
    return imported


def copy_to(store: Store, target: Path) -> None:
    """Write a consistent copy of an SQLite store to `target`, which must not exist; whole or not at all.

    Raises: DatabaseRefused; FileExistsError; TypeError for PostgreSQL.
    """
    if not isinstance(store.location, Path):
        raise TypeError("only an SQLite store is a file; use pg_dump for PostgreSQL")
    copy_sqlite(store.location, target)


def contents(store: Store, connection: sa.Connection, table: str) -> Iterator[list[tuple[Any, ...]]]:
    """Give the rows of a table in pages, in the order of its primary key, without the column `id`.

    A column that the store has not yet, because it is of an older revision, is None.
    """
    stored = store.tables.metadata.tables[table]
    columns = [stored.c.get(name, sa.null()) for name in _carried(store, table)]
    query = sa.select(*columns).order_by(*stored.primary_key.columns)
    for page in connection.execution_options(stream_results=True).execute(query).partitions(PAGE_ROWS):
        yield [tuple(row) for row in page]


def fill(store: Store, connection: sa.Connection, table: str, rows: Sequence[tuple[Any, ...]]) -> None:
    """Insert rows as `contents` of another store of the same features gives them."""
    _insert_many(store, connection, store.tables.metadata.tables[table], _carried(store, table), rows)


def _insert_many(
    store: Store, connection: sa.Connection, table: sa.Table, columns: Sequence[str], rows: Sequence[tuple[object, ...]]
) -> None:
    if not rows:
        return
    if connection.dialect.name == "sqlite":
        connection.exec_driver_sql(store.compile_insert(table, columns), list(rows))
        return
    quote = connection.dialect.identifier_preparer.quote
    names = ", ".join(quote(name) for name in columns)
    driver: Any = connection.connection.driver_connection
    # COPY, because an INSERT for each row takes several times as long
    with driver.cursor() as cursor, cursor.copy(f"COPY {quote(table.name)} ({names}) FROM STDIN") as copy:
        for row in rows:
            copy.write_row(row)


def _carried(store: Store, table: str) -> list[str]:
    newest = tables(store.features.names).metadata.tables[table]
    return [column.name for column in newest.columns if column.name != "id"]


def clear(store: Store, connection: sa.Connection) -> None:
    """Erase every row of every table; the tables and the facts of FACTS_OF_THE_TABLES stay."""
    for table in (store.tables.labels, store.tables.idempotency, store.tables.requests):
        connection.execute(sa.delete(table))
    meta = store.tables.schema_meta
    connection.execute(sa.delete(meta).where(meta.c.key.not_in(FACTS_OF_THE_TABLES)))
