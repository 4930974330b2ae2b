"""The writer acknowledges only stored requests, through full disks, locks and lost connections."""

import contextlib
import resource
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import gevent
import numpy as np
import pysqlite3
import pytest
import sqlalchemy as sa

from api import writer as writing
from api.metrics import Metrics
from api.writer import NotStored, Writer
from fraud_detection.clock import Clock
from fraud_detection.database import DatabaseRefused
from fraud_detection.database.open_files import OpenFiles
from fraud_detection.database.sqlite import empty_wal
from fraud_detection.exit_codes import ExitCode
from fraud_detection.features import FeatureList
from fraud_detection.lock import StoreInUse, alone_with
from fraud_detection.store import Store, decisions, labels
from fraud_detection.store.decisions import ScoredRequest, StoredReply
from fraud_detection.store.labels import NewLabel, UnknownTransaction
from fraud_detection.vanished import Mark
from tests.support.vanishing import TEARING, VANISHING, moved
from tests.support.waiting import PATIENCE_SECONDS, wait_until

clock = Clock()
DEADLINE_SECONDS = writing.DEADLINE_SECONDS


@pytest.fixture
def real_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a request wait only as long as in production."""
    monkeypatch.setattr(writing, "DEADLINE_SECONDS", DEADLINE_SECONDS)


def scored(*, key: str | None = None, body: str = "a body", rows: int = 1, value: float = 0.5) -> ScoredRequest:
    ts, request_id = clock.tick()
    return ScoredRequest(
        request_id=request_id,
        ts=ts,
        matrix=np.full((rows, 29), value),
        fraud_probability=[0.25] * rows,
        threshold=0.4,
        model_version="a-version",
        model_digest="d" * 64,
        transaction_ids=[None] * rows,
        idempotency_key=key,
        body_sha256=None if key is None else body,
    )


class Service:
    """A writer that runs on a store, its figures, and the exit codes it asked for."""

    def __init__(self, store: Store, mark: Mark | None = None) -> None:
        self.metrics = Metrics()
        self.exits: list[int] = []
        self.store = store
        self.writer = Writer(store, self.metrics, mark=mark, give_up=self.exits.append)
        self.writer.start()
        wait_until(lambda: self.writer.problem is None, pause=gevent.sleep)

    def figure(self, name: str, **labels: str) -> float:
        return self.metrics.registry.get_sample_value(name, labels) or 0.0

    def rows(self) -> int:
        with self.store.engine.connect() as connection:
            return self.store.count_rows(connection)


@pytest.fixture
def start() -> Iterator[Callable[[Store], Service]]:
    services: list[Service] = []

    def begin(store: Store, mark: Mark | None = None) -> Service:
        services.append(Service(store, mark))
        return services[-1]

    yield begin
    for service in services:
        service.writer.close()


@pytest.fixture
def service(store: Store, start: Callable[[Store], Service]) -> Service:
    """A writer on each database in turn."""
    return start(store)


@pytest.fixture
def sqlite_service(sqlite_store: Store, start: Callable[[Store], Service]) -> Service:
    return start(sqlite_store)


HELD = 1
"""The transaction with which `held` occupies the writer."""


@contextlib.contextmanager
def held(writer: Writer) -> Iterator[None]:
    """Keep the writer in a transaction until the greenlets of the block have queued their requests together.

    A writer that wakes by its timer could otherwise take the first of them alone.
    """
    is_busy, go_on = threading.Event(), threading.Event()

    def work(_connection: sa.Connection) -> None:
        is_busy.set()
        go_on.wait(PATIENCE_SECONDS)

    holder = gevent.spawn(writer.run, work)
    wait_until(is_busy.is_set, pause=gevent.sleep)
    yield
    gevent.sleep(0)
    go_on.set()
    holder.get()


def test_a_request_is_stored_when_append_returns(service: Service) -> None:
    assert service.writer.append(scored(rows=3)) is None

    assert service.rows() == 3
    assert service.figure("fraud_rows_stored_total") == 3


def test_what_arrives_together_is_stored_by_one_commit(service: Service) -> None:
    with held(service.writer):
        waiting = [gevent.spawn(service.writer.append, scored()) for _ in range(20)]
    gevent.joinall(waiting, raise_error=True)

    assert service.rows() == 20
    assert service.figure("fraud_writer_batch_requests_count") == 1 + HELD


def test_a_request_is_never_split_and_a_batch_has_its_limit(service: Service) -> None:
    with held(service.writer):
        waiting = [gevent.spawn(service.writer.append, scored(rows=900)) for _ in range(3)]
    gevent.joinall(waiting, raise_error=True)

    assert service.rows() == 2700
    assert service.figure("fraud_writer_batch_requests_bucket", le="2.0") == 2 + HELD
    assert service.figure("fraud_writer_batch_requests_count") == 2 + HELD


def test_the_same_key_brings_the_stored_reply_and_no_second_row(service: Service) -> None:
    first, second = scored(key="k", body="one"), scored(key="k", body="two")
    service.writer.append(first)

    reply = service.writer.append(second)

    assert isinstance(reply, StoredReply)
    assert (reply.request_id, reply.body_sha256, reply.fraud_probability) == (first.request_id, "one", [0.25])
    assert service.rows() == 1
    assert service.figure("fraud_rows_stored_total") == 1


def test_twins_in_one_batch_are_stored_once_and_delay_no_other_request(service: Service) -> None:
    requests = [scored(key="k"), scored(), scored(key="k")]
    with held(service.writer):
        waiting = [gevent.spawn(service.writer.append, request) for request in requests]
    gevent.joinall(waiting, raise_error=True)

    replies = [greenlet.value for greenlet in waiting]
    assert replies[:2] == [None, None]
    assert replies[2].request_id == requests[0].request_id
    assert service.rows() == 2
    assert service.figure("fraud_writer_batch_fallback_total") == 1


def test_a_row_the_database_refuses_harms_no_other_request(service: Service) -> None:
    good, bad = scored(), scored(value=float("nan"))
    bad.fraud_probability[0] = 7654.25
    with held(service.writer):
        waiting = [gevent.spawn(service.writer.append, request) for request in (good, bad)]
    gevent.joinall(waiting)

    assert waiting[0].successful()
    assert isinstance(waiting[1].exception, sa.exc.IntegrityError)
    assert "7654" not in str(waiting[1].exception)  # its text goes into the log
    assert service.rows() == 1
    assert service.writer.problem is None


def label(request_id: str) -> NewLabel:
    return NewLabel(True, "analyst", "tester", "2026-01-01 00:00:00.000000", request_id=request_id, row_index=0)


def test_other_work_runs_in_the_writers_transaction(service: Service) -> None:
    request = scored()
    service.writer.append(request)

    added = service.writer.run(
        lambda connection: labels.add(service.store, connection, [label(request.request_id)], clock.tick()[0])
    )

    with service.store.engine.connect() as connection:
        assert (added, decisions.find(service.store, connection, request.request_id)[0].is_fraud) == (1, True)


def test_work_that_raises_is_undone_whole_and_alone(service: Service) -> None:
    request = scored()
    service.writer.append(request)
    reported = [label(request.request_id), label("nobody")]

    def add(connection: sa.Connection) -> int:
        return labels.add(service.store, connection, reported, clock.tick()[0])

    with held(service.writer):
        waiting = [gevent.spawn(service.writer.run, add), gevent.spawn(service.writer.append, scored())]
    gevent.joinall(waiting)

    assert isinstance(waiting[0].exception, UnknownTransaction)
    assert waiting[1].successful()
    with service.store.engine.connect() as connection:
        assert decisions.find(service.store, connection, request.request_id)[0].labels == []
    assert service.figure("fraud_writer_batch_fallback_total") == 0


def lock(store: Store) -> sa.Connection:
    """Open a transaction of another program that blocks every writer until it is closed."""
    connection = store.engine.connect()
    connection.begin()
    if store.engine.dialect.name == "postgresql":
        connection.exec_driver_sql("LOCK TABLE requests IN ACCESS EXCLUSIVE MODE")
    return connection


@pytest.mark.usefixtures("real_deadline")
def test_what_is_not_stored_in_time_is_not_acknowledged(service: Service) -> None:
    with lock(service.store), pytest.raises(NotStored, match="Idempotency-Key") as refused:
        service.writer.append(scored())

    assert refused.value.code == "storage_busy"
    wait_until(lambda: service.writer.problem is None, pause=gevent.sleep)
    service.writer.append(scored())
    assert service.figure("fraud_storage_errors_total", reason="busy") <= 1
    assert service.figure("fraud_late_commit_total") == service.rows() - 1


@pytest.mark.usefixtures("real_deadline")
def test_a_request_that_was_given_up_before_its_turn_is_not_stored(sqlite_service: Service) -> None:
    service = sqlite_service
    has_begun, go_on = threading.Event(), threading.Event()

    def dawdle(_connection: sa.Connection) -> None:
        has_begun.set()
        go_on.wait(PATIENCE_SECONDS)

    first = gevent.spawn(service.writer.run, dawdle)
    wait_until(has_begun.is_set, pause=gevent.sleep)
    second = gevent.spawn(service.writer.append, scored())
    gevent.sleep(0.1)
    waited = service.writer.oldest_wait_seconds
    gevent.joinall([first, second])
    go_on.set()
    wait_until(lambda: service.writer.oldest_wait_seconds == 0, pause=gevent.sleep)

    assert isinstance(first.exception, NotStored)
    assert isinstance(second.exception, NotStored)
    assert "nothing was stored" in str(second.exception)
    assert waited > 0
    assert service.figure("fraud_late_commit_total") == 0
    assert service.rows() == 0


def meta(store: Store, key: str) -> str | None:
    with store.begin() as connection:
        return store.get_meta(connection, key)


def test_work_whose_caller_gave_up_ends_at_its_next_step_and_is_undone(service: Service) -> None:
    has_given_up, steps = threading.Event(), []

    def work(connection: sa.Connection) -> None:
        service.store.set_meta(connection, "step", "first")
        steps.append("first")
        has_given_up.wait(PATIENCE_SECONDS)
        service.writer.go_on()
        steps.append("second")

    caller = gevent.spawn(service.writer.run, work)
    wait_until(lambda: steps, pause=gevent.sleep)
    caller.kill()  # it gives up as at its deadline
    has_given_up.set()
    wait_until(lambda: service.writer.oldest_wait_seconds == 0, pause=gevent.sleep)

    assert (steps, meta(service.store, "step")) == (["first"], None)
    assert service.figure("fraud_late_commit_total") == 0


def test_what_is_given_up_before_the_commit_is_undone_and_the_rest_is_stored(service: Service) -> None:
    has_given_up, attempts = threading.Event(), []

    def work(connection: sa.Connection) -> None:
        service.store.set_meta(connection, "beside", "stored")
        attempts.append(1)
        has_given_up.wait(PATIENCE_SECONDS)

    with held(service.writer):
        callers = [gevent.spawn(service.writer.append, scored()), gevent.spawn(service.writer.run, work)]
    wait_until(lambda: attempts, pause=gevent.sleep)  # the request is inserted before
    callers[0].kill()
    has_given_up.set()
    callers[1].get()

    assert (service.rows(), meta(service.store, "beside")) == (0, "stored")
    assert len(attempts) == 2
    assert service.figure("fraud_late_commit_total") == 0


def test_a_caller_that_gives_up_during_the_commit_is_told_that_the_outcome_is_unknown(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writing, "DEADLINE_SECONDS", 0.5)
    go_on = threading.Event()
    sa.event.listen(service.store.engine, "commit", lambda _: go_on.wait(PATIENCE_SECONDS))
    answer = "nothing was stored"

    while "nothing was stored" in answer:  # a busy machine may need several attempts to begin the commit in time
        go_on.clear()
        with pytest.raises(NotStored) as refused:
            service.writer.append(scored())
        go_on.set()
        answer = str(refused.value)
    wait_until(lambda: service.figure("fraud_late_commit_total") > 0, pause=gevent.sleep)

    assert refused.value.code == "storage_busy"
    assert answer.endswith("the outcome is unknown: repeat the request with the same Idempotency-Key")
    assert service.rows() == 1


def test_the_heartbeat_moves_within_work_that_takes_long(sqlite_service: Service) -> None:
    writer = sqlite_service.writer

    def work(_connection: sa.Connection) -> tuple[float, float]:
        while writer.heartbeat_age_seconds < 0.5:
            time.sleep(0.01)
        before = writer.heartbeat_age_seconds
        writer.go_on()
        return before, writer.heartbeat_age_seconds

    before, after = writer.run(work)

    assert after < before


@pytest.mark.parametrize(("seconds", "batches"), [(0.0, 3), (float(PATIENCE_SECONDS), 1)])
def test_work_that_takes_long_is_committed_before_the_next_begins(
    sqlite_service: Service, monkeypatch: pytest.MonkeyPatch, seconds: float, batches: int
) -> None:
    monkeypatch.setattr(writing, "BATCH_SECONDS", seconds)
    order: list[int] = []
    with held(sqlite_service.writer):
        waiting = [
            gevent.spawn(sqlite_service.writer.run, lambda _, number=number: order.append(number))
            for number in range(3)
        ]
    gevent.joinall(waiting, raise_error=True)

    assert order == [0, 1, 2]
    assert sqlite_service.figure("fraud_writer_batch_requests_count") == batches + HELD


def test_a_full_queue_refuses_at_once(sqlite_service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    with held(sqlite_service.writer):
        monkeypatch.setattr(writing, "QUEUE_REQUESTS", 2)
        waiting = [gevent.spawn(sqlite_service.writer.append, scored()) for _ in range(3)]
    gevent.joinall(waiting)

    assert [greenlet.successful() for greenlet in waiting] == [True, True, False]
    assert isinstance(waiting[2].exception, NotStored)
    assert waiting[2].exception.code == "overloaded"
    assert sqlite_service.figure("fraud_writer_queue_refused_total") == 1


def test_a_full_disk_is_answered_and_heals_by_itself(sqlite_store: Store, start: Callable[[Store], Service]) -> None:
    limits = [2**31]
    # The limit belongs to a connection, and the writer opens a new one after trouble.
    sa.event.listen(
        sqlite_store.engine, "connect", lambda driver, _: driver.execute(f"PRAGMA max_page_count={limits[0]}")
    )
    service = start(sqlite_store)
    service.writer.append(scored())
    with sqlite_store.engine.connect() as connection:
        limits[0] = connection.exec_driver_sql("PRAGMA page_count").scalar_one()
    service.writer.run(lambda connection: connection.exec_driver_sql(f"PRAGMA max_page_count={limits[0]}").scalar())

    with pytest.raises(NotStored) as refused:
        service.writer.append(scored(rows=900))

    assert (refused.value.code, service.writer.problem) == ("storage_full", "full")
    assert service.figure("fraud_storage_ok") == 0
    limits[0] = 2**31
    wait_until(lambda: service.writer.problem is None, pause=gevent.sleep)
    service.writer.append(scored())
    assert service.rows() == 2
    assert service.exits == []


@contextlib.contextmanager
def locked(store: Store) -> Iterator[None]:
    """Hold the lock for writing as another process does."""
    with contextlib.closing(pysqlite3.connect(store.location, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        yield


def test_a_writer_that_waits_for_a_lock_while_requests_wait_for_it_says_so_and_recovers(
    sqlite_service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    service = sqlite_service
    monkeypatch.setattr(writing, "STALLED_SECONDS", 1.5)  # the idle thread reports every second

    with locked(service.store):
        before = service.writer.problem
        waiting = gevent.spawn(service.writer.append, scored())
        wait_until(lambda: service.writer.problem == "busy", pause=gevent.sleep)
        was_ok, errors = service.figure("fraud_storage_ok"), service.figure("fraud_storage_errors_total", reason="busy")
    waiting.get()

    assert (before, was_ok, errors) == (None, 0, 0)
    wait_until(lambda: service.writer.problem is None, pause=gevent.sleep)
    assert (service.figure("fraud_storage_ok"), service.rows()) == (1, 1)


def test_a_hiccup_or_a_lock_that_delays_no_request_is_no_problem(sqlite_service: Service) -> None:
    problems = set()

    with locked(sqlite_service.store):
        gevent.sleep(0.2)
        problems.add(sqlite_service.writer.problem)
        waiting = gevent.spawn(sqlite_service.writer.append, scored())
        for _ in range(20):
            gevent.sleep(0.01)
            problems.add(sqlite_service.writer.problem)
    waiting.get()
    problems.add(sqlite_service.writer.problem)

    assert problems == {None}


def test_a_writer_for_which_no_request_waits_is_not_stalled(
    sqlite_service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writing, "STALLED_SECONDS", 0.0)

    assert sqlite_service.writer.problem is None


@pytest.fixture
def limit_files() -> Iterator[Callable[[int], None]]:
    """Let no file of this process grow beyond a size: the real write inside COMMIT then fails."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    yield lambda size: resource.setrlimit(resource.RLIMIT_FSIZE, (size if size else soft, hard))
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_commit_that_fails_is_not_acknowledged_and_twice_in_a_row_ends_the_process(
    sqlite_service: Service, limit_files: Callable[[int], None]
) -> None:
    service = sqlite_service
    service.writer.append(scored())
    wal = Path(f"{service.store.location}-wal")

    with service.store.engine.connect():  # while another connection is open, SQLite does not restart the log
        limit_files(wal.stat().st_size)
        with pytest.raises(NotStored) as first:
            service.writer.append(scored())
        exits_after_one = list(service.exits)
        with pytest.raises(NotStored) as second:
            service.writer.append(scored())
        limit_files(0)

    assert (first.value.code, second.value.code) == ("storage_failed", "storage_failed")
    assert (exits_after_one, service.exits[:1]) == ([], [ExitCode.STORAGE_FAILED])
    wait_until(lambda: service.writer.problem is None, pause=gevent.sleep)
    service.writer.append(scored())
    assert service.rows() == 2


def test_one_failed_commit_is_forgiven(sqlite_service: Service, limit_files: Callable[[int], None]) -> None:
    service = sqlite_service
    for _ in range(2):
        service.writer.append(scored())
        limit_files(Path(f"{service.store.location}-wal").stat().st_size)
        with pytest.raises(NotStored):
            service.writer.append(scored())
        limit_files(0)
        service.writer.append(scored())

    assert service.exits == []


def test_the_end_comes_even_when_the_log_cannot_be_emptied(
    sqlite_store: Store, limit_files: Callable[[int], None]
) -> None:
    exits: list[int] = []
    writer = Writer(sqlite_store, Metrics(), give_up=exits.append)
    writer.start()
    writer.append(scored())

    limit_files(1)
    writer.close()
    limit_files(0)

    assert (writer.problem, exits) == ("failed", [])
    with sqlite_store.engine.connect() as connection:
        assert sqlite_store.count_rows(connection) == 1


def test_a_damaged_database_is_written_no_more(sqlite_store: Store, start: Callable[[Store], Service]) -> None:
    with sqlite_store.engine.connect() as connection:
        root = connection.exec_driver_sql("SELECT rootpage FROM sqlite_master WHERE name = 'requests'").scalar_one()
    sqlite_store.engine.dispose()
    assert isinstance(sqlite_store.location, Path)
    with sqlite_store.location.open("r+b") as file:
        file.seek((root - 1) * 4096)
        file.write(b"\xff" * 4096)
    service = start(sqlite_store)

    codes = []
    for _ in range(2):
        with pytest.raises(NotStored) as refused:
            service.writer.append(scored())
        codes.append(refused.value.code)

    assert (codes, service.writer.problem) == (["storage_failed", "storage_failed"], "corrupt")
    assert service.figure("fraud_storage_errors_total", reason="corrupt") == 1
    assert service.exits == []


# -- when the store vanishes -----------------------------------------------------------------------------------------


@pytest.fixture
def marked(sqlite_store: Store, tmp_path: Path, start: Any, monkeypatch: pytest.MonkeyPatch) -> Service:
    """A writer with one stored row that may leave a mark in tmp_path/models, and ends at once."""
    monkeypatch.setattr(writing, "SHOWN_SECONDS", 0.0)
    assert isinstance(sqlite_store.location, Path)
    (tmp_path / "models").mkdir()
    with sqlite_store.engine.connect() as connection:
        empty_wal(connection, busy_timeout_ms=0)  # so that the file has its tables
    service: Service = start(sqlite_store, Mark(sqlite_store.location, tmp_path / "models"))
    service.writer.append(scored())
    return service


def stored_in(database: Path) -> int:
    """The rows in the file alone, as a process finds them that does not have the log."""
    with contextlib.closing(pysqlite3.connect(f"file:{database}?immutable=1", uri=True)) as opened:
        count: int = opened.execute("SELECT COUNT(*) FROM requests").fetchone()[0]
    return count


def database_of(service: Service) -> Path:
    assert isinstance(service.store.location, Path)
    return service.store.location


@pytest.mark.parametrize("way", VANISHING | TEARING)
@pytest.mark.parametrize(
    "ask",
    [
        lambda service: service.writer.append(scored()),
        lambda service: service.writer.run(lambda connection: service.store.set_meta(connection, "a", "label")),
    ],
    ids=["predict", "labels"],
)
def test_what_is_not_in_the_file_at_the_path_is_not_acknowledged(
    marked: Service, way: str, ask: Callable[[Service], object]
) -> None:
    mark = Mark(database_of(marked), database_of(marked).parents[1] / "models")

    (VANISHING | TEARING)[way](database_of(marked))
    with pytest.raises(NotStored) as refused:
        ask(marked)

    assert (refused.value.code, marked.writer.problem) == ("storage_failed", "vanished")
    assert marked.figure("fraud_storage_ok") == 0
    assert marked.figure("fraud_storage_errors_total", reason="vanished") == 1
    wait_until(lambda: marked.exits, pause=gevent.sleep)
    assert marked.exits == [ExitCode.STORAGE_FAILED]
    with pytest.raises(DatabaseRefused, match="fraudctl bootstrap"):
        mark.refuse()
    with pytest.raises(NotStored):  # at once, because the thread has ended
        marked.writer.append(scored())


def test_without_the_comparison_an_acknowledged_row_would_be_lost(
    marked: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(OpenFiles, "require_unchanged", lambda _files: None)
    VANISHING["the log is removed"](database_of(marked))

    marked.writer.append(scored())

    assert stored_in(database_of(marked)) == 0


@pytest.mark.parametrize("way", VANISHING | TEARING)
def test_an_idle_writer_notices_it_too(marked: Service, way: str) -> None:
    (VANISHING | TEARING)[way](database_of(marked))

    wait_until(lambda: marked.exits, pause=gevent.sleep)

    assert (marked.exits, marked.writer.problem) == ([ExitCode.STORAGE_FAILED], "vanished")


@pytest.mark.parametrize(
    ("way", "place"),
    [
        ("the log is removed", lambda database: database),
        ("another log is moved over it", lambda database: database),
        ("the database is moved", lambda database: database.with_name("moved.db")),
        ("a link is left where the database was", lambda database: database.with_name("moved.db")),
        ("the folder is moved", moved),
    ],
)
def test_the_log_that_is_open_is_written_back(marked: Service, way: str, place: Callable[[Path], Path]) -> None:
    for _ in range(20):
        marked.writer.append(scored())
    before = stored_in(database_of(marked))

    VANISHING[way](database_of(marked))
    wait_until(lambda: marked.exits, pause=gevent.sleep)

    assert (before, stored_in(place(database_of(marked)))) == (0, 21)


@pytest.mark.parametrize("way", ["the locks are removed", "other locks are moved over them"])
def test_a_log_that_another_process_may_be_writing_is_left_whole(marked: Service, way: str) -> None:
    for _ in range(20):
        marked.writer.append(scored())

    VANISHING[way](database_of(marked))
    wait_until(lambda: marked.exits, pause=gevent.sleep)

    count = "import sys, pysqlite3; print(*pysqlite3.connect(sys.argv[1]).execute('SELECT COUNT(*) FROM requests'))"
    alone = stored_in(database_of(marked))
    found = subprocess.check_output([sys.executable, "-c", count, database_of(marked)], text=True)
    assert (alone, found) == (0, "(21,)\n")


@pytest.mark.parametrize("way", ["the log is truncated", "the log is overwritten"])
@pytest.mark.parametrize("is_compared", [True, False], ids=["", "control"])
def test_a_torn_log_ruins_no_database(
    marked: Service, way: str, is_compared: bool, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    for _ in range(20):
        marked.writer.append(scored())
    if not is_compared:
        monkeypatch.setattr(OpenFiles, "require_unchanged", lambda _files: None)

    TEARING[way](database_of(marked))
    with contextlib.suppress(NotStored):
        marked.writer.append(scored())
    marked.writer.close()

    with contextlib.closing(pysqlite3.connect(f"file:{database_of(marked)}?immutable=1", uri=True)) as opened:
        try:
            found = opened.execute("PRAGMA integrity_check").fetchall()
        except pysqlite3.DatabaseError as error:
            found = [(str(error),)]
    assert (found == [("ok",)]) is is_compared
    assert (marked.exits == [ExitCode.STORAGE_FAILED]) is is_compared
    assert ("stay as they are, because a torn log" in caplog.text) is is_compared


def test_a_log_that_a_reader_holds_is_not_given_up_at_once(
    marked: Service, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writing, "LAST_CHECKPOINT_SECONDS", 60.0)
    reader = Store.open(marked.store.location, marked.store.features, read_only=True)
    with reader.begin() as reading:
        reader.count_rows(reading)
        marked.writer.append(scored())
        VANISHING["the log is removed"](database_of(marked))
        wait_until(lambda: marked.figure("fraud_storage_ok") == 0, pause=gevent.sleep)
        exits_while_it_read = list(marked.exits)
    wait_until(lambda: marked.exits, pause=gevent.sleep)
    reader.close()

    assert (exits_while_it_read, stored_in(database_of(marked))) == ([], 2)
    assert "the database that was open is complete" in caplog.text


def test_what_cannot_be_written_back_is_reported_as_lost(
    marked: Service, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writing, "LAST_CHECKPOINT_SECONDS", 0.0)

    VANISHING["the log is removed"](database_of(marked))
    wait_until(lambda: marked.exits, pause=gevent.sleep)

    assert "the newest rows may be lost" in caplog.text


def test_a_mark_that_cannot_be_left_is_logged(marked: Service, caplog: pytest.LogCaptureFixture) -> None:
    (database_of(marked).parents[1] / "models").rmdir()

    VANISHING["the folder is deleted"](database_of(marked))
    wait_until(lambda: marked.exits, pause=gevent.sleep)

    assert "no mark could be left" in caplog.text


def test_a_file_moved_over_the_database_is_not_touched(
    marked: Service, limit_files: Callable[[int], None], tmp_path: Path
) -> None:
    """Without a connection, the writer would open it, and SQLite would play the old log into it."""
    database = database_of(marked)
    with marked.store.engine.connect():
        limit_files(Path(f"{database}-wal").stat().st_size)
        with pytest.raises(NotStored):
            marked.writer.append(scored())
        limit_files(0)
        another = tmp_path / "another"
        another.write_bytes(b"not for SQLite" * 1000)
        another.replace(database)
        with contextlib.suppress(NotStored):
            marked.writer.append(scored())
        wait_until(lambda: marked.exits, pause=gevent.sleep)

    assert (marked.writer.problem, database.read_bytes()) == ("vanished", b"not for SQLite" * 1000)


def test_prometheus_may_read_what_happened_before_the_end(marked: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writing, "SHOWN_TO_PROMETHEUS_SECONDS", 600.0)
    marked.metrics.scraped_at = time.monotonic()
    VANISHING["the database is removed"](database_of(marked))
    wait_until(lambda: marked.writer.problem == "vanished", pause=gevent.sleep)
    gevent.sleep(0.2)
    exits_before_the_scrape = list(marked.exits)

    marked.metrics.scraped_at = time.monotonic()
    wait_until(lambda: marked.exits, pause=gevent.sleep)

    assert exits_before_the_scrape == []


def test_a_store_that_vanishes_at_the_end_leaves_its_mark(marked: Service) -> None:
    VANISHING["another database is moved over it"](database_of(marked))

    marked.writer.close()

    assert marked.exits == [ExitCode.STORAGE_FAILED]
    assert Mark(database_of(marked), database_of(marked).parents[1] / "models").found


def test_files_of_which_the_system_cannot_tell_are_failing_storage(marked: Service) -> None:
    VANISHING["the folder is moved"](database_of(marked))
    database_of(marked).parent.symlink_to("a name that is too long" * 20)

    with pytest.raises(NotStored):
        marked.writer.append(scored())
    wait_until(lambda: marked.exits, pause=gevent.sleep)

    assert (marked.writer.problem, marked.exits[:1]) == ("failed", [ExitCode.STORAGE_FAILED])


def test_a_lost_connection_is_replaced(postgresql_database: str, features: FeatureList, start: Any) -> None:
    store = Store.create_or_migrate(postgresql_database, features)
    service = start(store)
    service.writer.append(scored())
    pid = service.writer.run(lambda connection: connection.scalar(sa.text("SELECT pg_backend_pid()")))
    with pytest.raises(StoreInUse), alone_with(postgresql_database):
        pass
    with store.begin() as connection:
        connection.execute(sa.text("SELECT pg_terminate_backend(:pid)"), {"pid": pid})

    with pytest.raises(NotStored) as refused:
        service.writer.append(scored())
    wait_until(lambda: service.writer.problem is None, pause=gevent.sleep)
    service.writer.append(scored())

    assert refused.value.code == "storage_failed"
    assert (service.rows(), service.exits) == (2, [])
    with pytest.raises(StoreInUse), alone_with(postgresql_database):  # the new session is marked as the first was
        pass
    service.writer.close()
    with alone_with(postgresql_database):
        pass
    store.close()


@pytest.mark.usefixtures("real_deadline")
def test_nothing_is_stored_while_a_restore_has_postgresql_alone(
    postgresql_database: str, features: FeatureList
) -> None:
    store = Store.create_or_migrate(postgresql_database, features)
    writer = Writer(store, Metrics())
    with alone_with(postgresql_database):
        writer.start()
        with pytest.raises(NotStored) as refused:
            writer.append(scored())

    wait_until(lambda: writer.problem is None, pause=gevent.sleep)
    writer.append(scored())
    writer.close()

    assert refused.value.code == "storage_busy"
    with store.begin() as connection:
        assert store.count_rows(connection) == 1
    store.close()


def test_an_unforeseen_error_ends_the_process(sqlite_store: Store) -> None:
    exits: list[int] = []
    with sqlite_store.begin() as connection:
        connection.exec_driver_sql("DROP TABLE schema_meta")
    writer = Writer(sqlite_store, Metrics(), give_up=exits.append)

    writer.start()
    writer.close()

    assert exits == [ExitCode.STORAGE_FAILED]


def test_what_waits_is_stored_before_the_end(sqlite_store: Store, features: FeatureList) -> None:
    writer = Writer(sqlite_store, Metrics())
    waiting = [gevent.spawn(writer.append, scored()) for _ in range(200)]
    gevent.sleep(0)
    writer.start()

    writer.close()

    gevent.joinall(waiting, raise_error=True)
    with pytest.raises(NotStored, match="stopping"):
        writer.append(scored())
    sqlite_store.close()
    without_its_log = pysqlite3.connect(f"file:{sqlite_store.location}?immutable=1", uri=True)
    with contextlib.closing(without_its_log) as database:
        assert database.execute("SELECT COUNT(*) FROM requests").fetchone() == (200,)
