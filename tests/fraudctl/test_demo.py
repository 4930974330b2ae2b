"""`fraudctl demo` keeps to its folder, and its own walk round the loop is the transcript in the README."""

import contextlib
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from fraudctl.demo import ENVIRONMENT, prepared
from fraudctl.main import main
from tests.support.project import ROOT
from tests.support.waiting import PATIENCE_SECONDS, answers, wait_until

DEMO = [sys.executable, "-m", "fraudctl", "demo"]


def test_a_folder_with_files_is_refused_and_left_alone(tmp_path: Path) -> None:
    (tmp_path / "mine.csv").write_text("mine")

    ended = CliRunner().invoke(main, ["demo", "--folder", str(tmp_path)])

    assert ended.exit_code == 2
    assert f"{tmp_path}: is not empty; delete it, or name another folder with --folder" in ended.output
    assert [file.name for file in tmp_path.iterdir()] == ["mine.csv"]


def test_the_variables_of_the_users_installation_are_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    theirs = {"DATABASE_URL": "postgresql://host/theirs", "API_TOKEN": "a-token-of-theirs", "LATEST_DB": "theirs.db"}
    for name, value in theirs.items():
        monkeypatch.setenv(name, value)
    folder = tmp_path / "a demo"

    environ = prepared(folder, {"DRIFT_WINDOW_ROWS": "2000"})

    told = subprocess.run(
        ["sh", "-c", f". '{folder / ENVIRONMENT}' && env"], capture_output=True, text=True, check=True
    ).stdout.splitlines()
    assert not {"DATABASE_URL", "API_TOKEN"} & ({line.partition("=")[0] for line in told} | set(environ))
    for name, value in {"LATEST_DB": str(folder / "data" / "requests.db"), "DRIFT_WINDOW_ROWS": "2000"}.items():
        assert environ[name] == value
        assert f"{name}={value}" in told
    assert (folder / ".api_token").stat().st_mode & 0o777 == 0o600


@pytest.mark.stories
def test_the_readme_shows_what_the_demo_prints(tmp_path: Path) -> None:
    coverage = {name: value for name, value in os.environ.items() if "COVERAGE" in name}
    environ = {"PATH": "/usr/bin:/bin", "PYTHONPATH": str(ROOT), "LATEST_DB": "theirs.db", **coverage}

    ended = subprocess.run(DEMO, cwd=tmp_path, env=environ, capture_output=True, text=True, check=True)

    assert ended.stderr == ""
    readme = (ROOT / "README.md").read_text()
    (shown,) = re.findall(r"^\$ fraudctl demo\n(.*?)^…\n```$", readme, re.DOTALL | re.MULTILINE)
    assert masked(ended.stdout)[: len(masked(shown))] == masked(shown)
    assert "The demo ends in: promoted." in ended.stdout
    assert [file.name for file in tmp_path.iterdir()] == ["demo"]
    pictures = tmp_path / re.findall(r"Pictures of the last training: (.*)", ended.stdout)[0]
    assert (pictures / "precision_recall.png").exists()
    # what it says to do next, in the terminal of somebody with variables of their own
    transaction, digest = re.findall(r"lineage (\S+)", ended.stdout)[0], re.findall(r"digest (\w+)…", ended.stdout)[0]
    commands = f". demo/{ENVIRONMENT} && {sys.executable} -m fraudctl lineage {transaction}"
    looked = subprocess.run(
        ["sh", "-c", commands], cwd=tmp_path, env=environ, capture_output=True, text=True, check=True
    )
    assert digest in looked.stdout
    assert not answers(api_of(tmp_path / "demo"))


@pytest.mark.stories
@pytest.mark.parametrize(("number", "exit_code"), [(signal.SIGINT, 1), (signal.SIGKILL, -signal.SIGKILL)])
def test_a_demo_that_is_ended_leaves_no_process(tmp_path: Path, number: signal.Signals, exit_code: int) -> None:
    folder = tmp_path / "demo"
    demo = subprocess.Popen([*DEMO, "--folder", folder], cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    wait_until(lambda: (folder / ENVIRONMENT).exists() and answers(api_of(folder)), process=demo)

    assert processes_of(folder) != []
    demo.send_signal(number)

    assert demo.wait(PATIENCE_SECONDS) == exit_code
    wait_until(lambda: processes_of(folder) == [])
    assert not answers(api_of(folder))


def api_of(folder: Path) -> str:
    (url,) = re.findall("API_URL=(.*)", (folder / ENVIRONMENT).read_text())
    return f"{url}/health"


def processes_of(folder: Path) -> list[bytes]:
    """Return the environments of the processes that work on a folder."""
    found = []
    for file in Path("/proc").glob("[0-9]*/environ"):
        with contextlib.suppress(OSError):  # it has ended, or is not ours
            found.append(file.read_bytes())
    return [environ for environ in found if str(folder).encode() in environ]


def masked(told: str) -> str:
    """Return a transcript without the version, which holds a time, and without the digest of the last bit."""
    return re.sub(r"\b\d{8}T\d{6}Z-\w{12}\b|digest \w{12}", "MASKED", told)
