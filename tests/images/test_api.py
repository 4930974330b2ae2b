"""The image of the API serves locked down, and keeps answered rows through kill -9."""

import itertools
import json
import threading
import time
from collections.abc import Iterator

import pytest

from tests.images.containers import LOCKED_DOWN, PATIENCE_SECONDS, Api, empty_volume, inspect, serving
from tests.support.environment import TOKEN
from tests.support.images import API_IMAGE, docker

pytestmark = pytest.mark.usefixtures("api_image")
NEWEST = "SELECT * FROM requests ORDER BY ts DESC LIMIT 1;"
PAYMENT = [[0.5] * 29]


@pytest.fixture(scope="module")
def lasting(api_image: str) -> Iterator[Api]:
    """A service for the tests that do not change it."""
    with empty_volume() as volume, serving(*LOCKED_DOWN, "--volume", f"{volume}:/app/data") as api:
        yield api


@pytest.mark.parametrize("options", [(), LOCKED_DOWN], ids=["plain", "locked-down"])
def test_serves_with_a_volume_and_a_token_alone(
    volume: str, options: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    started = time.monotonic()
    with serving(*options, "--volume", f"{volume}:/app/data") as api:
        with capsys.disabled():
            print(f"\nhealthy {time.monotonic() - started:.1f} s after docker run, on an empty volume")
        status, answer = api.ask("POST", "/predict", {"data": PAYMENT, "transaction_ids": ["order-1"]})
        assert status == 200
        assert api.ask("GET", "/transactions/order-1")[1]["request_id"] == answer["request_id"]


def test_the_first_process_is_the_server_and_ends_in_order(volume: str) -> None:
    with serving(*LOCKED_DOWN, "--volume", f"{volume}:/app/data") as api:
        first = api.execute("python", "-c", "print(open('/proc/1/cmdline').read().split('\\0'))").stdout

        docker("stop", "--time", "30", api.name)

        assert "'-m', 'gunicorn'" in first
        assert inspect(api.name, ".State.ExitCode") == 0, api.log()
        assert "ERROR" not in api.log()


def test_the_next_container_on_the_volume_finds_its_data(volume: str) -> None:
    options = (*LOCKED_DOWN, "--volume", f"{volume}:/app/data")
    with serving(*options) as api:
        api.ask("POST", "/predict", {"data": PAYMENT, "transaction_ids": ["order-1"]})
        model = api.ask("GET", "/model")[1]
    with serving(*options) as api:
        assert api.ask("GET", "/model")[1] == model
        assert api.sql("SELECT COUNT(*), MAX(transaction_id) FROM requests") == "1|order-1"


def test_docker_knows_whether_it_is_ready(volume: str) -> None:
    with serving(*LOCKED_DOWN, "--env", "PROBE_PORT=6001", "--volume", f"{volume}:/app/data") as api:
        probe = inspect(api.name, ".Config.Healthcheck.Test")[1:]

        refused = docker("exec", "--env", "PROBE_PORT=6002", api.name, *probe, exit_code=1)

        assert "Connection refused" in refused.stderr
        deadline = time.monotonic() + PATIENCE_SECONDS
        while inspect(api.name, ".State.Health.Status") != "healthy":
            assert time.monotonic() < deadline, inspect(api.name, ".State.Health")
            time.sleep(0.5)


def test_runs_in_two_steps_on_two_volumes_as_in_the_chart(volume: str) -> None:
    """An initContainer prepares; the server's models are read-only."""
    common = (*LOCKED_DOWN, "--volume", f"{volume}:/app/data", "--env", "MODEL_PATH=/app/models/rf_model.pkl")
    with empty_volume() as models:
        docker("run", "--rm", *common, "--volume", f"{models}:/app/models", API_IMAGE, "-m", "api.bootstrap")
        server = ("-m", "gunicorn", "-c", "python:api.gunicorn_conf")
        with serving(*common, "--volume", f"{models}:/app/models:ro", command=server) as api:
            asked = api.execute("python", "-m", "api.smoke")

    assert "healthy" in asked.stdout


@pytest.mark.parametrize(
    ("options", "exit_code", "message"),
    [
        ((), 2, "fraud-detection cannot start: API_TOKEN is not set; it is required: bearer token"),
        (("--env", "API_TOKEN=two words"), 2, "API_TOKEN: expected 1 to 512 visible ASCII characters without spaces"),
        (("--env", f"API_TOKEN={TOKEN}", "--env", "BASELINE_DIR=/nowhere"), 3, "BASELINE_DIR: no model version"),
    ],
)
def test_what_is_wrong_is_said_once_and_ends_it(options: tuple[str, ...], exit_code: int, message: str) -> None:
    ended = docker(
        "run", "--rm", *LOCKED_DOWN, "--tmpfs", "/app/data:mode=0770", *options, API_IMAGE, exit_code=exit_code
    )

    assert message in ended.stderr
    assert "Traceback" not in ended.stderr


class Writer(threading.Thread):
    """Scores one transaction after the other until the service is gone, and notes which were answered."""

    def __init__(self, api: Api) -> None:
        super().__init__(daemon=True)
        self.answered: list[str] = []
        self._api = api

    def run(self) -> None:
        for number in itertools.count():
            try:
                status, _ = self._api.ask("POST", "/predict", {"data": PAYMENT, "transaction_ids": [f"n-{number}"]})
            except (OSError, AssertionError, json.JSONDecodeError):
                return
            if status == 200:
                self.answered.append(f"n-{number}")

    def wait_for(self, count: int) -> None:
        while len(self.answered) < count:
            assert self.is_alive()
            time.sleep(0.05)


def test_what_was_answered_survives_kill_9(volume: str) -> None:
    with serving(*LOCKED_DOWN, "--volume", f"{volume}:/app/data") as api:
        writer = Writer(api)
        writer.start()
        writer.wait_for(30)

        docker("kill", "--signal", "KILL", api.name)
        writer.join()
        docker("start", api.name)
        api.wait_until_healthy()

        stored = set(api.sql("SELECT transaction_id FROM requests").split())
        assert set(writer.answered) <= stored
        assert api.sql("PRAGMA integrity_check") == "ok"


def test_sqlite3_shows_the_newest_row_while_the_service_writes(volume: str) -> None:
    with serving(*LOCKED_DOWN, "--volume", f"{volume}:/app/data") as api:
        writer = Writer(api)
        writer.start()
        for count in (5, 10, 15):
            writer.wait_for(count)
            assert int(api.sql("SELECT COUNT(*) FROM requests")) >= count
        newest = api.sql(NEWEST)

        columns = newest.split("|")
        assert columns[4:33] == ["0.5"] * 29
        assert any(name.startswith("n-") for name in columns)


@pytest.mark.parametrize(
    ("statement", "message"),
    [
        ("INSERT INTO schema_meta VALUES ('a', 'b')", "attempt to write a readonly database; this command only reads"),
        ("ATTACH '/app/data/other.db' AS other", "not authorized; this command only reads, and only one file"),
        (".shell touch /app/data/other.db", "this command runs only SQL"),
    ],
)
def test_sqlite3_refuses_to_write(lasting: Api, statement: str, message: str) -> None:
    refused = lasting.execute("sqlite3", "/app/data/requests.db", statement, exit_code=1)

    assert message in refused.stderr
    assert "other.db" not in lasting.execute("ls", "/app/data").stdout
    assert lasting.sql("SELECT COUNT(*) FROM schema_meta WHERE key = 'a'") == "0"


def test_sqlite3_is_the_library_of_the_service_and_not_the_systems(lasting: Api) -> None:
    bundled = lasting.execute("python", "-c", "import pysqlite3; print(pysqlite3.sqlite_version)").stdout.strip()

    assert lasting.sql("SELECT sqlite_version()") == bundled
    assert tuple(map(int, bundled.split("."))) >= (3, 51, 3)
