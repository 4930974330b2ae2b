"""Copies stores into another, empty store, SQLite or PostgreSQL, and verifies the copy."""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from fraud_detection.contract import AMOUNT_SCALING
from fraud_detection.counted import counted
from fraud_detection.exit_codes import ExpectedError
from fraud_detection.features import FeatureList
from fraud_detection.lock import alone_with
from fraud_detection.store import FACTS_OF_THE_TABLES, Store, transfer
from jobs.progress import bar

TABLES = ("requests", "labels", "idempotency")
"""Tables in the order in which they refer to each other."""


class CopyFailed(ExpectedError):
    """Nothing was copied; the message says why."""


class TableDigest:
    """A count of rows and a digest without regard to order: the sum of each row's sha256, modulo 2^256.

    Equal sums and equal counts mean equal rows, except after an attack.

    >>> one, other = TableDigest(), TableDigest()
    >>> for row in [(1, "a"), (2, "b")]: one.add(row)
    >>> for row in [(2, "b"), (1, "a")]: other.add(row)
    >>> one == other
    True
    """

    def __init__(self) -> None:
        self.rows = 0
        self._sum = 0

    def add(self, row: tuple[Any, ...]) -> None:
        """Add one row to the count and the digest."""
        # SQLite stores no negative zero: -0.0 + 0.0 is 0.0, and every other number stays the same
        plain = tuple(value + 0.0 if isinstance(value, float) else value for value in row)
        self.rows += 1
        self._sum = (self._sum + int.from_bytes(hashlib.sha256(repr(plain).encode()).digest(), "big")) % 2**256

    def __eq__(self, other: object) -> bool:
        return isinstance(other, TableDigest) and (self.rows, self._sum) == (other.rows, other._sum)

    __hash__ = None  # type: ignore[assignment]  # it changes


def copy_stores(
    sources: Sequence[str | Path], target: str | Path, features: FeatureList, *, replace: bool = False
) -> dict[str, int]:
    """Copy all of `sources` into the store at `target`, created if missing, and return the rows of each table.

    No API may have any of the databases open. All or nothing: before the transaction ends, the target is read back
    and compared with the sources by count and digest. A target that holds rows is rejected unless `replace`.

    Raises CopyFailed, StoreInUse, DatabaseRefused.
    """
    with ExitStack() as stack:
        for location in (*sources, target):
            stack.enter_context(alone_with(location))
        return copy_files(sources, target, features, replace=replace)


def copy_files(
    sources: Sequence[str | Path], target: str | Path, features: FeatureList, *, replace: bool = False
) -> dict[str, int]:
    """Do what `copy_stores` does; the caller ensures that no API has the stores open."""
    with ExitStack() as stack:
        opened = []
        for location in sources:
            # A network file system is allowed: reading alone is safe there, and the copy moves the rows away from it.
            store = Store.open(location, features, read_only=True, allow_network_filesystem=True)
            stack.enter_context(closing(store))
            opened.append((store, stack.enter_context(store.begin())))
        into = stack.enter_context(closing(Store.create_or_migrate(target, features)))
        return copy_contents(opened, into, replace=replace)


def copy_contents(
    sources: Sequence[tuple[Store, sa.Connection]], into: Store, *, replace: bool = False
) -> dict[str, int]:
    """Copy what the connections of the sources see into another store, and return the rows of each table.

    Raises CopyFailed; then the other store is as it was.
    """
    with into.begin() as connection:
        _require_empty(into, connection, replace=replace)
        counted = {table: TableDigest() for table in TABLES}
        for source, read in sources:
            _fill(source, read, into, connection, counted)
            _carry_facts(source, read, into, connection)
        _verify(into, connection, counted)
    return {table: tally.rows for table, tally in counted.items()}


def _require_empty(store: Store, connection: sa.Connection, *, replace: bool) -> None:
    if replace:
        transfer.clear(store, connection)
    rows = store.count_rows(connection)
    if rows:
        raise CopyFailed(f"the target already holds {counted(rows, 'transaction')}; --replace erases them first")


def _fill(
    source: Store, read: sa.Connection, into: Store, connection: sa.Connection, counted: dict[str, TableDigest]
) -> None:
    with _bar("copying", source.count_rows(read)) as advance:
        for table in TABLES:
            for page in transfer.contents(source, read, table):
                transfer.fill(into, connection, table, page)
                for row in page:
                    counted[table].add(row)
                advance(table, len(page))


def _carry_facts(source: Store, read: sa.Connection, into: Store, connection: sa.Connection) -> None:
    for page in transfer.contents(source, read, "schema_meta"):
        for key, value in page:
            if key in FACTS_OF_THE_TABLES:
                continue
            known = into.get_meta(connection, key)
            if known is not None and known != value and key == AMOUNT_SCALING:
                raise CopyFailed(
                    f"the stores scale amounts differently ({known} and {value}), so their rows cannot be mixed; "
                    "copy only one of them"
                )
            into.set_meta(connection, key, value)


def _verify(store: Store, connection: sa.Connection, expected: dict[str, TableDigest]) -> None:
    with _bar("verifying", expected["requests"].rows) as advance:
        for table, tally in expected.items():
            arrived = TableDigest()
            for page in transfer.contents(store, connection, table):
                for row in page:
                    arrived.add(row)
                advance(table, len(page))
            if arrived != tally:
                raise CopyFailed(
                    f"{table}: read {counted(tally.rows, 'row')}, and {arrived.rows:,} arrived, or they differ; "
                    "nothing was copied"
                )


@contextmanager
def _bar(what: str, rows: int) -> Iterator[Callable[[str, int], None]]:
    """Show progress by transactions; the other tables have fewer rows or copy faster."""
    with bar(total=rows, desc=what, unit=" rows") as drawn:

        def advance(table: str, done: int) -> None:
            drawn.update(done if table == "requests" else 0)

        yield advance
