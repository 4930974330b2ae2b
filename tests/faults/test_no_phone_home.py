"""Serving, drift, retraining and MLflow's UI open no connection that was not configured; seen in their system calls."""

import os
import re
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import psutil
import pytest

from fraud_detection.features import FeatureList
from fraud_detection.model.files import PICKLE
from fraud_detection.model.read import journal
from jobs.synthetic.baseline import seed_baseline
from jobs.synthetic.statistics import PUBLIC_STATISTICS, read_statistics
from jobs.synthetic.transactions import synthetic
from tests.support.environment import TOKEN
from tests.support.ports import free_port
from tests.support.project import ROOT
from tests.support.service import post, service

pytestmark = pytest.mark.faults

PUSHGATEWAY = "127.0.0.1:9"  # no process listens there, and a job that cannot report goes on
ROWS = 2000
PATIENCE_SECONDS = 300


@dataclass(frozen=True)
class Watched:
    """The system calls of a program and its children."""

    trace: str

    def destinations(self) -> set[str]:
        """Return every address that was connected or sent to, as host:port, without local sockets of the kernel."""
        found = set()
        for call in re.findall(r"\b(?:connect|sendto|sendmsg|sendmmsg)\(.*", self.trace):
            for family, rest in re.findall(r"sa_family=(AF_\w+)(.*)", call):
                if family not in {"AF_UNIX", "AF_LOCAL", "AF_NETLINK"}:
                    address = re.search(r'inet_(?:addr\(|pton\(AF_INET6, )"([^"]+)"', rest)
                    port = re.search(r"sin6?_port=htons\((\d+)\)", rest)
                    found.add(f"{address[1]}:{port[1]}" if address and port else f"{family}{rest}")
        return found

    def device_files(self) -> set[str]:
        """Return every path under which ONNX Runtime's telemetry would keep its database and device id."""
        return set(re.findall(r'"([^"]*Microsoft[^"]*)"', self.trace))


@dataclass(frozen=True)
class Watcher:
    """Runs programs under strace in an installation of their own."""

    strace: str
    folder: Path
    environment: Mapping[str, str]

    def command(self, name: str) -> list[str]:
        """Return the command to put before a program, so that its trace is kept under this name."""
        watched = "trace=connect,sendto,sendmsg,sendmmsg,open,openat,creat,mkdir,mkdirat"
        return [
            self.strace, "--follow-forks", "--seccomp-bpf", "-s", "300", "-e", watched, "-o", str(self._path(name))
        ]  # fmt: skip

    def run(self, name: str, arguments: Sequence[str]) -> subprocess.CompletedProcess[str]:
        """Run Python with these arguments to its end."""
        return subprocess.run(
            [*self.command(name), sys.executable, *arguments],
            cwd=ROOT,
            env={"PATH": os.environ["PATH"], **self.environment},
            capture_output=True,
            text=True,
            timeout=PATIENCE_SECONDS,
            check=False,
        )

    def seen(self, name: str) -> Watched:
        return Watched(self._path(name).read_text(errors="replace"))

    def _path(self, name: str) -> Path:
        return self.folder / f"{name}.trace"


@pytest.fixture(scope="module")
def watcher(strace: str, tmp_path_factory: pytest.TempPathFactory, features: FeatureList) -> Watcher:
    """An installation with a small synthetic baseline and a home directory of its own."""
    folder = tmp_path_factory.mktemp("watched")
    (folder / "home").mkdir()
    seed_baseline(
        folder / "baseline",
        features,
        read_statistics(PUBLIC_STATISTICS),
        threshold=0.4,
        now=datetime.now(UTC),
        rows=5000,
    )
    environment = {
        "HOME": str(folder / "home"),
        "API_TOKEN": TOKEN,
        "BASELINE_DIR": str(folder / "baseline"),
        "MODEL_PATH": str(folder / "models" / PICKLE),
        "LATEST_DB": str(folder / "data" / "requests.db"),
        "TRAIN_DB": str(folder / "data" / "requests.db"),
        "DRIFT_RESULT": str(folder / "data" / "drift_result.json"),
        "PUSHGATEWAY_URL": f"http://{PUSHGATEWAY}",
        "LABEL_MATURITY_DAYS": "0",
        "GATE_MIN_FRAUDS": "5",
    }
    return Watcher(strace, folder, environment)


def batches(rows: Iterable[list[float]], size: int) -> list[list[list[float]]]:
    every = list(rows)
    return [every[start : start + size] for start in range(0, len(every), size)]


@pytest.fixture(scope="module")
def tour(watcher: Watcher) -> Watcher:
    """Serve, label, look for drift, retrain and load the new model, under strace."""
    watcher.run("bootstrap", ["-m", "api.bootstrap"]).check_returncode()
    api = service(watcher.environment, watcher.folder / "service.log")
    made = synthetic(ROWS, seed=2, fraud_share=0.2)
    labels = []
    with api.running(under=watcher.command("serving")), api.connection() as connection:
        for number, rows in enumerate(batches(made.matrix.tolist(), 100)):
            status, answer = post(connection, "/predict", {"data": rows})
            assert status == 200, answer
            labels += [
                {"request_id": answer["request_id"], "row": row, "is_fraud": bool(is_fraud), "source": "analyst"}
                for row, is_fraud in enumerate(made.is_fraud[100 * number : 100 * number + 100])
            ]
        status, answer = post(connection, "/labels", {"labels": labels[:1000]})
        assert status == 200, answer
        drift = watcher.run("drift", ["-m", "jobs.detect_drift"])
        assert drift.returncode == 0, drift.stderr
        retraining = watcher.run("retraining", ["-m", "jobs.retrain", "--force"])
        assert retraining.returncode == 0, retraining.stderr
        promoted = [entry["digest"] for entry in journal(watcher.folder / "models") if entry["event"] == "promoted"]
        with api.connection() as later:  # the API closes a connection that is idle for as long as a slow training
            _, answer = post(later, "/predict", {"data": made.matrix[:1].tolist()})
        assert answer["model_version"].endswith(promoted[1][:12]), retraining.stderr
    return watcher


def test_serving_opens_no_connection(tour: Watcher) -> None:
    assert tour.seen("bootstrap").destinations() == set()
    assert tour.seen("serving").destinations() == set()


@pytest.mark.parametrize("job", ["drift", "retraining"])
def test_a_job_connects_only_to_what_was_configured(tour: Watcher, job: str) -> None:
    assert tour.seen(job).destinations() == {PUSHGATEWAY}


def test_the_ui_of_mlflow_opens_no_connection(tour: Watcher) -> None:
    port = free_port()
    ui = subprocess.Popen(
        [*tour.command("ui"), sys.executable, "-m", "fraudctl", "mlflow", "--port", port],
        cwd=ROOT,
        env={"PATH": os.environ["PATH"], **tour.environment},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert ui.stdout is not None
    with ui.stdout as lines:
        assert f"http://127.0.0.1:{port}" in lines.readline()
        for path, body in {
            "/": None,
            "/ajax-api/3.0/mlflow/ui-telemetry": None,
            "/ajax-api/3.0/mlflow/ui-telemetry?": b'{"records": [{"event_name": "a test"}]}',
            "/ajax-api/2.0/mlflow/experiments/search": b'{"max_results": 10}',
        }.items():
            url, headers = f"http://127.0.0.1:{port}{path}", {"Content-Type": "application/json"}
            request = urllib.request.Request(url, body, headers)
            with urllib.request.urlopen(request, timeout=PATIENCE_SECONDS) as answer:  # noqa: S310  our own address
                assert answer.status == 200
        (program,) = psutil.Process(ui.pid).children()
        program.send_signal(signal.SIGINT)
        assert ui.wait(PATIENCE_SECONDS) == 0

    assert tour.seen("ui").destinations() == {f"127.0.0.1:{port}"}  # the command asks whether it answers


@pytest.mark.parametrize("name", ["bootstrap", "serving", "drift", "retraining"])
def test_no_device_id_is_kept(tour: Watcher, name: str) -> None:
    assert "onnxruntime" in tour.seen(name).trace
    assert tour.seen(name).device_files() == set()
    assert not list((tour.folder / "home").rglob("*Microsoft*"))


UNCONFIGURED = """
import pathlib, socket, subprocess, sys
if sys.argv[1:]:
    pathlib.Path.home().joinpath(".cache/Microsoft").mkdir(parents=True)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as datagram:
        datagram.sendto(b"hello", ("127.0.0.1", 10))
    with socket.socket() as stream:
        stream.connect_ex(("127.0.0.1", 9))
    with socket.socket(socket.AF_INET6) as stream:
        stream.connect_ex(("::1", 11))
else:
    subprocess.run([sys.executable, "-c", sys.orig_argv[2], "again"], check=True)
"""


def test_a_connection_of_a_child_is_seen(watcher: Watcher, tmp_path: Path) -> None:
    """The control: a connection such as a telemetry opens, on the loopback."""
    elsewhere = Watcher(watcher.strace, tmp_path, {"HOME": str(tmp_path)})

    elsewhere.run("control", ["-c", UNCONFIGURED]).check_returncode()

    assert elsewhere.seen("control").destinations() >= {"127.0.0.1:9", "127.0.0.1:10"}
    assert elsewhere.seen("control").device_files() == {f"{tmp_path}/.cache/Microsoft"}
