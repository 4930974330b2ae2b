"""Work for the idle writer thread: empty the write-ahead log, delete rows past their retention."""

import logging
import math
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import sqlalchemy as sa

from api.metrics import Metrics
from fraud_detection.clock import timestamp
from fraud_detection.database.sqlite import empty_wal, give_back_pages
from fraud_detection.store import Store, upkeep

WAL_LIMIT_BYTES = 16 * 1024 * 1024
WAL_EVERY_SECONDS = 1.0
WAL_EVERY_SECONDS_BEHIND_A_READER = 5.0
EXPIRE_ROWS = 500
VACUUM_PAGES = 256
RETENTION_EVERY_SECONDS = 3600.0

logger = logging.getLogger(__name__)


class Housekeeping:
    """Works in steps so short that a request which arrives meanwhile is not delayed."""

    def __init__(self, store: Store, metrics: Metrics, retention_days: int) -> None:
        self._store = store
        self._metrics = metrics
        self._retention_days = retention_days
        self._wal = Path(f"{store.location}-wal") if isinstance(store.location, Path) else None
        self._wal_due = math.inf if self._wal is None else 0.0
        self._retention_due = math.inf if retention_days == 0 else 0.0
        self._expired = 0
        metrics.wal_bytes.set_function(self._wal_bytes)
        if isinstance(store.location, Path):
            metrics.watch_volume(store.location.parent)

    @property
    def due_at(self) -> float:
        """Return when the next step is due, on the monotonic clock."""
        return min(self._wal_due, self._retention_due)

    def step(self, connection: sa.Connection) -> None:
        """Do the step that is due; the connection is not inside a transaction.

        Raises what `fraud_detection.database.trouble` sorts.
        """
        now = time.monotonic()
        if now >= self._wal_due:
            # If a reader holds the log open, wait longer: every attempt delays requests.
            is_held_up = self._wal_bytes() > WAL_LIMIT_BYTES and not self._empty_wal(connection)
            self._wal_due = time.monotonic() + (WAL_EVERY_SECONDS_BEHIND_A_READER if is_held_up else WAL_EVERY_SECONDS)
        if now >= self._retention_due:
            is_done = not self._expire(connection)
            took = time.monotonic() - now
            # At most a fifth of the time, so that deleting leaves room for requests.
            self._retention_due = now + took + (RETENTION_EVERY_SECONDS if is_done else max(0.010, 4 * took))

    def finish(self, connection: sa.Connection) -> None:
        """Empty the write-ahead log so that the database file is complete, unless a reader prevents it."""
        if self._wal is not None:
            self._empty_wal(connection)

    def _wal_bytes(self) -> int:
        try:
            # Never opened: closing any descriptor on it would drop SQLite's locks.
            return 0 if self._wal is None else self._wal.stat().st_size
        except FileNotFoundError:
            return 0

    def _empty_wal(self, connection: sa.Connection) -> bool:
        with self._metrics.checkpoint_seconds.time():
            is_empty = empty_wal(connection, busy_timeout_ms=100)
        if not is_empty:
            self._metrics.checkpoints_busy.inc()
        return is_empty

    def _expire(self, connection: sa.Connection) -> bool:
        """Delete one slice, or release one slice of free pages; return False if neither is left."""
        before = timestamp(datetime.now(UTC) - timedelta(days=self._retention_days))
        with connection.begin():
            expired = upkeep.expire(self._store, connection, before, EXPIRE_ROWS)
        self._expired += expired
        self._metrics.rows_expired.inc(expired)
        if expired:
            return True
        if self._expired and self._wal is not None and give_back_pages(connection, VACUUM_PAGES):
            return True
        if self._expired:
            logger.info("retention: %d rows from before %s deleted", self._expired, before)
            self._expired = 0
        return False
