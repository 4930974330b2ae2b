"""Opens, copies and maintains an SQLite file: driver, version floor, pragmas, explicit transactions."""

import contextlib
import errno
import os
from pathlib import Path
from typing import Any

import pysqlite3
import sqlalchemy as sa
from pysqlite3 import dbapi2
from sqlalchemy.pool import QueuePool

from fraud_detection.counted import counted
from fraud_detection.database import DatabaseRefused, Trouble, reachable
from fraud_detection.regular_file import NAMED, wrong_kind

SQLITE_FLOOR = (3, 51, 3)  # older ones can corrupt a WAL database: https://sqlite.org/wal.html#walresetbug
APPLICATION_ID = 0x46726175  # "Frau", so that `file` and this program recognise a store
BUSY_TIMEOUT_MS = 5000
JOURNAL_SIZE_LIMIT = 64 * 1024 * 1024
_SHARED_FILE_SYSTEMS = ("nfs", "cifs", "smb", "9p", "virtiofs", "fuse", "ceph", "glusterfs", "afs")


def open_file(path: Path, *, read_only: bool, allow_network_filesystem: bool) -> sa.Engine:
    """Return an engine on an existing file.

    Every transaction starts with BEGIN IMMEDIATE unless read_only, so that a writer waits for its turn there and never
    fails in the middle.

    Raises: DatabaseRefused.
    """
    require_database_file(path)
    if not path.exists():
        raise DatabaseRefused(
            "missing", gone(path) or f"{path.absolute()}: no database there; create one with `fraudctl bootstrap`"
        )
    return _engine(path, read_only=read_only, allow_network_filesystem=allow_network_filesystem)


def create_file(path: Path, *, allow_network_filesystem: bool) -> sa.Engine:
    """Return an engine on a file, which is created if it does not exist, readable only by owner and group.

    Raises: DatabaseRefused, with reason `lost` if `remember_file` marked a store here and the file is gone.
    """
    require_database_file(path)
    loss = gone(path)
    if loss is not None:
        raise DatabaseRefused("lost", loss)
    path.parent.mkdir(parents=True, exist_ok=True)
    # The group can write, because jobs may run as another user of it (`share_with_group`); so do -wal and -shm.
    os.close(os.open(path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o660))
    return _engine(path, read_only=False, allow_network_filesystem=allow_network_filesystem)


def require_database_file(path: Path) -> None:
    """Raise DatabaseRefused if something else than a file is there: SQLite would wait, or replace it."""
    problem = wrong_kind(path, NAMED)
    if problem is not None:
        raise DatabaseRefused("not_a_file", problem)


def remember_file(path: Path) -> None:
    """Mark the folder as holding a store, so that `create_file` notices its loss."""
    _marker(path).touch()


def erase_file(path: Path) -> None:
    """Delete a file, and what SQLite keeps beside it."""
    for suffix in ("", "-wal", "-shm", "-journal"):
        path.with_name(path.name + suffix).unlink(missing_ok=True)


def forget_file(path: Path) -> None:
    """Remove the mark of `remember_file`: an empty store may be created here."""
    _marker(path).unlink(missing_ok=True)


def gone(path: Path) -> str | None:
    """Return what to do if `remember_file` marked a store here and the file is gone, otherwise None."""
    marker = _marker(path)
    if path.exists() or not marker.exists():
        return None
    return (
        f"{path}: a database was here and is gone; restore it (`fraudctl db restore`), or "
        f"delete {marker} if you want to start with an empty one"
    )


def _marker(path: Path) -> Path:
    return path.parent / f".{path.name}.initialised"


def _engine(path: Path, *, read_only: bool, allow_network_filesystem: bool) -> sa.Engine:
    if pysqlite3.sqlite_version_info < SQLITE_FLOOR:
        floor = ".".join(map(str, SQLITE_FLOOR))
        raise DatabaseRefused(
            "sqlite_too_old",
            f"SQLite {floor} or newer is needed (older ones can corrupt this database), got {pysqlite3.sqlite_version}",
        )
    if not allow_network_filesystem:
        _refuse_network_filesystem(path)

    def connect() -> Any:
        mode = "ro" if read_only else "rw"  # never rwc: a store that vanished would come back empty
        # autocommit in the driver, because its implicit BEGIN is deferred and leaves DDL outside the transaction
        return dbapi2.connect(
            f"{path.resolve().as_uri()}?mode={mode}", uri=True, isolation_level=None, check_same_thread=False
        )

    engine = sa.create_engine(
        "sqlite+pysqlite://",
        module=dbapi2,
        creator=connect,
        poolclass=QueuePool,
        hide_parameters=True,  # a logged error must not contain features or scores
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
        connection.execute(
            "SELECT COUNT(*) FROM sqlite_master"
        )  # so that a file that is not a database fails here, not later
        return
    if connection.execute("PRAGMA page_count").fetchone()[0] == 0:
        connection.execute("PRAGMA auto_vacuum=INCREMENTAL")  # only a database without tables accepts it
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
    connection.execute("PRAGMA secure_delete=ON")  # erased rows are overwritten, not only unlinked


def _refusal(path: Path, error: Exception) -> DatabaseRefused:
    text = str(error)
    if "not a database" in text or "malformed" in text:
        return DatabaseRefused(
            "corrupt",
            f"{path}: is damaged or not an SQLite database ({text}); restore a backup (`fraudctl db restore`)",
        )
    return DatabaseRefused("unreachable", f"{path}: cannot be opened ({text}); check its permissions and its disk")


def _refuse_network_filesystem(path: Path) -> None:
    kind = file_system(path)
    if kind.startswith(_SHARED_FILE_SYSTEMS):
        raise DatabaseRefused(
            "network_filesystem",
            f"{path}: is on {kind}, where SQLite's locks do not work; use a local disk or PostgreSQL (DATABASE_URL). "
            "If only one host mounts it, you can set ALLOW_NETWORK_FILESYSTEM=true",
        )


def file_system(path: Path) -> str:
    """Return the type of the file system that holds `path` (`ext4`, `nfs4`, …); empty if the kernel does not say."""
    device = path.parent.stat().st_dev
    wanted = f"{os.major(device)}:{os.minor(device)}"
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/mountinfo").read_text(encoding="utf-8").splitlines():
            mount, _, source = line.partition(" - ")
            if mount.split()[2] == wanted:
                return source.split()[0]
    return ""


def trouble_of(error: dbapi2.Error) -> Trouble | None:
    """Return the kind of storage failure, None if the statement is the cause."""
    return _TROUBLE.get(getattr(error, "sqlite_errorcode", 0) & 0xFF)  # the higher bits are detail


_TROUBLE: dict[int, Trouble] = {
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


def empty_wal(connection: sa.Connection, *, busy_timeout_ms: int) -> bool:
    """Write the write-ahead log into the database and truncate it; return False if a reader prevented that.

    The connection must not be inside a transaction.
    """
    driver: Any = connection.connection.driver_connection
    driver.execute(f"PRAGMA busy_timeout={busy_timeout_ms}")
    try:
        is_busy, _, _ = driver.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
    finally:
        driver.execute(f"PRAGMA busy_timeout={BUSY_TIMEOUT_MS}")
    return not is_busy


def give_back_pages(connection: sa.Connection, limit: int) -> int:
    """Return at most `limit` free pages to the file system, and the number of pages that are still free.

    The connection must not be inside a transaction.
    """
    driver: Any = connection.connection.driver_connection
    driver.execute(f"PRAGMA incremental_vacuum({limit})").fetchall()  # it runs while its rows are read
    return int(driver.execute("PRAGMA freelist_count").fetchone()[0])


def damage(connection: sa.Connection) -> list[str]:
    """Read a whole SQLite file and return its damage; return nothing for PostgreSQL, which checks itself."""
    if connection.dialect.name != "sqlite":
        return []
    driver: Any = connection.connection.driver_connection
    try:
        found = [f"integrity check: {line}" for (line,) in driver.execute("PRAGMA integrity_check") if line != "ok"]
        if found:
            return found
        orphans = len(driver.execute("PRAGMA foreign_key_check").fetchall())
    except dbapi2.DatabaseError as error:
        return [f"integrity check: {error}"]
    return [f"{counted(orphans, 'row')} without the row to which a foreign key refers"] if orphans else []


def copy_sqlite(source: Path, target: Path) -> None:
    """Write a consistent copy of an SQLite file, in use or not, to `target`, which must not exist; whole or not at all.

    Raises: DatabaseRefused; FileExistsError; OSError with ENOSPC if the folder of the copy is full.
    """
    if target.exists():
        raise FileExistsError(target)
    partial = target.with_name(f".{target.name}.partial")
    partial.unlink(missing_ok=True)
    # mode=ro, because query_only rejects VACUUM INTO
    engine = open_file(source, read_only=True, allow_network_filesystem=True)
    try:
        with reachable(source), engine.connect() as connection:
            descriptor = os.open(partial, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
            os.close(descriptor)
            driver: Any = connection.connection.driver_connection
            # Otherwise rows stay in unused parts of the copy's pages, where no later deletion finds them.
            driver.execute("PRAGMA secure_delete=ON")
            driver.execute("VACUUM INTO ?", (str(partial),))
    except dbapi2.DatabaseError as error:
        partial.unlink(missing_ok=True)
        if trouble_of(error) == "full":  # of the copy, because the source is only read
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(target.parent)) from error
        raise _refusal(source, error) from error
    finally:
        engine.dispose()
    with partial.open("rb+") as copied:
        os.fsync(copied.fileno())
    partial.rename(target)
