"""`fraudctl serve` and `bootstrap` prepare an installation and start its API."""

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from fraud_detection.clock import Clock
from fraud_detection.features import load_features
from fraud_detection.model.files import ONNX, PICKLE
from fraud_detection.model.read import load, versions
from fraud_detection.store import Store, transfer
from fraud_detection.store.transfer import ImportedRows
from fraud_detection.vanished import Mark
from jobs.synthetic.baseline import seed_baseline
from tests.support.command_line import Fraudctl
from tests.support.ports import free_port
from tests.support.project import ROOT
from tests.support.waiting import PATIENCE_SECONDS, answers, wait_until


@pytest.fixture
def fresh(tmp_path: Path, make_version: Callable[..., str], monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """An installation that has only a baseline; `python -m …` finds the project from every folder."""
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    made = make_version(tmp_path / "made")
    (tmp_path / "made" / made).rename(tmp_path / "baseline")
    shutil.rmtree(tmp_path / "made")
    return {"PORT": free_port(), "PROBE_PORT": free_port()}


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, list[str], dict[str, str]]]:
    """The calls that would have replaced this process by another program."""
    calls: list[tuple[str, list[str], dict[str, str]]] = []
    monkeypatch.setattr(os, "execve", lambda *call: calls.append(call))
    return calls


Started = list[tuple[str, list[str], dict[str, str]]]


def test_serve_makes_what_is_missing_and_the_printed_command_works(fresh: dict[str, str], tmp_path: Path) -> None:
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), **fresh}
    with (tmp_path / "log").open("wb") as log:
        server = subprocess.Popen(
            [sys.executable, "-m", "fraudctl", "serve", "--first-time"],
            cwd=tmp_path,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
        )
    try:
        command = printed_command(server)
        wait_until(lambda: answers(f"http://127.0.0.1:{fresh['PORT']}/health"), process=server)
        answer = subprocess.run(["bash", "-c", command], cwd="/", capture_output=True, text=True, check=True)
    finally:
        server.send_signal(signal.SIGINT)
        status = server.wait(PATIENCE_SECONDS)

    assert '"fraud_probability": [' in answer.stdout, answer.stdout
    assert (tmp_path / ".api_token").stat().st_mode & 0o777 == 0o600
    assert status == 0


def printed_command(server: "subprocess.Popen[str]") -> str:
    assert server.stdout is not None
    with server.stdout as lines:
        printed = ""
        for line in lines:
            printed += line
            if line.endswith("}'\n"):
                return printed[printed.index("curl ") :]
    raise AssertionError(printed)


def test_serve_becomes_the_server(fraudctl: Fraudctl, fresh: dict[str, str], started: Started) -> None:
    fraudctl("serve", env={**fresh, "API_TOKEN": "t"})

    ((program, arguments, environment),) = started
    assert (program, arguments[1:]) == (sys.executable, ["-m", "gunicorn", "-c", "python:api.gunicorn_conf"])
    assert environment["API_TOKEN"] == "t"


def test_serve_without_a_token_says_so(fraudctl: Fraudctl, fresh: dict[str, str], started: Started) -> None:
    result = fraudctl("serve", env=fresh, exit_code=2)

    assert result.stderr.startswith("fraudctl: API_TOKEN is not set; it is required")
    assert started == []


def test_an_empty_token_file_is_named_and_replaced(fraudctl: Fraudctl, fresh: dict[str, str], started: Started) -> None:
    Path(".api_token").write_text("\n")

    refused = fraudctl("label", "order-1", "--fraud", env=fresh, exit_code=2)
    fraudctl("serve", "--first-time", env=fresh)
    made = Path(".api_token").read_text()
    fraudctl("serve", "--first-time", env=fresh)

    assert refused.stderr == "fraudctl: .api_token: is empty; `fraudctl serve --first-time` creates a new token\n"
    assert len(made) > 40
    assert Path(".api_token").read_text() == made
    assert len(started) == 2


@pytest.mark.parametrize(
    ("variables", "token"),
    [
        ({"API_TOKEN": "t"}, "$API_TOKEN"),
        ({"API_TOKEN_FILE": "my token"}, "$(cat '{here}/my token')"),
        ({}, "$(cat {here}/.api_token)"),
    ],
)
def test_the_command_to_try_finds_the_token_from_every_folder(
    fraudctl: Fraudctl, fresh: dict[str, str], started: Started, variables: dict[str, str], token: str
) -> None:
    Path("my token").write_text("t")

    result = fraudctl("serve", "--first-time", env={**fresh, "HOST": "0.0.0.0", **variables})  # noqa: S104

    bearer = f"Authorization: Bearer {token.format(here=Path.cwd())}"
    assert f'curl -s http://127.0.0.1:{fresh["PORT"]}/predict -H "{bearer}"' in result.stdout
    assert ("In another terminal with the same API_TOKEN:" in result.stdout) == ("API_TOKEN" in variables)
    assert Path(".api_token").exists() == (variables == {})
    row = re.search(r"\[\[(.*)\]\]", result.stdout)
    assert row is not None
    assert len(row[1].split(",")) == 29


def test_the_printed_address_can_be_pasted(fraudctl: Fraudctl, fresh: dict[str, str], started: Started) -> None:
    printed = fraudctl("serve", "--first-time", env={**fresh, "HOST": "::1"}).stdout

    url = f"http://[::1]:{fresh['PORT']}"
    assert f"Starting on {url} (its documentation: {url}/docs), which takes a few seconds." in printed
    assert f"curl -s '{url}/predict' -H" in printed  # some shells would expand [...]


@pytest.mark.parametrize("options", [["--first-time"], []])
@pytest.mark.parametrize("variable", ["PORT", "PROBE_PORT"])
def test_a_port_that_is_taken_is_named_before_anything_is_made(
    fraudctl: Fraudctl, fresh: dict[str, str], started: Started, variable: str, options: list[str]
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]

        result = fraudctl("serve", *options, env={**fresh, "API_TOKEN": "t", variable: str(port)}, exit_code=2)

    assert f"fraudctl: {variable}: {port} on 127.0.0.1 cannot be opened (Address already in use)" in result.stderr
    assert "Starting" not in result.stdout
    assert (Path("models").exists(), started) == (False, [])


@pytest.mark.parametrize("options", [["--first-time"], []])
@pytest.mark.parametrize("variable", ["FEATURES_FILE", "API_TOKENS_FILE"])
def test_a_wrong_file_of_the_configuration_is_named_before_a_port_that_is_taken(
    fraudctl: Fraudctl, fresh: dict[str, str], started: Started, variable: str, options: list[str]
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        environment = {**fresh, "API_TOKEN": "t", "PORT": str(taken.getsockname()[1]), variable: "nowhere"}

        result = fraudctl("serve", *options, env=environment, exit_code=2)

    assert "nowhere: cannot be read (No such file or directory)" in result.stderr
    assert (Path("models").exists(), started) == (False, [])


def test_a_model_that_cannot_serve_is_named_before_serving_is_announced(
    fraudctl: Fraudctl, fresh: dict[str, str], started: Started
) -> None:
    fraudctl("bootstrap", env=fresh)
    (Path("models") / "current" / ONNX).write_bytes(b"damaged")

    result = fraudctl("serve", "--first-time", env=fresh, exit_code=3)

    assert "model.onnx is not the file that the manifest describes" in result.stderr
    assert "Starting" not in result.stdout
    assert started == []


def test_bootstrap_repeats_safely(fraudctl: Fraudctl, fresh: dict[str, str], tmp_path: Path) -> None:
    for _ in range(2):
        fraudctl("bootstrap", env=fresh)

    assert len(versions(tmp_path / "models")) == 1
    assert (tmp_path / "data" / "requests.db").exists()


def test_a_list_that_is_not_that_of_the_installation_is_named(
    fraudctl: Fraudctl, fresh: dict[str, str], started: Started, capfd: pytest.CaptureFixture[str]
) -> None:
    fraudctl("bootstrap", env=fresh)
    Path("features.json").write_text('{"features": [{"name": "amount"}]}')

    result = fraudctl("serve", "--first-time", env={**fresh, "FEATURES_FILE": "features.json"}, exit_code=3)

    assert "this installation has 1 (amount); set FEATURES_FILE to the list of the store" in capfd.readouterr().err
    assert "Starting" not in result.output
    assert started == []
    fraudctl("features", "check", env=fresh)  # the list that was refused is not remembered


def test_bootstrap_makes_a_baseline_for_other_features(
    fraudctl: Fraudctl,
    tmp_path: Path,
    make_version: Callable[..., str],
    monkeypatch: pytest.MonkeyPatch,
    started: Started,
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    of_the_default_list = make_version(tmp_path / "made", trained_on="synthetic")
    (tmp_path / "made" / of_the_default_list).rename(tmp_path / "baseline")
    (tmp_path / "features.json").write_text('{"features": [{"name": "amount"}]}')
    environment = {"FEATURES_FILE": "features.json"}
    refused = fraudctl("bootstrap", env=environment, exit_code=3)
    is_fraud = np.arange(1000) % 10 == 0
    matrix = np.random.default_rng(1).normal(size=(1000, 1)) + 3.0 * is_fraud[:, None]
    rows = ImportedRows(
        Clock().tick()[1], ["2026-01-01 00:00:00.000000"] * 1000, matrix, is_fraud.tolist(), [None] * 1000
    )
    store = Store.create_or_migrate(tmp_path / "data" / "requests.db", load_features(tmp_path / "features.json"))
    with store.begin() as connection:
        transfer.import_history(store, connection, [rows], reporter="r", received_at="2026-01-01 00:00:00.000000")
    store.close()

    monkeypatch.setattr(
        seed_baseline, "__kwdefaults__", {**(seed_baseline.__kwdefaults__ or {}), "rows": 1000}
    )  # quick
    made = fraudctl("bootstrap", env=environment)
    served = fraudctl("serve", "--first-time", env={"PORT": free_port(), "PROBE_PORT": free_port()})

    assert "import labelled history first" in refused.stderr
    assert made.stderr.startswith("Training the first model on synthetic transactions")
    assert load(tmp_path / "models" / PICKLE, load_features(tmp_path / "features.json"))
    assert f"Transactions have the 1 feature of {tmp_path / 'features.json'}." in served.stdout  # it is remembered
    assert len(started) == 1


def test_bootstrap_accepts_what_is_there_after_a_store_vanished(
    fraudctl: Fraudctl, fresh: dict[str, str], tmp_path: Path
) -> None:
    fraudctl("bootstrap", env=fresh)
    database = tmp_path / "data" / "requests.db"
    mark = Mark(database, tmp_path / "models")

    mark.leave("requests.db: was replaced")
    told_of_a_file = fraudctl("bootstrap", env=fresh).output
    database.unlink()
    mark.leave("requests.db: was removed")
    told_of_none = fraudctl("bootstrap", env=fresh).output

    assert "was replaced" in told_of_a_file
    assert "Accepted: the file there." in told_of_a_file
    assert "was removed" in told_of_none
    assert "Accepted: a new, empty database." in told_of_none
    assert (database.exists(), mark.found) == (True, None)


def test_in_the_image_of_the_jobs_bootstrap_accepts_the_store_and_leaves_the_rest_to_the_api(
    fraudctl: Fraudctl, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "models").mkdir()
    mark = Mark(tmp_path / "data" / "requests.db", tmp_path / "models")
    mark.leave("requests.db: was removed")
    monkeypatch.setitem(sys.modules, "api", None)  # as if it were not installed

    told = fraudctl("bootstrap", env={}).stdout

    assert "Accepted: a new, empty database." in told
    assert "The API, which is not installed here, creates what is missing when it starts." in told
    assert mark.found is None


def test_bootstrap_passes_a_refusal_on(fraudctl: Fraudctl, fresh: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "baseline" / ONNX).write_bytes(b"damaged")

    fraudctl("bootstrap", env=fresh, exit_code=3)
