"""The API deletes old unlabelled rows in slices, and empties a large write-ahead log."""

import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
import sqlalchemy as sa

from api import housekeeping
from api.housekeeping import Housekeeping
from api.metrics import Metrics
from fraud_detection.clock import timestamp
from fraud_detection.store import Store, decisions, labels
from fraud_detection.store.decisions import ScoredRequest
from fraud_detection.store.labels import NewLabel


def stored_days_ago(store: Store, days: float, rows: int, name: str) -> None:
    moment = timestamp(datetime.now(UTC) - timedelta(days=days))
    request = ScoredRequest(
        request_id=name,
        ts=moment,
        matrix=np.random.default_rng(0).normal(size=(rows, 29)),
        fraud_probability=[0.25] * rows,
        threshold=0.4,
        model_version="a-version",
        model_digest="d" * 64,
        transaction_ids=[None] * rows,
    )
    with store.begin() as connection:
        decisions.append(store, connection, [request])


def rows(store: Store) -> int:
    with store.engine.connect() as connection:
        return store.count_rows(connection)


def work_until_done(work: Housekeeping, store: Store, slices: int = 100) -> int:
    """Take the steps that are due until the next is an hour away; return how many there were."""
    with store.engine.connect() as connection:
        for taken in range(slices):
            if work.due_at > time.monotonic() + 60:
                return taken
            time.sleep(max(work.due_at - time.monotonic(), 0))
            work.step(connection)
    raise AssertionError("housekeeping never ends")


@pytest.fixture
def without_log(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let only retention be due."""
    monkeypatch.setattr(housekeeping, "WAL_EVERY_SECONDS", 3600.0)


def test_old_rows_are_deleted_in_slices_and_their_pages_freed(sqlite_store: Store, without_log: None) -> None:
    stored_days_ago(sqlite_store, days=40, rows=1200, name="old")
    stored_days_ago(sqlite_store, days=10, rows=5, name="new")
    metrics = Metrics()

    steps = work_until_done(Housekeeping(sqlite_store, metrics, retention_days=30), sqlite_store)

    assert rows(sqlite_store) == 5
    assert steps >= 4  # three slices of rows, at least one that found no more
    assert metrics.registry.get_sample_value("fraud_rows_expired_total") == 1200
    with sqlite_store.engine.connect() as connection:
        assert connection.exec_driver_sql("PRAGMA freelist_count").scalar() == 0


def test_retention_keeps_what_is_labelled(store: Store, without_log: None) -> None:
    stored_days_ago(store, days=40, rows=3, name="old")
    label = NewLabel(False, "analyst", "tester", "2026-01-01 00:00:00.000000", request_id="old", row_index=1)
    with store.begin() as connection:
        labels.add(store, connection, [label], "2026-01-01 00:00:00.000000")

    work_until_done(Housekeeping(store, Metrics(), retention_days=30), store)

    with store.engine.connect() as connection:
        assert [decision.row_index for decision in decisions.find(store, connection, "old")] == [1]


def test_nothing_is_deleted_by_default(sqlite_store: Store, without_log: None) -> None:
    stored_days_ago(sqlite_store, days=4000, rows=1, name="old")

    work_until_done(Housekeeping(sqlite_store, Metrics(), retention_days=0), sqlite_store)

    assert rows(sqlite_store) == 1


def wal_bytes(store: Store) -> int:
    return Path(f"{store.location}-wal").stat().st_size


def test_a_large_log_is_emptied(sqlite_store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    stored_days_ago(sqlite_store, days=0, rows=500, name="now")
    work, metrics = Housekeeping(sqlite_store, Metrics(), retention_days=0), Metrics()
    with sqlite_store.engine.connect() as connection:
        work.step(connection)
        small_enough = wal_bytes(sqlite_store)
        monkeypatch.setattr(housekeeping, "WAL_LIMIT_BYTES", 4096)
        work = Housekeeping(sqlite_store, metrics, retention_days=0)
        work.step(connection)

    assert small_enough > 4096
    assert wal_bytes(sqlite_store) == 0
    assert metrics.registry.get_sample_value("fraud_checkpoint_seconds_count") == 1
    assert metrics.registry.get_sample_value("fraud_wal_bytes") == 0


def test_a_reader_that_holds_the_log_is_counted_and_given_time(
    sqlite_store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(housekeeping, "WAL_LIMIT_BYTES", 4096)
    metrics = Metrics()
    work = Housekeeping(sqlite_store, metrics, retention_days=0)
    reader = Store.open(sqlite_store.location, sqlite_store.features, read_only=True)
    with reader.engine.connect() as reading:
        reading.execute(sa.text("SELECT COUNT(*) FROM requests"))
        stored_days_ago(sqlite_store, days=0, rows=500, name="now")
        with sqlite_store.engine.connect() as connection:
            before = time.monotonic()
            work.step(connection)

    assert metrics.registry.get_sample_value("fraud_checkpoint_busy_total") == 1
    assert work.due_at >= before + housekeeping.WAL_EVERY_SECONDS_BEHIND_A_READER
    reader.close()


def test_only_sqlite_has_a_log_to_empty(store: Store) -> None:
    metrics = Metrics()
    work = Housekeeping(store, metrics, retention_days=0)
    with store.engine.connect() as connection:
        work.finish(connection)

    on_postgresql = store.engine.dialect.name == "postgresql"
    assert (work.due_at == float("inf")) is on_postgresql
    assert metrics.registry.get_sample_value("fraud_checkpoint_seconds_count") == (0 if on_postgresql else 1)
