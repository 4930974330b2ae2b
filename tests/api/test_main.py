"""`python -m api` prepares a fresh installation and then becomes the server."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from fraud_detection.model.read import current_version
from tests.support.environment import TOKEN
from tests.support.ports import free_port
from tests.support.project import ROOT
from tests.support.waiting import PATIENCE_SECONDS, answers, wait_until


@pytest.fixture
def fresh(tmp_path: Path, make_version: Callable[..., str]) -> dict[str, str]:
    """The variables of an installation that has only a token and a baseline."""
    version = make_version(tmp_path / "made")
    (tmp_path / "made" / version).rename(tmp_path / "baseline")
    return {
        "API_TOKEN": TOKEN,
        "MODEL_PATH": str(tmp_path / "models" / "rf_model.pkl"),
        "LATEST_DB": str(tmp_path / "data" / "requests.db"),
        "BASELINE_DIR": str(tmp_path / "baseline"),
        "PORT": free_port(),
        "PROBE_PORT": free_port(),
    }


def start(environment: dict[str, str]) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "api"],
        cwd=ROOT,
        env={"PATH": os.environ["PATH"], **environment},
        stderr=subprocess.PIPE,
        text=True,
    )


def log_of(server: subprocess.Popen[str]) -> str:
    server.kill()
    return server.communicate()[1]


def test_makes_what_is_missing_becomes_the_server_and_ends_in_order(fresh: dict[str, str]) -> None:
    server = start(fresh)
    health = f"http://127.0.0.1:{fresh['PORT']}/health"
    wait_until(lambda: answers(health), process=server, otherwise=lambda: log_of(server))

    runs = Path(f"/proc/{server.pid}/cmdline").read_bytes().split(b"\0")
    assert runs[1:5] == [b"-m", b"gunicorn", b"-c", b"python:api.gunicorn_conf"]
    server.send_signal(signal.SIGTERM)
    _, log = server.communicate(timeout=PATIENCE_SECONDS)
    assert server.returncode == 0, log
    assert current_version(Path(fresh["MODEL_PATH"]).parent) is not None


@pytest.mark.parametrize(
    ("wrong", "exit_code", "message"),
    [
        ({"API_TOKEN": ""}, 2, "fraud-detection cannot start: API_TOKEN is not set; it is required"),
        ({"PORT": "http"}, 2, "fraud-detection cannot start: PORT: expected a whole number from 1 to 65535"),
        ({"FEATURES_FILE": "nowhere.json"}, 2, "nowhere.json"),
        ({"BASELINE_DIR": "nowhere"}, 3, "BASELINE_DIR: no model version in nowhere"),
    ],
)
def test_what_is_wrong_is_said_and_nothing_serves(
    fresh: dict[str, str], wrong: dict[str, str], exit_code: int, message: str
) -> None:
    server = start(fresh | wrong)

    _, log = server.communicate(timeout=PATIENCE_SECONDS)
    assert (server.returncode, message in log, "Traceback" in log) == (exit_code, True, False), log


@pytest.mark.parametrize("wrong", [{"API_TOKEN": ""}, {"API_TOKENS_FILE": "nowhere"}])
def test_with_a_wrong_token_or_file_of_tokens_nothing_is_made(fresh: dict[str, str], wrong: dict[str, str]) -> None:
    start(fresh | wrong).communicate(timeout=PATIENCE_SECONDS)

    assert not Path(fresh["LATEST_DB"]).parent.exists()
    assert not Path(fresh["MODEL_PATH"]).parent.exists()
