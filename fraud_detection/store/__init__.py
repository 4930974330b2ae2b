"""Opens, creates and migrates the store of one installation; the modules beside this one hold its queries.

They are functions of a store and a connection, which work inside the caller's transaction:
`with store.begin() as connection: decisions.append(store, connection, requests)`.
"""

import contextlib
import json
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import sqlalchemy as sa
from alembic import command
from alembic.config import Config

from fraud_detection.counted import counted
from fraud_detection.database import DatabaseRefused, reachable
from fraud_detection.database.engine import create_engine, open_engine
from fraud_detection.database.sqlite import remember_file
from fraud_detection.features import FeatureList
from fraud_detection.schema import REVISION, Role, Tables, names_of, tables
from fraud_detection.store.foreign_objects import foreign_objects

FACTS_OF_THE_TABLES = ("features", "features_digest", "oldest_writer")
"""The keys that schema_meta holds in every store, also in an empty one."""

_NAMED_OBJECTS = 5  # in a message; a file can hold any number

PAGE_ROWS = 5000  # rows of a large query that are in memory at once


class Store:
    """The tables of one installation behind one engine."""

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
        """Open an existing store and check that this code and this feature list fit it.

        Raises: DatabaseRefused.
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
        """Open a store as `open` does, but create missing tables and migrate older ones.

        All steps run in one transaction. They do not write to a store that is up to date. Two processes may run them at
        the same time.

        Raises: DatabaseRefused.
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
        if isinstance(location, Path):
            remember_file(location)
        return store

    def close(self) -> None:
        """Close every connection."""
        self.engine.dispose()

    @contextlib.contextmanager
    def begin(self) -> Iterator[sa.Connection]:
        """Run the block in one transaction: committed when it ends, rolled back if it raises."""
        with self.engine.begin() as connection:
            yield connection

    def get_meta(self, connection: sa.Connection, key: str) -> str | None:
        """Return one fact about the store, None if it is not known."""
        meta = self.tables.schema_meta
        value: str | None = connection.scalar(sa.select(meta.c.value).where(meta.c.key == key))
        return value

    def set_meta(self, connection: sa.Connection, key: str, value: str) -> None:
        """Set one fact about the store."""
        meta = self.tables.schema_meta
        connection.execute(sa.delete(meta).where(meta.c.key == key))
        connection.execute(sa.insert(meta).values(key=key, value=value))

    def count_rows(self, connection: sa.Connection) -> int:
        """Return how many transactions are stored."""
        return int(connection.scalar(sa.select(sa.func.count()).select_from(self.tables.requests)) or 0)

    @cached_property
    def insert_decisions(self) -> str:
        """Return the INSERT of `decisions.append`, compiled once because compiling it takes longer than running it."""
        requests = self.tables.requests
        return self.compile_insert(requests, names_of(requests, Role.ROW, Role.FEATURE, Role.DECISION))

    def compile_insert(self, table: sa.Table, columns: Sequence[str]) -> str:
        """Compile an INSERT for the driver, which takes tuples in the order of the columns."""
        insert = sa.insert(table).values({name: sa.bindparam(name) for name in columns})
        paramstyle = "qmark" if self.engine.dialect.name == "sqlite" else "format"
        dialect_class: Any = type(self.engine.dialect)
        compiled = insert.compile(dialect=dialect_class(paramstyle=paramstyle), column_keys=list(columns))
        if list(compiled.positiontup or ()) != list(columns):
            raise AssertionError("the tuples are built in the order of the columns")
        return str(compiled)

    def _migrate(self, connection: sa.Connection) -> None:
        revision = self._revision(connection)
        if revision is not None and revision >= REVISION:
            return
        if revision is None and sa.inspect(connection).has_table("requests"):
            self._check(connection)  # rejects the table of another program
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
        revision = self._revision(connection)
        if revision is None:
            if sa.inspect(connection).has_table("requests"):
                raise DatabaseRefused(
                    "not_ours",
                    f"{where}: holds a `requests` table of another program; move it away, then "
                    "import its rows with `fraudctl import-db`",
                )
            raise DatabaseRefused("missing", f"{where}: has no tables yet; create them with `fraudctl bootstrap`")
        oldest_writer = self.get_meta(connection, "oldest_writer")
        if oldest_writer is None or int(oldest_writer) > REVISION:
            raise DatabaseRefused(
                "too_new",
                f"{where}: a newer version of this program wrote it, and this one (revision {REVISION}) would damage "
                "it; use the newer version",
            )
        if self.get_meta(connection, "features_digest") != self.features.digest:
            names = json.loads(self.get_meta(connection, "features") or "[]")
            raise DatabaseRefused(
                "other_features",
                f"{where}: belongs to another feature list ({counted(len(names), 'feature')}: {_ends(names)}), this "
                f"installation has {len(self.features)} ({_ends(self.features.names)}); set FEATURES_FILE to the list "
                "of the store, set LATEST_DB and TRAIN_DB to other files, or start over: `fraudctl reset` deletes "
                "stores and models",
            )
        if revision < REVISION:  # a job of this version can come before the API that migrates
            self.tables = tables(self.features.names, revision)
        foreign = foreign_objects(self.tables, connection, is_other_revision=revision != REVISION)
        if foreign:
            more = f" and {len(foreign) - _NAMED_OBJECTS} more" if len(foreign) > _NAMED_OBJECTS else ""
            raise DatabaseRefused(
                "foreign_objects",
                f"{where}: holds what this program did not make and what could change or hide rows: "
                f"{', '.join(foreign[:_NAMED_OBJECTS])}{more}; if you made it, stop the API and drop it "
                "(DROP TRIGGER, DROP VIEW, …), otherwise restore a backup without it (`fraudctl db restore`)",
            )


def count_up_to(connection: sa.Connection, limit: int, table: sa.FromClause, condition: sa.ColumnElement[bool]) -> int:
    """Return how many rows meet a condition, or `limit` if more do, because a count of all takes time for each."""
    rows = sa.select(sa.literal_column("1")).select_from(table).where(condition).limit(limit).subquery()
    return connection.scalar(sa.select(sa.func.count()).select_from(rows)) or 0


@contextlib.contextmanager
def _disposed_on_error(engine: sa.Engine) -> Iterator[None]:
    try:
        yield
    except BaseException:
        engine.dispose()
        raise


def _ends(names: Sequence[str]) -> str:
    return ", ".join(names) if len(names) <= 3 else f"{names[0]} … {names[-1]}"
