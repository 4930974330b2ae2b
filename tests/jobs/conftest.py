"""What the tests of the jobs share: an MLflow database and a first model, made once, because they take seconds."""

import json
import shutil
import threading
from collections.abc import Callable, Iterator
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import joblib
import pytest

from fraud_detection.model.read import ModelRefused
from fraud_detection.settings import ClientSettings
from jobs.retrain import retrain
from jobs.rollout import deployment, running_api
from jobs.training import challenger
from jobs.training.usable import ExportFailed, require_usable
from tests.support.installation import NOW, SmallInstallation, made_up
from tests.support.kubernetes_api import NAME, Cluster, Pods
from tests.support.mlflow_store import mlflow_client
from tests.support.waiting import PATIENCE_SECONDS


@pytest.fixture(scope="session")
def _empty_mlflow(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("mlflow")
    mlflow_client(folder)
    return folder / "mlflow.db"


@pytest.fixture
def with_mlflow(_empty_mlflow: Path) -> Callable[[Path], None]:
    """Put an empty MLflow database into a folder: with_mlflow(folder)."""

    def copy(folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copy(_empty_mlflow, folder / "mlflow.db")

    return copy


@pytest.fixture
def checked_here(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let this process load each new version; a new one, which test_usable.py starts, needs seconds for its imports."""

    def problem_here(directory: Path) -> str | None:
        try:
            require_usable(directory, read=joblib.load)
        except (ModelRefused, ExportFailed) as problem:
            return str(problem)
        return None

    monkeypatch.setattr(challenger, "loads_in_fresh_process", problem_here)


@pytest.fixture
def installation(tmp_path: Path, checked_here: None, with_mlflow: Callable[[Path], None]) -> SmallInstallation:
    """An installation of three features that has neither transactions nor a model."""
    with_mlflow(tmp_path / "data")
    return SmallInstallation(tmp_path).make()


@pytest.fixture(scope="session")
def _trained(tmp_path_factory: pytest.TempPathFactory, _empty_mlflow: Path) -> Path:
    folder = tmp_path_factory.mktemp("trained")
    (folder / "data").mkdir()
    shutil.copy(_empty_mlflow, folder / "data" / "mlflow.db")
    made = SmallInstallation(folder).make()
    made.import_labelled(*made_up(1000, seed=1), age_days=100)
    assert retrain(made.settings, now=NOW - timedelta(days=60)).outcome == "promoted"
    return folder


@pytest.fixture
def trained(tmp_path: Path, checked_here: None, _trained: Path) -> SmallInstallation:
    """An installation whose first real model was promoted 60 days before NOW, from labelled history."""
    shutil.copytree(_trained, tmp_path, symlinks=True, dirs_exist_ok=True)
    return SmallInstallation(tmp_path)


@pytest.fixture
def api_that_stays() -> Iterator[Callable[[str], ClientSettings]]:
    """Start an API whose GET /model always answers one digest, or a status: api_that_stays("abc…"), ("503")."""
    servers: list[ThreadingHTTPServer] = []

    def start(digest: str) -> ClientSettings:
        class Answers(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                is_known = self.headers["Authorization"] == "Bearer the-token" and not digest.isdecimal()
                self.send_response(200 if is_known else int(digest) if digest.isdecimal() else 401)
                self.end_headers()
                self.wfile.write(json.dumps({"digest": digest}).encode())

            def log_request(self, *_: object) -> None:
                return

        servers.append(ThreadingHTTPServer(("127.0.0.1", 0), Answers))
        threading.Thread(target=servers[-1].serve_forever, daemon=True).start()
        return ClientSettings(api_url=f"http://127.0.0.1:{servers[-1].server_port}", api_token="the-token")

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Cluster:
    """A Kubernetes cluster in whose pod the test runs; jobs ask it every 10 ms."""
    import kubernetes.client  # noqa: F401, PLC0415  takes seconds on a busy machine, and is not for a deadline to pay

    account = tmp_path / "serviceaccount"
    account.mkdir()
    monkeypatch.setattr(deployment, "SERVICE_ACCOUNT", account)
    monkeypatch.setattr(deployment, "ASK_EVERY_SECONDS", 0.01)
    return Cluster(account)


@pytest.fixture
def in_cluster(cluster: Cluster) -> Iterator[dict[str, str]]:
    """The variables that Kubernetes sets in a pod; its API answers."""
    server = cluster.start()
    yield {"KUBERNETES_SERVICE_HOST": "127.0.0.1", "KUBERNETES_SERVICE_PORT": str(server.server_port)}
    server.shutdown()
    server.server_close()


@pytest.fixture
def pods(
    installation: SmallInstallation, cluster: Cluster, in_cluster: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> Iterator[Pods]:
    """The API's pods in that cluster; the variables of the installation say that its jobs restart them."""
    monkeypatch.setattr(running_api, "_ASK_EVERY_SECONDS", 0.01)
    pods = Pods(installation.models_dir)
    cluster.replace_pods = pods.restart
    server = pods.start()
    installation.variables |= {
        **in_cluster,
        "ROLLOUT_MODE": "restart",
        "ROLLOUT_DEPLOYMENT": NAME,
        "ROLLOUT_TIMEOUT_SECONDS": str(PATIENCE_SECONDS),
        "API_URL": f"http://127.0.0.1:{server.server_port}",
        "API_TOKEN": "the-token",
    }
    yield pods
    server.shutdown()
    server.server_close()
