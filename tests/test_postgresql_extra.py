"""psycopg is an extra: with SQLite no module imports it, and with DATABASE_URL its absence is one sentence."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.environment import TOKEN
from tests.support.project import ROOT
from tests.support.waiting import PATIENCE_SECONDS

BLOCKED = """
import sys

class Finder:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {"psycopg", "psycopg_binary"}:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Finder())
"""
EVERY_MODULE = """
import importlib, pkgutil
from pathlib import Path

for name in ("fraud_detection", "api", "jobs", "fraudctl"):
    package = importlib.import_module(name)
    for module in pkgutil.walk_packages(package.__path__, f"{name}."):
        if module.name not in {"fraud_detection.migrations.env", "fraudctl.__main__"}:  # they do work at once
            importlib.import_module(module.name)

from fraud_detection.database.trouble import trouble
from fraud_detection.features import load_features
from fraud_detection.settings import JobSettings
from fraud_detection.store import Store

settings = JobSettings.from_env({})
store = Store.create_or_migrate(Path("data.db"), load_features(None))
with store.begin() as connection:
    store.set_meta(connection, "key", "value")
store.close()
print(trouble(ValueError("no error of a database")))
"""


@pytest.fixture
def without_psycopg(tmp_path: Path) -> dict[str, str]:
    """The variables of a process in which psycopg is not installed."""
    (tmp_path / "sitecustomize.py").write_text(BLOCKED)
    kept = {name: value for name, value in os.environ.items() if name in {"PATH", "HOME"} or "COVERAGE" in name}
    return kept | {"PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}", "API_TOKEN": TOKEN}


def run(environ: dict[str, str], folder: Path, *command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *command],
        cwd=folder,
        env=environ,
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE_SECONDS,
    )


@pytest.mark.parametrize(
    "command",
    [
        ("-m", "api"),
        ("-m", "gunicorn", "-c", "python:api.gunicorn_conf"),
        ("-m", "jobs.detect_drift"),
        ("-m", "jobs.retrain"),
        ("-m", "fraudctl", "db", "check"),
    ],
    ids=" ".join,
)
def test_a_missing_driver_is_one_sentence_with_the_command(
    without_psycopg: dict[str, str], tmp_path: Path, command: tuple[str, ...]
) -> None:
    url = {"DATABASE_URL": "postgresql://user:geheim@127.0.0.1:9/database"}

    ended = run(without_psycopg | url, tmp_path, *command)

    assert ended.returncode == 2, ended.stderr
    assert "DATABASE_URL: the driver of PostgreSQL is not installed; install it" in ended.stderr
    assert "python -m pip install 'psycopg[binary]'" in ended.stderr
    assert len(ended.stderr.splitlines()) == 1
    assert "geheim" not in ended.stdout + ended.stderr
    assert [path.name for path in tmp_path.iterdir() if path.name != "__pycache__"] == ["sitecustomize.py"]


def test_where_sqlite_serves_no_module_imports_it(without_psycopg: dict[str, str], tmp_path: Path) -> None:
    ended = run(without_psycopg, tmp_path, "-c", EVERY_MODULE)

    assert (ended.stdout, ended.returncode) == ("None\n", 0), ended.stderr
