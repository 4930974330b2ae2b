"""The files of the store vanish under a real server, idle or busy: nothing that was acknowledged later is missing."""

import contextlib
import http.client
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from fraud_detection.database.engine import open_engine
from fraud_detection.database.sqlite import empty_wal, give_back_pages
from fraud_detection.settings import ApiSettings
from fraud_detection.vanished import Mark
from tests.support.project import ROOT
from tests.support.service import Service, end, post, service
from tests.support.vanishing import TEARING, VANISHING, moved
from tests.support.waiting import PATIENCE_SECONDS, answers, wait_until

pytestmark = pytest.mark.faults

ROW = [0.5] * 29
CLIENTS = 4
FILE_AFTERWARDS: dict[str, Callable[[Path], Path]] = {
    "the database is moved": lambda database: database.with_name("moved.db"),
    "a link is left where the database was": lambda database: database.with_name("moved.db"),
    "the log is removed": lambda database: database,
    "another log is moved over it": lambda database: database,
    "the locks are removed": lambda database: database,
    "other locks are moved over them": lambda database: database,
    "the folder is moved": moved,
    "the folder is replaced by a copy": moved,
}
"""Where the file that was open is, after what takes it away; the other ways destroy it."""


class Client(threading.Thread):
    """Scores a transaction and labels it, again and again, and remembers what was acknowledged and when it was sent."""

    def __init__(self, of: Service) -> None:
        super().__init__()
        self.stopping = threading.Event()
        self.predictions: list[tuple[float, str]] = []
        self.labels: list[tuple[float, str]] = []
        self.statuses: set[int] = set()
        self._of = of

    def run(self) -> None:
        with self._of.connection() as connection:
            while not self.stopping.is_set():
                try:
                    self._score_and_label(connection)
                except (OSError, http.client.HTTPException):
                    connection.close()
                    time.sleep(0.05)

    def _score_and_label(self, connection: http.client.HTTPConnection) -> None:
        sent = time.monotonic()
        status, answer = post(connection, "/predict", {"data": [ROW]})
        self.statuses.add(status)
        if status != 200:
            time.sleep(0.02)
            return
        self.predictions.append((sent, answer["request_id"]))
        label = {"request_id": answer["request_id"], "row": 0, "is_fraud": True, "source": "analyst"}
        sent = time.monotonic()
        status, _ = post(connection, "/labels", {"labels": [label]})
        self.statuses.add(status)
        if status == 200:
            self.labels.append((sent, answer["request_id"]))


@contextlib.contextmanager
def clients(of: Service) -> Iterator[list[Client]]:
    started = [Client(of) for _ in range(CLIENTS)]
    for client in started:
        client.start()
    try:
        yield started
    finally:
        for client in started:
            client.stopping.set()
        for client in started:
            client.join(PATIENCE_SECONDS)


def not_stored(started: list[Client], database: Path) -> set[str]:
    """What was acknowledged and is not in the database."""
    engine = open_engine(database, read_only=True)
    with engine.connect() as connection:
        rows = set(connection.exec_driver_sql("SELECT request_id FROM requests").scalars())
        labels = set(connection.exec_driver_sql("SELECT request_id FROM labels").scalars())
    engine.dispose()
    scored = {request_id for client in started for _, request_id in client.predictions}
    labelled = {request_id for client in started for _, request_id in client.labels}
    return (scored - rows) | (labelled - labels)


def stored_so_far(started: list[Client]) -> bool:
    return all(len(client.labels) > 20 for client in started)


@pytest.fixture
def serving(sqlite_environment: dict[str, str], tmp_path: Path) -> Service:
    return service(sqlite_environment, tmp_path / "log")


def database_of(of: Service) -> Path:
    return Path(of.environment["LATEST_DB"])


def is_ready(of: Service) -> bool:
    return answers(f"http://127.0.0.1:{of.environment['PROBE_PORT']}/readyz")


def start_again(of: Service) -> int:
    process = of.start()
    try:
        return process.wait(PATIENCE_SECONDS)
    finally:
        end(process)


@pytest.mark.parametrize("way", VANISHING | TEARING)
@pytest.mark.parametrize("is_busy", [True, False], ids=["busy", "idle"])
def test_nothing_is_acknowledged_that_is_lost(serving: Service, way: str, is_busy: bool) -> None:
    database = database_of(serving)
    process = serving.start()
    try:
        serving.wait_until_ready(process)
        with clients(serving) as started:
            wait_until(lambda: stored_so_far(started), process=process, otherwise=serving.log.read_text)
            if not is_busy:
                for client in started:
                    client.stopping.set()
                for client in started:
                    client.join(PATIENCE_SECONDS)
            (VANISHING | TEARING)[way](database)
            gone = time.monotonic()
            wait_until(lambda: not is_ready(serving), process=process)
            assert process.wait(PATIENCE_SECONDS) == 70, serving.log.read_text()
    finally:
        end(process)

    acknowledged = [entry for client in started for entry in (*client.predictions, *client.labels)]
    assert [request_id for sent, request_id in acknowledged if sent > gone] == []
    assert {status for client in started for status in client.statuses} == ({200, 503} if is_busy else {200})
    if way in FILE_AFTERWARDS:
        assert not_stored(started, FILE_AFTERWARDS[way](database)) == set()
    said = serving.log.read_text()
    assert "the API stores nothing more and ends. To start again, restore a backup" in said
    assert (start_again(serving), start_again(serving)) == (3, 3)
    mark = Mark.of(ApiSettings.from_env(serving.environment))
    assert mark is not None
    mark.clear()
    with serving.running():
        assert is_ready(serving)


def run(*command: str, env: dict[str, str]) -> None:
    subprocess.run(
        [sys.executable, "-m", *command], cwd=ROOT, env={"PATH": os.environ["PATH"], **env}, check=True, timeout=60
    )


def test_what_jobs_do_meanwhile_is_not_taken_for_a_loss(serving: Service, tmp_path: Path) -> None:
    database, environment = database_of(serving), dict(serving.environment)
    with serving.running() as process, clients(serving) as started:
        wait_until(lambda: stored_so_far(started), process=process)
        run("fraudctl", "db", "backup", str(tmp_path / "backup"), env=environment)
        run("fraudctl", "db", "check", env=environment)
        run("fraudctl", "forget", "--yes", f"{started[0].labels.pop(0)[1]}:0", env=environment)
        started[0].predictions.pop(0)
        engine = open_engine(database)
        with engine.connect() as connection:
            driver: Any = connection.connection.driver_connection
            for _ in range(20):
                assert empty_wal(connection, busy_timeout_ms=5000)
                give_back_pages(connection, 1000)
                driver.execute("VACUUM")
        engine.dispose()
        count = len(started[0].labels)
        wait_until(lambda: len(started[0].labels) > count + 20, process=process)

    assert process.wait(PATIENCE_SECONDS) == 0
    assert {status for client in started for status in client.statuses} == {200}
    assert not_stored(started, database) == set()


@pytest.mark.parametrize("way", VANISHING)
def test_a_store_that_changes_while_the_api_is_stopped_opens_as_before(serving: Service, way: str) -> None:
    database = database_of(serving)
    with serving.running() as process:
        pass
    for suffix in ("-wal", "-shm"):
        Path(f"{database}{suffix}").touch()

    VANISHING[way](database)

    if way in {"the database is removed", "the database is moved"}:
        assert start_again(serving) == 3
        assert "a database was here and is gone" in serving.log.read_text()
    else:
        with serving.running():
            assert process.returncode == 0
