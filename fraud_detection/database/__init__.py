"""Opens SQLite or PostgreSQL the one correct way: driver, version floor, pragmas, explicit transactions."""

import contextlib
import errno
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import pysqlite3
import sqlalchemy as sa
from pysqlite3 import dbapi2
from sqlalchemy.pool import QueuePool

from fraud_detection.exit_codes import ExitCode, ExpectedError

SQLITE_FLOOR = (3, 51, 3)  # older ones can corrupt a WAL database: https://sqlite.org/wal.html#walresetbug
APPLICATION_ID = 0x46726175  # "Frau", so that `file` and we recognise our own
BUSY_TIMEOUT_MS = 5000
_STEPS_BETWEEN_LOOKS_AT_THE_CLOCK = 10_000  # of SQLite's virtual machine: well below a millisecond
JOURNAL_SIZE_LIMIT = 64 * 1024 * 1024
_SHARED_FILE_SYSTEMS = ("nfs", "cifs", "smb", "9p", "virtiofs", "fuse", "ceph", "glusterfs", "afs")

Reason = Literal[
    "sqlite_too_old",
    "network_filesystem",
    "missing",
    "lost",
    "corrupt",
    "not_ours",
    "too_new",
    "other_features",
    "unreachable",
    "not_durable",
]


Trouble = Literal["full", "busy", "failed", "corrupt"]


class TookTooLong(ExpectedError):
    """A statement that was ended because its time was up; the message says what to do."""


class DatabaseRefused(ExpectedError):
    """A database that must not be used; `reason` comes from a fixed set, the message says what to do."""

    exit_code = ExitCode.UNUSABLE

    def __init__(self, reason: Reason, message: str) -> None:
        super().__init__(message)
        self.reason: Reason = reason


def open_engine(location: str | Path, *, read_only: bool = False, allow_network_filesystem: bool = False) -> sa.Engine:
    """Return an engine on a PostgreSQL URL or an SQLite file; the file is not created.

    Every transaction on SQLite begins IMMEDIATE unless read_only, so that a writer waits for its turn at BEGIN
    and never fails in the middle.

    Raises DatabaseRefused.
    """
    if isinstance(location, str):
        return _open_postgresql(location, read_only=read_only)
    if not location.exists():
        raise DatabaseRefused("missing", f"{location}: no database there; `fraudctl bootstrap` makes one")
    return _open_sqlite(location, read_only=read_only, allow_network_filesystem=allow_network_filesystem)


def create_engine(location: str | Path, *, allow_network_filesystem: bool = False) -> sa.Engine:
    """As open_engine, but an SQLite file that does not exist yet is created, closed to others than owner and group.

    Raises DatabaseRefused, with reason `lost`, where a store existed before (`remember_store`): nothing is silently
    begun anew.
    """
    if isinstance(location, str):
        return _open_postgresql(location, read_only=False)
    marker = _marker(location)
    if marker.exists() and not location.exists():
        raise DatabaseRefused(
            "lost",
            f"{location}: a database was here and is gone; restore it (`fraudctl db restore`) or, "
            f"to begin anew on purpose, delete {marker}",
        )
    location.parent.mkdir(parents=True, exist_ok=True)
    # The group, because jobs may run as another user of it (`share_with_group`); -wal and -shm take the same mode.
    os.close(os.open(location, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o660))
    return _open_sqlite(location, read_only=False, allow_network_filesystem=allow_network_filesystem)


def remember_store(location: str | Path) -> None:
    """Write down that a store is here, so that its loss is noticed."""
    if isinstance(location, Path):
        _marker(location).touch()


def _marker(location: Path) -> Path:
    return location.parent / f".{location.name}.initialised"


def _open_sqlite(path: Path, *, read_only: bool, allow_network_filesystem: bool) -> sa.Engine:
    if pysqlite3.sqlite_version_info < SQLITE_FLOOR:
        floor = ".".join(map(str, SQLITE_FLOOR))
        raise DatabaseRefused(
            "sqlite_too_old",
            f"SQLite {floor} or newer is needed (older ones can corrupt this database), got {pysqlite3.sqlite_version}",
        )
    if not allow_network_filesystem:
        _refuse_network_filesystem(path)

    def connect() -> Any:
        mode = "ro" if read_only else "rwc"
        # autocommit in the driver: its own implicit BEGIN is deferred and leaves DDL outside the transaction
        return dbapi2.connect(
            f"{path.resolve().as_uri()}?mode={mode}", uri=True, isolation_level=None, check_same_thread=False
        )

    engine = sa.create_engine(
        "sqlite+pysqlite://",
        module=dbapi2,
        creator=connect,
        poolclass=QueuePool,
        hide_parameters=True,  # an error that is logged must not tell features or scores
    )

    @sa.event.listens_for(engine, "connect")
    def _configure(connection: Any, _record: object) -> None:
        try:
            _set_pragmas(connection, read_only=read_only)
        except dbapi2.DatabaseError as error:
            connection.close()
            raise _refusal(path, error) from error

    @sa.event.listens_for(engine, "begin")
    def _begin(connection: sa.Connection) -> None:
        connection.exec_driver_sql("BEGIN" if read_only else "BEGIN IMMEDIATE")

    return engine


def _set_pragmas(connection: Any, *, read_only: bool) -> None:
    connection.execute(f"PRAGMA busy_timeout={BUSY_TIMEOUT_MS}")
    connection.execute("PRAGMA trusted_schema=OFF")
    connection.execute("PRAGMA cell_size_check=ON")
    if read_only:
        connection.execute("SELECT COUNT(*) FROM sqlite_master")  # a file that is no database is found here, not later
        return
    if connection.execute("PRAGMA page_count").fetchone()[0] == 0:
        connection.execute("PRAGMA auto_vacuum=INCREMENTAL")  # only a database without tables takes it
        connection.execute(f"PRAGMA application_id={APPLICATION_ID}")
    journal = connection.execute("PRAGMA journal_mode=WAL").fetchone()[0]
    connection.execute("PRAGMA synchronous=FULL")  # NORMAL does not fsync the commit
    synchronous = connection.execute("PRAGMA synchronous").fetchone()[0]
    if (journal, synchronous) != ("wal", 2):
        raise DatabaseRefused(
            "not_durable",
            f"expected journal_mode wal and synchronous 2, got {journal} and {synchronous}: "
            "put the database on a local file system",
        )
    connection.execute("PRAGMA wal_autocheckpoint=4000")
    connection.execute(f"PRAGMA journal_size_limit={JOURNAL_SIZE_LIMIT}")
    connection.execute("PRAGMA foreign_keys=ON")
    connection.execute("PRAGMA secure_delete=ON")  # what is forgotten is overwritten, not only unlinked


def _refusal(path: Path, error: Exception) -> DatabaseRefused:
    text = str(error)
    if "not a database" in text or "malformed" in text:
        return DatabaseRefused(
            "corrupt", f"{path}: is damaged or no SQLite database ({text}); restore a backup (`fraudctl db restore`)"
        )
    return DatabaseRefused("unreachable", f"{path}: cannot be opened ({text})")


def _refuse_network_filesystem(path: Path) -> None:
    kind = file_system(path)
    if kind.startswith(_SHARED_FILE_SYSTEMS):
        raise DatabaseRefused(
            "network_filesystem",
            f"{path}: lies on {kind}, where SQLite's locks do not hold; use a local disk, PostgreSQL (DATABASE_URL) "
            "or, if you know that one host alone mounts it, ALLOW_NETWORK_FILESYSTEM=true",
        )


def file_system(path: Path) -> str:
    """Return the type of the file system that holds `path` (`ext4`, `nfs4`, …); empty where the kernel does not say."""
    device = path.parent.stat().st_dev
    wanted = f"{os.major(device)}:{os.minor(device)}"
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/mountinfo").read_text(encoding="utf-8").splitlines():
            mount, _, source = line.partition(" - ")
            if mount.split()[2] == wanted:
                return source.split()[0]
    return ""


def _open_postgresql(url: str, *, read_only: bool) -> sa.Engine:
    engine = sa.create_engine(
        url,
        isolation_level="REPEATABLE READ" if read_only else "READ COMMITTED",
        # A server that does not answer is an error within seconds, not a thread that hangs; a database without an
        # encoding (SQL_ASCII, as servers of the C locale make them) would answer in bytes.
        connect_args={"connect_timeout": 3, "tcp_user_timeout": 5000, "client_encoding": "utf8"},
        hide_parameters=True,
    )
    if read_only:
        return engine.execution_options(postgresql_readonly=True)

    @sa.event.listens_for(engine, "connect")
    def _require_durability(connection: Any, _record: object) -> None:
        for name, accepted in (
            ("fsync", {"on"}),
            ("full_page_writes", {"on"}),
            ("synchronous_commit", {"on", "remote_apply"}),
        ):
            value = connection.execute(f"SHOW {name}").fetchone()[0]
            if value not in accepted:
                raise DatabaseRefused(
                    "not_durable", f"PostgreSQL: expected {name} {' or '.join(accepted)}, got {value}"
                )
        connection.rollback()

    return engine


@contextlib.contextmanager
def reachable(location: str | Path) -> Iterator[None]:
    """Turn the driver's 'cannot connect' inside the block into DatabaseRefused, without the URL and its password."""
    try:
        yield
    except sa.exc.OperationalError as error:
        where = location if isinstance(location, Path) else "PostgreSQL"
        raise DatabaseRefused("unreachable", f"{where}: cannot be reached ({error.orig})") from error
    except sa.exc.DatabaseError as error:
        where = location if isinstance(location, Path) else "PostgreSQL"
        raise DatabaseRefused("corrupt", f"{where}: cannot be read ({error.orig})") from error


def trouble(error: BaseException | None) -> Trouble | None:
    """Say what storage itself failed at; None when the statement, its values or something else is to blame."""
    if isinstance(error, DatabaseRefused):
        return "corrupt" if error.reason == "corrupt" else "failed"
    driver_error = error.orig if isinstance(error, sa.exc.DBAPIError) else error
    if isinstance(driver_error, dbapi2.Error):
        return _SQLITE_TROUBLE.get(getattr(driver_error, "sqlite_errorcode", 0) & 0xFF)  # the rest is detail
    psycopg = sys.modules.get("psycopg")  # SQLAlchemy imports it for a PostgreSQL URL; without it no error is its own
    if psycopg is not None and isinstance(driver_error, psycopg.Error):
        state = driver_error.sqlstate or ("08" if isinstance(driver_error, psycopg.OperationalError) else "")
        return next((kind for start, kind in _POSTGRESQL_TROUBLE.items() if state.startswith(start)), None)
    return None


_SQLITE_TROUBLE: dict[int, Trouble] = {
    dbapi2.SQLITE_FULL: "full",
    dbapi2.SQLITE_BUSY: "busy",
    dbapi2.SQLITE_LOCKED: "busy",
    dbapi2.SQLITE_IOERR: "failed",
    dbapi2.SQLITE_READONLY: "failed",
    dbapi2.SQLITE_CANTOPEN: "failed",
    dbapi2.SQLITE_NOMEM: "failed",
    dbapi2.SQLITE_PROTOCOL: "busy",
    dbapi2.SQLITE_CORRUPT: "corrupt",
    dbapi2.SQLITE_NOTADB: "corrupt",
}
_POSTGRESQL_TROUBLE: dict[str, Trouble] = {
    "53100": "full",
    "40": "busy",  # serialisation failure, deadlock
    "55P03": "busy",  # lock not available
    "57014": "busy",  # statement timeout
    "08": "failed",
    "25006": "failed",  # became read-only
    "53": "failed",  # out of memory, too many connections
    "57P": "failed",  # shutting down
    "58": "failed",  # input and output
    "XX001": "corrupt",
    "XX002": "corrupt",
}


def limit_statements(connection: sa.Connection, milliseconds: int) -> None:
    """Let PostgreSQL give up a statement of this connection after so long; SQLite's have the busy timeout."""
    if connection.dialect.name == "postgresql":
        _driver(connection).execute(f"SET statement_timeout = {milliseconds}")
        _driver(connection).commit()


def empty_wal(connection: sa.Connection, *, busy_timeout_ms: int) -> bool:
    """Bring SQLite's write-ahead log into the database and truncate it; False when a reader held that up.

    The connection must not be inside a transaction.
    """
    driver = _driver(connection)
    driver.execute(f"PRAGMA busy_timeout={busy_timeout_ms}")
    try:
        is_busy, _, _ = driver.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
    finally:
        driver.execute(f"PRAGMA busy_timeout={BUSY_TIMEOUT_MS}")
    return not is_busy


def give_back_pages(connection: sa.Connection, limit: int) -> int:
    """Return at most `limit` free pages of SQLite to the file system and say how many are still free.

    The connection must not be inside a transaction.
    """
    driver = _driver(connection)
    driver.execute(f"PRAGMA incremental_vacuum({limit})").fetchall()  # it works as its rows are read
    return int(driver.execute("PRAGMA freelist_count").fetchone()[0])


def damage(connection: sa.Connection) -> list[str]:
    """Read a whole SQLite file and return what is damaged in it; PostgreSQL looks after itself."""
    if connection.dialect.name != "sqlite":
        return []
    driver = _driver(connection)
    try:
        found = [f"integrity check: {line}" for (line,) in driver.execute("PRAGMA integrity_check") if line != "ok"]
        if found:
            return found
        orphans = len(driver.execute("PRAGMA foreign_key_check").fetchall())
    except dbapi2.DatabaseError as error:
        return [f"integrity check: {error}"]
    return [f"{orphans} rows refer to rows that are not there"] if orphans else []


def run_query(
    connection: sa.Connection, statement: str, *, timeout_seconds: int | None = None
) -> tuple[list[str], Iterator[tuple[Any, ...]]]:
    """Run one statement of somebody's own SQL, unchanged, and return the names of the columns and the rows.

    The connection should be of a read-only engine; it attaches no other file from then on, and keeps the time limit.

    Raises TookTooLong, also while the rows are read: whoever waits for them may be gone, and SQLite's write-ahead log
    cannot shrink as long as a statement reads.
    """
    plain = connection.execution_options(no_parameters=True, stream_results=True)  # else a % would want a value
    if connection.dialect.name == "sqlite":  # read-only is only this file: ATTACH would create any other one
        _driver(connection).set_authorizer(_allow_all_but_attach)
    if timeout_seconds is not None:
        _end_after(connection, timeout_seconds)
    try:
        with _in_time(timeout_seconds):
            result = plain.exec_driver_sql(statement)
    except dbapi2.Warning as error:  # more than one statement; SQLAlchemy passes it on as it is
        raise sa.exc.ProgrammingError(statement, None, error) from error
    if not result.returns_rows:
        return [], iter(())
    return list(result.keys()), _rows(result, timeout_seconds)


def _rows(result: sa.CursorResult[Any], timeout_seconds: int | None) -> Iterator[tuple[Any, ...]]:
    with _in_time(timeout_seconds):
        for page in result.partitions(1000):
            yield from map(tuple, page)


def _end_after(connection: sa.Connection, seconds: int) -> None:
    driver = _driver(connection)
    if connection.dialect.name == "postgresql":
        driver.execute(f"SET LOCAL statement_timeout = {seconds * 1000}")
        return
    end = time.monotonic() + seconds
    driver.set_progress_handler(lambda: time.monotonic() > end, _STEPS_BETWEEN_LOOKS_AT_THE_CLOCK)


@contextlib.contextmanager
def _in_time(timeout_seconds: int | None) -> Iterator[None]:
    try:
        yield
    except sa.exc.OperationalError as error:
        is_sqlite = getattr(error.orig, "sqlite_errorcode", None) == dbapi2.SQLITE_INTERRUPT
        is_postgresql = getattr(error.orig, "sqlstate", None) == "57014"  # query_canceled
        if is_sqlite or is_postgresql:
            raise TookTooLong(
                f"the statement was ended after {timeout_seconds} seconds; narrow it (WHERE, LIMIT), "
                "or allow it more with the option timeout"
            ) from error
        raise


def _allow_all_but_attach(action: int, *_: object) -> int:
    allowed: int = dbapi2.SQLITE_DENY if action == dbapi2.SQLITE_ATTACH else dbapi2.SQLITE_OK
    return allowed


def copy_sqlite(source: Path, target: Path) -> None:
    """Write a consistent copy of an SQLite file, in use or not, to `target`, which must not exist; whole or not at all.

    Raises DatabaseRefused; FileExistsError; OSError with ENOSPC when the folder of the copy is full.
    """
    if target.exists():
        raise FileExistsError(target)
    partial = target.with_name(f".{target.name}.partial")
    partial.unlink(missing_ok=True)
    # mode=ro, not query_only: query_only refuses VACUUM INTO
    engine = open_engine(source, read_only=True, allow_network_filesystem=True)
    try:
        with reachable(source), engine.connect() as connection:
            descriptor = os.open(partial, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
            os.close(descriptor)
            _driver(connection).execute("VACUUM INTO ?", (str(partial),))
    except dbapi2.DatabaseError as error:
        partial.unlink(missing_ok=True)
        if trouble(error) == "full":  # the source is only read
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(target.parent)) from error
        raise _refusal(source, error) from error
    finally:
        engine.dispose()
    with partial.open("rb+") as copied:
        os.fsync(copied.fileno())
    partial.rename(target)


def _driver(connection: sa.Connection) -> Any:
    return connection.connection.driver_connection
