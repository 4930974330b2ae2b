"""MLflow's UI shows the runs of an installation, and ends with all of its processes."""

import contextlib
import http.client
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import joblib
import psutil
import pytest
from sklearn.ensemble import RandomForestClassifier

from jobs.adopt import adopt
from jobs.rollout.mlflow_ui import CannotOpen, serve_ui
from jobs.upkeep.backup import back_up
from jobs.upkeep.restore import restore
from tests.support.installation import NOW, SmallInstallation, made_up
from tests.support.ports import free_port
from tests.support.project import ROOT
from tests.support.waiting import PATIENCE_SECONDS


class Ui:
    """The UI of an installation, started as a person starts it."""

    def __init__(self, port: int, process: "subprocess.Popen[str]") -> None:
        self.port = port
        self.process = process

    def ask(
        self, method: str, path: str, *, body: object = None, headers: Mapping[str, str] | None = None
    ) -> tuple[int, bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE_SECONDS)
        with contextlib.closing(connection):
            content = None if body is None else json.dumps(body)
            connection.request(method, path, content, {"Content-Type": "application/json", **(headers or {})})
            response = connection.getresponse()
            return response.status, response.read()

    def runs(self) -> list[dict[str, Any]]:
        _, answer = self.ask("POST", "/ajax-api/2.0/mlflow/runs/search", body={"experiment_ids": ["1"]})
        runs: list[dict[str, Any]] = json.loads(answer)["runs"]
        return runs

    def download(self, run: Mapping[str, Any], path: str) -> bytes:
        status, content = self.ask("GET", f"/get-artifact?path={path}&run_uuid={run['info']['run_id']}")
        assert status == 200, content
        return content


@contextlib.contextmanager
def ui_of(installation: SmallInstallation, folder: Path) -> Iterator[Ui]:
    """Run `fraudctl mlflow` in an empty working directory and an empty home; Ctrl-C must end all of it."""
    port = free_port()
    (folder / "home").mkdir(parents=True)
    (folder / "work").mkdir()
    # Variables that a person may have set, which must not reach MLflow.
    hostile = {"MLFLOW_DISABLE_TELEMETRY": "false", "MLFLOW_SERVER_ALLOWED_HOSTS": "*"}
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "fraudctl", "mlflow", "--port", port],
            cwd=folder / "work",
            env={
                **{"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), "HOME": str(folder / "home")},
                **{"TMPDIR": str(folder), **installation.environment},
                **hostile,
            },
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
        )
    assert process.stdout is not None
    with process.stdout as lines:
        try:
            assert f"MLflow's UI is at http://127.0.0.1:{port} " in lines.readline(), (folder / "log").read_text()
            children = psutil.Process(process.pid).children(recursive=True)
            yield Ui(int(port), process)
        finally:
            process.send_signal(signal.SIGINT)
            status = process.wait(PATIENCE_SECONDS)
    assert status == 0
    assert not [child for child in children if child.is_running()]
    assert sorted(path.name for path in folder.iterdir()) == ["home", "log", "work"]
    assert list((folder / "home").iterdir()) == list((folder / "work").iterdir()) == []


def moved(installation: SmallInstallation, folder: Path) -> SmallInstallation:
    folder.mkdir()
    for name in ("data", "models", "features.json"):
        shutil.move(installation.folder / name, folder / name)
    return SmallInstallation(folder)


@pytest.mark.stories
def test_the_ui_shows_the_runs_of_an_installation_wherever_it_was_moved_or_restored(
    trained: SmallInstallation, tmp_path: Path
) -> None:
    second = moved(trained, tmp_path / "a second folder")
    onnx = (second.models_dir / second.settings.model_path.resolve().parent.name / "model.onnx").read_bytes()

    with ui_of(second, tmp_path / "scratch") as ui:
        (run,) = ui.runs()
        assert ui.download(run, "model/model.onnx") == onnx
        assert ui.download(run, "plots/scores.png").startswith(b"\x89PNG")
        status, answer = ui.ask("POST", "/api/2.0/mlflow/experiments/search", body={"max_results": 9})
        assert (status, b'"FraudDetection"' in answer) == (200, True)
        status, page = ui.ask("GET", "/")
        assert (status, page[:15]) == (200, b"<!doctype html>")
        _, telemetry = ui.ask("GET", "/ajax-api/3.0/mlflow/ui-telemetry")
        assert json.loads(telemetry)["disable_ui_telemetry"] is True
        for headers in ({"Host": "evil.example"}, {"Host": "192.168.0.7"}, {"Origin": "https://evil.example"}):
            status, _ = ui.ask("POST", "/ajax-api/2.0/mlflow/runs/search", body={}, headers=headers)
            assert status == 403, headers

    pickled = tmp_path / "theirs.pkl"
    matrix, is_fraud = made_up(500, seed=1)
    joblib.dump(RandomForestClassifier(20, random_state=1).fit(matrix, is_fraud.astype(int)), pickled)
    adopted = adopt(pickled, second.here, actor="an analyst", now=datetime.now(UTC))
    back_up(tmp_path / "backup", second.here, now=NOW)
    shutil.rmtree(second.folder)
    third = SmallInstallation(tmp_path / "a third folder")
    third.folder.mkdir()
    restore(tmp_path / "backup", third.make().here, actor="an analyst", replace=True)

    with ui_of(third, tmp_path / "scratch again") as ui:
        newest, first = ui.runs()
        assert ui.download(first, "model/model.onnx") == onnx
        assert (
            ui.download(newest, "model/model.onnx") == (third.models_dir / adopted.version / "model.onnx").read_bytes()
        )
        tags = {tag["key"]: tag["value"] for tag in newest["data"]["tags"]}
        assert tags["mlflow.note.content"] == (
            f"{adopted.version} was adopted from theirs.pkl. How good it is, is unknown."
        )


def serve(folder: Path, port: int) -> None:
    serve_ui(folder, port, os.environ, when_ready=print)


def test_a_port_that_is_taken_is_said(tmp_path: Path) -> None:
    (tmp_path / "mlflow.db").touch()
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]

        with pytest.raises(
            CannotOpen, match=rf"^port {port} cannot be used \(Address already in use\)\. Choose another"
        ):
            serve(tmp_path, port)


def test_without_any_run_there_is_nothing_to_show(tmp_path: Path) -> None:
    with pytest.raises(CannotOpen, match=r"mlflow\.db: does not exist\. `fraudctl retrain` records the first run\."):
        serve(tmp_path, int(free_port()))

    assert list(tmp_path.iterdir()) == []


def test_a_server_that_does_not_start_is_said(tmp_path: Path) -> None:
    (tmp_path / "mlflow.db").write_text("no database")

    with pytest.raises(CannotOpen, match="MLflow's server stopped with status 1"):
        serve(tmp_path, int(free_port()))
