"""The writer thread: stores all queued requests in one transaction and wakes their callers after COMMIT."""

import collections
import contextlib
import logging
import os
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal, NoReturn, TypeVar

import sqlalchemy as sa
from gevent.hub import Waiter, get_hub

from api.housekeeping import Housekeeping
from api.metrics import Metrics
from fraud_detection.database import Trouble
from fraud_detection.database.open_files import OpenFiles
from fraud_detection.database.postgresql import limit_statements
from fraud_detection.database.sqlite import empty_wal
from fraud_detection.database.trouble import trouble
from fraud_detection.exit_codes import ExitCode
from fraud_detection.lock import mark_session
from fraud_detection.store import Store, decisions
from fraud_detection.store.decisions import ScoredRequest, StoredReply
from fraud_detection.vanished import WAYS_OUT, Mark

QUEUE_REQUESTS = 1024
BATCH_REQUESTS = 128
BATCH_ROWS = 2000
BATCH_SECONDS = 0.1  # after which a transaction begins no further work
DEADLINE_SECONDS = 2.0
PROBE_EVERY_SECONDS = 1.0
STALLED_SECONDS = 3.0  # more than a hiccup, and less than the writer waits for the lock of another process
COMPARE_EVERY_SECONDS = 0.5  # the files with those that are open, while no request does it
LAST_CHECKPOINT_SECONDS = 30.0  # a reader may hold the log of a store that vanished for so long
SHOWN_SECONDS = 3.0  # from the loss of the store to the end, so that clients and probes get their replies
SHOWN_TO_PROMETHEUS_SECONDS = 35.0  # more than its usual interval of 30 s

Result = TypeVar("Result")
Code = Literal["storage_full", "storage_busy", "storage_failed", "overloaded", "stopping"]

logger = logging.getLogger(__name__)


class NotStored(Exception):
    """The request was not acknowledged; `code` comes from a fixed set, and repeating it later may succeed.

    After `storage_failed`, and after `storage_busy` during a COMMIT, the rows may be stored all the same: only an
    idempotency key makes asking again safe. The message says which it is.
    """

    def __init__(self, code: Code, *, is_committing: bool = False) -> None:
        super().__init__(_COMMITTING if is_committing else _MEANING[code])
        self.code: Code = code


_COMMITTING = (
    f"the store was still committing after {DEADLINE_SECONDS:g} s, so the outcome is unknown: repeat the request with "
    "the same Idempotency-Key"
)
_MEANING: dict[Code, str] = {
    "storage_full": "the disk of the database is full; nothing was stored",
    "storage_busy": f"the store was busy for {DEADLINE_SECONDS:g} s and nothing was stored: repeat it with the same "
    "Idempotency-Key",
    "storage_failed": "the database failed and the outcome is unknown: repeat it with the same Idempotency-Key",
    "overloaded": "too many requests are waiting to be stored; nothing was stored",
    "stopping": "the service is stopping; nothing was stored",
}
_CODE: dict[Trouble, Code] = {
    "full": "storage_full",
    "busy": "storage_busy",
    "failed": "storage_failed",
    "corrupt": "storage_failed",
    "vanished": "storage_failed",
}
_BEYOND_HELP = {"corrupt", "vanished"}  # no attempt is made to write again


class _CommitFailed(Exception):
    """COMMIT itself raised, so it is unknown whether the transaction is stored."""


class _Abandoned(Exception):
    """The caller of a job has been answered 503, so the transaction must not store the job."""


class _Job:
    """One caller waiting for the writer.

    The caller gives up (`is_abandoned`) or the writer begins to commit (`is_committing`), whichever comes first: what
    is abandoned before is never stored, what is abandoned afterwards has an unknown outcome.
    """

    __slots__ = (
        "error",
        "hub",
        "is_abandoned",
        "is_committing",
        "is_done",
        "outcome",
        "rows",
        "since",
        "waiter",
        "work",
    )

    def __init__(self, work: ScoredRequest | Callable[[sa.Connection], Any], rows: int) -> None:
        self.work = work
        self.rows = rows
        self.since = time.monotonic()
        self.hub = get_hub()
        self.waiter = Waiter(self.hub)
        self.outcome: Any = None
        self.error: Exception | None = None
        self.is_committing = False
        self.is_done = False
        self.is_abandoned = False

    def wait(self, seconds: float) -> None:
        """Run other greenlets of this thread until the writer is done or the time is over."""
        timer = self.hub.loop.timer(seconds)
        timer.start(self.waiter.switch, None)
        try:
            self.waiter.get()
        finally:
            timer.close()


class Writer:
    """Stores scored requests and runs other writing work in a thread of its own, which owns the only connection.

    Callers wait as greenlets, so that other requests continue; without a server it works too.
    If storage fails so that only a new process can recover, the writer calls `give_up` with an exit code. If the files
    of an SQLite store vanish, it leaves `mark` before.

    Raises StoreVanished.
    """

    def __init__(
        self,
        store: Store,
        metrics: Metrics,
        *,
        retention_days: int = 0,
        mark: Mark | None = None,
        give_up: Callable[[int], object] = os._exit,
    ) -> None:
        self._store = store
        self._metrics = metrics
        self._mark = mark
        self._give_up = give_up
        self._files: OpenFiles | None = None
        if isinstance(store.location, Path):
            with store.engine.connect():  # which has the files open
                self._files = OpenFiles(store.location)
        self._housekeeping = Housekeeping(store, metrics, retention_days)
        self._queue: collections.deque[_Job] = collections.deque()
        self._has_arrivals = threading.Event()
        self._is_about_to_wake = False
        self._working_since = 0.0
        self._turning = threading.Lock()  # held while a job is abandoned, begins to commit, or is done
        self._running: _Job | None = None
        self._connection: sa.Connection | None = None
        self._trouble: Trouble | Literal["starting"] | None = "starting"
        self._failed_commits = 0
        self._noticed_at = 0.0
        self._compare_at = 0.0 if self._files is not None else float("inf")
        self._probe_at = 0.0
        self._heartbeat = time.monotonic()
        self._is_stopping = False
        self._thread = threading.Thread(target=self._run, name="writer", daemon=True)
        metrics.queue_requests.set_function(self._queue.__len__)
        metrics.storage_ok.set_function(lambda: self.problem is None)

    # -- for the requests ----------------------------------------------------------------------------------------

    def append(self, request: ScoredRequest) -> StoredReply | None:
        """Store a request whole and return None after COMMIT, or the earlier reply to its idempotency key.

        That earlier request may have had another body: compare `body_sha256`.

        Raises NotStored.
        """
        reply: StoredReply | None = self._submit(_Job(request, len(request.fraud_probability)))
        return reply

    def run(self, work: Callable[[sa.Connection], Result]) -> Result:
        """Run `work` on the writing connection, inside a transaction, and return what it returned after COMMIT.

        What it raises is raised here, and then nothing of it is stored. Work that takes long calls `go_on`.

        Raises NotStored.
        """
        result: Result = self._submit(_Job(work, 1))
        return result

    def stop_storing(self, damage: sa.exc.DatabaseError) -> None:
        """Store nothing more, because a reader found damage; only the writer's thread notes the state of storage."""

        def fail(_connection: sa.Connection) -> NoReturn:
            raise damage

        with contextlib.suppress(NotStored):
            self.run(fail)

    def go_on(self) -> None:
        """Report that work of `run` progresses; it calls this from time to time, in the writer's thread.

        Raises an error that ends the work and undoes it, if its caller has given up.
        """
        self._heartbeat = time.monotonic()
        if self._running is not None and self._running.is_abandoned:
            raise _Abandoned

    def _submit(self, job: _Job) -> Any:
        if self._is_stopping:
            raise NotStored("stopping")
        if self._trouble in _BEYOND_HELP:  # further writes could increase the damage
            raise NotStored("storage_failed")
        if len(self._queue) >= QUEUE_REQUESTS:
            self._metrics.queue_refused.inc()
            raise NotStored("overloaded")
        self._queue.append(job)
        if not self._is_about_to_wake:
            # Later in this loop, so that requests that arrived together share a commit.
            self._is_about_to_wake = True
            job.hub.loop.run_callback(self._wake_writer)
        try:
            job.wait(DEADLINE_SECONDS)
        finally:
            with self._turning:
                job.is_abandoned = not job.is_done
        if job.is_abandoned:
            raise NotStored("storage_busy", is_committing=job.is_committing)
        if job.error is not None:
            raise job.error
        return job.outcome

    def _wake_writer(self) -> None:
        self._is_about_to_wake = False
        self._has_arrivals.set()

    # -- for health and metrics ----------------------------------------------------------------------------------

    @property
    def oldest_wait_seconds(self) -> float:
        """Return how long the oldest request in the running transaction has waited; 0 if there is none."""
        since = self._working_since
        return time.monotonic() - since if since else 0.0

    @property
    def heartbeat_age_seconds(self) -> float:
        """Return how long ago the thread last reported that it runs; it does so at least every 6 s."""
        return time.monotonic() - self._heartbeat

    @property
    def problem(self) -> str | None:
        """Return why nothing can be stored now, None if the last attempt to commit succeeded.

        It may still be waiting for a lock or a disk while requests wait for it.
        """
        is_awaited = self._queue or self._working_since
        is_stalled = is_awaited and self.heartbeat_age_seconds > STALLED_SECONDS
        return self._trouble or ("busy" if is_stalled else None)

    # -- start and stop ------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def close(self) -> None:
        """Store queued requests, move the write-ahead log into the database, close the connection."""
        self._is_stopping = True
        self._has_arrivals.set()
        self._thread.join()

    # -- the thread ----------------------------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            while (self._queue or not self._is_stopping) and self._trouble != "vanished":
                if not self._queue:
                    self._wait()
                jobs = self._take()
                if jobs:
                    self._write(jobs)
                if not self._queue:
                    self._use_the_pause()
                self._heartbeat = time.monotonic()
            self._part()
        except Exception:  # a thread that ended unnoticed would leave every client waiting
            logger.exception("the writer cannot go on")
            self._give_up(ExitCode.STORAGE_FAILED)

    def _wait(self) -> None:
        due_in = min(self._housekeeping.due_at, self._probe_due_at, self._compare_at) - time.monotonic()
        self._has_arrivals.wait(timeout=min(max(due_in, 0.0), 1.0))
        self._has_arrivals.clear()

    def _take(self) -> list[_Job]:
        """Take what is queued and never wait for more: more arrives during the fsync."""
        jobs: list[_Job] = []
        rows = 0
        while self._queue and len(jobs) < BATCH_REQUESTS:
            rows += self._queue[0].rows
            if jobs and rows > BATCH_ROWS:
                break
            jobs.append(self._queue.popleft())
        if jobs:
            self._working_since = jobs[0].since
        return jobs

    def _write(self, jobs: list[_Job]) -> None:
        """Run jobs and wake their callers; those for which there was no time stay behind in the queue."""
        began = time.perf_counter()
        try:
            self._transact(jobs)
        except Exception as error:
            code = self._code_of(error)
            for job in jobs:
                is_unknown = isinstance(error, _CommitFailed) and code == "storage_busy"
                job.error = error if code is None else NotStored(code, is_committing=is_unknown)
        else:
            self._metrics.commit_seconds.observe(time.perf_counter() - began)
            self._metrics.batch_requests.observe(len(jobs))
            # Before a caller continues, so that a client finds its own rows in the metrics.
            self._metrics.rows_stored.inc(
                sum(job.rows for job in jobs if job.error is None and isinstance(job.work, ScoredRequest))
            )
        finally:
            self._working_since = 0.0
            self._running = None
            self._wake(jobs)
        self._metrics.late_commits.inc(sum(job.is_abandoned for job in jobs if job.error is None))

    def _wake(self, jobs: list[_Job]) -> None:
        """Wake the callers, with one call into each thread's loop."""
        by_hub: dict[Any, list[_Job]] = {}
        with self._turning:
            for job in jobs:
                job.is_done = True
                if not job.is_abandoned:
                    by_hub.setdefault(job.hub, []).append(job)
        for hub, group in by_hub.items():
            hub.loop.run_callback_threadsafe(_switch_to, group)

    def _transact(self, jobs: list[_Job]) -> None:
        """Run all jobs in one transaction, or, if one of them fails, each under a savepoint."""
        try:
            self._until_none_is_abandoned(self._do_together, jobs)
        except Exception as error:
            if isinstance(error, _CommitFailed) or trouble(error) is not None:
                raise
            self._metrics.batch_fallbacks.inc()
            self._until_none_is_abandoned(self._do_one_by_one, jobs)

    def _until_none_is_abandoned(self, fill: Callable[[sa.Connection, list[_Job]], None], jobs: list[_Job]) -> None:
        """Run jobs in a transaction, again without those whose callers gave up before its COMMIT."""
        while True:
            try:
                self._in_transaction(fill, jobs)
            except _Abandoned:
                continue
            return

    def _do_together(self, connection: sa.Connection, jobs: list[_Job]) -> None:
        wanted = self._still_wanted(jobs)
        requests = [job.work for job in wanted if isinstance(job.work, ScoredRequest)]
        if requests:
            decisions.append(self._store, connection, requests)
        self._do_each(connection, jobs, [job for job in wanted if not isinstance(job.work, ScoredRequest)])
        self._begin_to_commit(jobs)

    def _do_one_by_one(self, connection: sa.Connection, jobs: list[_Job]) -> None:
        self._do_each(connection, jobs, self._still_wanted(jobs))
        self._begin_to_commit(jobs)

    def _still_wanted(self, jobs: list[_Job]) -> list[_Job]:
        """Drop jobs that were answered 503 while they waited, BEGIN included: their clients may repeat them."""
        for job in jobs:
            job.error = NotStored("storage_busy") if job.is_abandoned else None
        return [job for job in jobs if job.error is None]

    def _begin_to_commit(self, jobs: list[_Job]) -> None:
        """From here on a caller that gives up does not know the outcome.

        Raises _Abandoned if one has given up: COMMIT would store its job.
        """
        with self._turning:
            stored = [job for job in jobs if job.error is None]
            if any(job.is_abandoned for job in stored):
                raise _Abandoned
            for job in stored:
                job.is_committing = True

    def _do_each(self, connection: sa.Connection, jobs: list[_Job], each: list[_Job]) -> None:
        """Do one job after the other; when time is up, put the rest back, so that the first are committed in time."""
        until = time.monotonic() + BATCH_SECONDS
        for place, job in enumerate(each):
            if place and time.monotonic() > until:
                self._queue.extendleft(reversed(each[place:]))
                jobs[:] = [job for job in jobs if job not in each[place:]]
                return
            self._do_one(connection, job)

    def _do_one(self, connection: sa.Connection, job: _Job) -> None:
        savepoint = connection.begin_nested()
        self._running = job
        try:
            self.go_on()
            if isinstance(job.work, ScoredRequest):
                decisions.append(self._store, connection, [job.work])
            else:
                job.outcome = job.work(connection)
        except _Abandoned:
            savepoint.rollback()
            job.error = NotStored("storage_busy")
        except Exception as error:
            if trouble(error) is not None:  # it may have ended the transaction, and the savepoint with it
                raise
            savepoint.rollback()
            job.error = error
            if isinstance(error, sa.exc.IntegrityError) and isinstance(job.work, ScoredRequest):
                self._answer_again(connection, job, job.work)
        else:
            savepoint.commit()

    def _answer_again(self, connection: sa.Connection, job: _Job, request: ScoredRequest) -> None:
        if request.idempotency_key is not None:
            reply = decisions.replay(self._store, connection, request.idempotency_key)
            if reply is not None:
                job.outcome, job.error, job.rows = reply, None, 0

    def _in_transaction(self, fill: Callable[..., None], *arguments: object) -> None:
        if self._connection is None:
            self._connection = self._connect()
        transaction = self._connection.begin()
        try:
            fill(self._connection, *arguments)
        except Exception:  # whatever it was, no half of the batch may stay in the transaction
            transaction.rollback()
            raise
        try:
            transaction.commit()
        except sa.exc.DBAPIError as error:
            raise _CommitFailed from error
        self._require_files()
        self._failed_commits = 0
        if self._trouble not in {None, "starting"}:
            logger.warning("storage works again")
        self._trouble = None

    def _connect(self) -> sa.Connection:
        self._require_files()  # before: SQLite would play the log of one file into another
        connection = self._store.engine.connect()
        if self._files is not None:
            self._files.note_reopened_log()
        try:
            limit_statements(connection, int(DEADLINE_SECONDS * 1000))
            mark_session(connection)
        except BaseException:
            connection.close()
            raise
        return connection

    def _require_files(self) -> None:
        """Raise unless the committed rows are in the file that the next start will open; PostgreSQL has none."""
        if self._files is None:
            return
        self._compare_at = time.monotonic() + COMPARE_EVERY_SECONDS
        try:
            self._files.require_unchanged()
        except OSError as error:
            raise _CommitFailed from error

    # -- when storage fails --------------------------------------------------------------------------------------

    def _code_of(self, error: Exception) -> Code | None:
        """Record what is wrong with storage and return the code for the callers; None if storage works."""
        is_unknown = isinstance(error, _CommitFailed)
        cause = error.__cause__ if is_unknown else error
        found = trouble(cause) or ("failed" if is_unknown else None)
        if found is None:
            return None
        self._noticed_at = time.monotonic()
        self._metrics.storage_errors.labels(found).inc()
        if found == "vanished":
            logger.critical("storage: %s; the API stores nothing more and ends. To start again, %s", cause, WAYS_OUT)
        elif self._trouble != found:
            logger.error("storage: %s", found, exc_info=cause)
        self._trouble = found
        self._probe_at = self._noticed_at + PROBE_EVERY_SECONDS
        if found == "vanished":
            self._leave_mark(str(cause))
        elif found != "busy":
            self._discard_connection()
        if is_unknown and found == "failed":
            self._count_failed_commit()
        return _CODE[found]

    def _count_failed_commit(self) -> None:
        self._failed_commits += 1
        # PostgreSQL recovers with a new connection. A local disk that failed an fsync may have dropped the pages for
        # good, so only what a new process reads from it can be trusted.
        if self._failed_commits == 2 and self._store.engine.dialect.name == "sqlite":
            logger.critical("COMMIT failed twice in a row")
            self._give_up(ExitCode.STORAGE_FAILED)

    def _discard_connection(self) -> None:
        if self._connection is not None:
            with contextlib.suppress(sa.exc.DBAPIError):
                self._connection.invalidate()
                self._connection.close()
            self._connection = None
            if self._files is not None:
                self._files.forget_closed_log()

    # -- when the store vanished ---------------------------------------------------------------------------------

    def _leave_mark(self, what: str) -> None:
        if self._mark is None:
            return
        try:
            self._mark.leave(what)
        except OSError as error:
            logger.critical("the next start will not know of it, because no mark could be left: %s", error)

    def _end_without_store(self) -> None:
        """Save what can be saved, show clients, probes and Prometheus what happened, and end the process."""
        self._refuse_queued()
        self._write_log_back()
        while not self._is_stopping and not self._was_shown():
            self._refuse_queued()
            time.sleep(0.05)
        self._give_up(ExitCode.STORAGE_FAILED)

    def _refuse_queued(self) -> None:
        self._heartbeat = time.monotonic()
        while jobs := self._take():
            for job in jobs:
                job.error = NotStored("storage_failed")
            self._working_since = 0.0
            self._wake(jobs)

    def _write_log_back(self) -> None:
        """Write the log that is still open into the database if another process may find only the latter."""
        if self._files is not None and self._files.is_torn:
            logger.critical("database and log stay as they are, because a torn log would ruin the database")
            return
        if self._files is not None and self._files.is_log_in_place():
            # Only the locks are gone, so another process may be writing this log without waiting for this one.
            logger.warning("the write-ahead log is whole at its place: the next start reads it")
            return
        is_written = False
        until = time.monotonic() + LAST_CHECKPOINT_SECONDS
        try:
            while self._connection is not None and not is_written and time.monotonic() < until:
                is_written = empty_wal(self._connection, busy_timeout_ms=1000)
                self._refuse_queued()
        except Exception as error:
            if trouble(error) is None:
                raise
            logger.critical("the write-ahead log cannot be written back: %s", error)
        if is_written:
            logger.warning("the write-ahead log was written back: the database that was open is complete")
        else:
            logger.critical("the newest rows may be lost, because the write-ahead log could not be written back")

    def _was_shown(self) -> bool:
        is_prometheus_awaited = 0 < self._metrics.scraped_at < self._noticed_at
        seconds = SHOWN_TO_PROMETHEUS_SECONDS if is_prometheus_awaited else SHOWN_SECONDS
        return time.monotonic() > self._noticed_at + seconds

    # -- when the queue is empty ---------------------------------------------------------------------------------

    @property
    def _probe_due_at(self) -> float:
        return float("inf") if self._trouble is None or self._trouble in _BEYOND_HELP else self._probe_at

    def _use_the_pause(self) -> None:
        if self._trouble == "vanished":
            return
        now = time.monotonic()
        try:
            if now >= self._compare_at:
                self._require_files()
            if now >= self._probe_due_at:
                self._probe()
            elif self._trouble is None and self._connection is not None and now >= self._housekeeping.due_at:
                self._require_files()  # a checkpoint of a torn log would ruin the database
                self._housekeeping.step(self._connection)
        except Exception as error:
            if self._code_of(error) is None:
                raise

    def _probe(self) -> None:
        """Test whether storage works again: while the API is not ready, no request would show it."""
        # Large enough to need new pages, in a transaction of its own, so that they reach the disk.
        for value in ("x" * 65536, ""):
            self._in_transaction(self._store.set_meta, "probe", value)

    def _part(self) -> None:
        if self._connection is not None and self._trouble != "vanished":
            try:
                self._require_files()
                self._housekeeping.finish(self._connection)
            except Exception as error:
                if self._code_of(error) is None:
                    raise
        if self._trouble == "vanished":
            self._end_without_store()
        else:
            self._discard_connection()


def _switch_to(jobs: Sequence[_Job]) -> None:
    for job in jobs:
        job.waiter.switch(None)
