"""The image of the jobs works locked down on the volume of the API."""

import json
from collections.abc import Callable
from subprocess import CompletedProcess

import pytest

from tests.images.containers import LOCKED_DOWN, serving
from tests.support.environment import TOKEN
from tests.support.images import JOBS_IMAGE, docker

pytestmark = pytest.mark.usefixtures("jobs_image", "api_image")
Run = Callable[..., "CompletedProcess[str]"]


@pytest.fixture
def run(volume: str) -> Run:
    """Run the jobs image as locked down as the API, on the same volume: run("db", "check", options=[…])."""

    def start(*arguments: str, options: tuple[str, ...] = (), exit_code: int = 0) -> CompletedProcess[str]:
        mounted = ("--volume", f"{volume}:/app/data")
        return docker("run", "--rm", *LOCKED_DOWN, *mounted, *options, JOBS_IMAGE, *arguments, exit_code=exit_code)

    return start


def test_explains_itself(run: Run) -> None:
    shown = run().stdout

    assert shown.startswith("Usage: fraudctl [OPTIONS] COMMAND")
    assert "retrain" in shown


def test_works_around_the_loop_beside_the_api(volume: str, run: Run) -> None:
    """Only real work shows what a read-only root breaks: plots, MLflow, snapshots, worker processes."""
    with serving(*LOCKED_DOWN, "--volume", f"{volume}:/app/data") as api:
        beside = ("--network", f"container:{api.name}", "--env", f"API_TOKEN={TOKEN}")
        job = (*beside, "--env", "API_URL=http://127.0.0.1:5000", "--entrypoint", "python")

        run("demo-data", "--rows", "2000", "--out", "/app/data/demo.csv")
        run("score", "/app/data/demo.csv", "--out", "/app/data/scored.csv", options=beside)
        scored_with = api.ask("GET", "/model")[1]["version"]
        run("-m", "jobs.detect_drift", options=job)
        held = run("-m", "jobs.retrain", options=job)
        run("demo-data", "--rows", "4000", "--fraud-share", "0.05", "--seed", "7", "--out", "/app/data/history.csv")
        run("import-csv", "/app/data/history.csv")
        trained = run("-m", "jobs.retrain", "--force", options=(*job, "--env", "GATE_MIN_FRAUDS=20"))
        checked = run("db", "check")

        drift = json.loads(api.execute("python", "-c", "print(open('/app/data/drift_result.json').read())").stdout)
        assert drift["provenance"]["model_version"] == scored_with
        assert "held_derived: Nothing was trained." in held.stderr
        assert "promoted: A new model learned from 2,800 transactions" in trained.stderr
        assert api.ask("GET", "/model")[1]["version"] != scored_with
        assert api.execute("sqlite3", "/app/data/mlflow.db", "SELECT status FROM runs").stdout == "FINISHED\n"
        assert "/app/data/history.db (4,000 rows): ok" in checked.stdout


def test_reads_a_database_without_the_api(volume: str, run: Run) -> None:
    with serving(*LOCKED_DOWN, "--volume", f"{volume}:/app/data"):
        pass

    counted = run("/app/data/requests.db", "SELECT COUNT(*) FROM requests", options=("--entrypoint", "sqlite3"))

    assert counted.stdout == "0\n"
