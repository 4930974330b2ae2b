"""`fraudctl reset` deletes what an installation has stored and learned, and nothing else."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from fraud_detection.features import FeatureList
from fraud_detection.lock import in_use, promoter
from fraud_detection.model.files import CURRENT, REFERENCE
from fraud_detection.store import Store
from tests.support.command_line import Fraudctl
from tests.support.terminal import terminal


@pytest.fixture
def used(tmp_path: Path, models_dir: Path, sqlite_environment: dict[str, str], features: FeatureList) -> dict[str, str]:
    """The variables of an installation that has been used: store, models, drift result, MLflow's store, own list."""
    data = tmp_path / "data"
    for name in ("requests.db", "history.db"):
        Store.create_or_migrate(data / name, features).close()
    (data / "requests.db-wal").touch()
    (data / "drift_result.json").write_text("{}")
    (data / "retrain_result.json").write_text("{}")
    (data / "mlflow.db").touch()
    (data / "mlartifacts" / "1").mkdir(parents=True)
    (data / REFERENCE).symlink_to(f"../models/current/{REFERENCE}")
    (data / "features.json").symlink_to("../features.json")
    (models_dir / ".requests.db.vanished").write_text("was removed")
    for mine in (
        "features.json",
        "backup.tar",
        "data/notes.txt",
        "models/notes.txt",
        "baseline/notes.txt",
        ".api_token",
    ):
        (tmp_path / mine).parent.mkdir(exist_ok=True)
        (tmp_path / mine).write_text("mine")
    return {**sqlite_environment, "TRAIN_DB": str(data / "history.db")}


def files(folder: Path) -> set[str]:
    """Return what is in a folder, but for the locks."""
    found = {str(path.relative_to(folder)) for path in folder.rglob("*") if not path.is_dir() or path.is_symlink()}
    return {name for name in found if not name.endswith((".lock", ".in-use", "-lock"))}


MINE = {"features.json", "backup.tar", "data/notes.txt", "models/notes.txt", "baseline/notes.txt", ".api_token"}


def test_deletes_what_the_installation_made_and_keeps_the_rest(
    fraudctl: Fraudctl, used: dict[str, str], tmp_path: Path, features: FeatureList
) -> None:
    version = (tmp_path / "models" / CURRENT).readlink()

    done = fraudctl("reset", "--yes", env=used)
    again = fraudctl("reset", "--yes", env=used)

    assert files(tmp_path) == MINE
    assert f"  {tmp_path}/models/{version}\n" in done.stdout
    assert f"  {tmp_path}/data/requests.db\n" in done.stdout
    assert again.stdout == "There was nothing to delete.\n"
    Store.create_or_migrate(tmp_path / "data" / "requests.db", features).close()  # nothing marks the old one as lost


def test_works_when_the_feature_list_is_what_is_wrong(fraudctl: Fraudctl, used: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "features.json").write_text("{")

    fraudctl("reset", "--yes", env=used)

    assert files(tmp_path) == MINE


def test_without_a_terminal_it_needs_yes(fraudctl: Fraudctl, used: dict[str, str], tmp_path: Path) -> None:
    before = files(tmp_path)

    refused = fraudctl("reset", env=used, exit_code=2)

    assert refused.stderr == (
        "fraudctl: nothing was deleted, because there is no terminal to ask on; add --yes to delete it\n"
    )
    assert files(tmp_path) == before


@pytest.mark.parametrize(
    ("answer", "exit_code", "told"), [("n", 1, "Aborted!"), ("y", 0, "Delete all of it for good?")]
)
def test_on_a_terminal_it_asks_first(
    used: dict[str, str], tmp_path: Path, answer: str, exit_code: int, told: str
) -> None:
    before = files(tmp_path)

    with terminal() as (person, program):
        os.write(person, f"{answer}\n".encode())
        ended = subprocess.run(
            [sys.executable, "-m", "fraudctl", "reset"],
            env={**os.environ, **used}, stdin=program, capture_output=True, text=True, check=False,
        )  # fmt: skip

    assert ended.returncode == exit_code, ended.stderr
    assert told in ended.stderr
    assert files(tmp_path) == (before if answer == "n" else MINE)


def test_a_running_api_or_job_stops_it(fraudctl: Fraudctl, used: dict[str, str], tmp_path: Path) -> None:
    before, models_dir = files(tmp_path), tmp_path / "models"

    with in_use(tmp_path / "data" / "requests.db", models_dir):
        served = fraudctl("reset", "--yes", env=used, exit_code=1)
    with promoter(models_dir):
        changed = fraudctl("reset", "--yes", env=used, exit_code=1)

    assert served.stderr.endswith("requests.db: a running API has this store open; stop it first\n")
    assert "another job is changing the models" in changed.stderr
    assert files(tmp_path) == before


def test_a_database_elsewhere_is_not_its_business(fraudctl: Fraudctl, used: dict[str, str], tmp_path: Path) -> None:
    before = files(tmp_path)

    refused = fraudctl(
        "reset", "--yes", env={**used, "DATABASE_URL": "postgresql://user:password@host/database"}, exit_code=2
    )

    assert refused.stderr.startswith("fraudctl: DATABASE_URL is set, and a reset deletes only what is on this machine")
    assert files(tmp_path) == before
