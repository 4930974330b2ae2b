"""Install the chart in a namespace, and use it as its users and operators do."""

import contextlib
import csv
import json
import os
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import requests

from tests.e2e.cluster import Namespace, wait_for
from tests.support.project import CHART

NAME = "fraud-detection"  # so that everything of it is called fraud-detection-…
TOKEN = "a-token-for-the-cluster"
SECRET = "fraud-token"
MODELS = "/app/models"
LABELS = f"app.kubernetes.io/instance={NAME}"
API_PODS = f"{LABELS},app.kubernetes.io/component=api"

Values = Mapping[str, Any]
Installed = Callable[..., Any]
"""The type of the fixture `installed`."""


@dataclass(frozen=True)
class Api:
    """The API of a release, over a connection that leads to one of its pods."""

    url: str

    def ask(self, method: str, path: str, *, token: str | None = TOKEN, **arguments: Any) -> requests.Response:
        """Send a request; None is no token."""
        headers = {} if token is None else {"Authorization": f"Bearer {token}"}
        return requests.request(method, self.url + path, headers=headers, timeout=30, **arguments)

    def get(self, path: str) -> dict[str, Any]:
        """Return the answer to a GET."""
        return self._document(self.ask("GET", path))

    def predict(self, rows: Sequence[Sequence[float]], transaction_ids: Sequence[str]) -> list[float]:
        """Score transactions, a thousand per request."""
        scores: list[float] = []
        for start in range(0, len(rows), 1000):
            part = slice(start, start + 1000)
            body = {"data": rows[part], "transaction_ids": transaction_ids[part]}
            scores += self._document(self.ask("POST", "/predict", json=body))["fraud_probability"]
        return scores

    def label(self, transaction_ids: Sequence[str], truths: Sequence[int]) -> None:
        """Label transactions."""
        labels = [
            {"transaction_id": name, "is_fraud": bool(truth), "source": "chargeback"}
            for name, truth in zip(transaction_ids, truths, strict=True)
        ]
        for start in range(0, len(labels), 1000):
            self._document(self.ask("POST", "/labels", json={"labels": labels[start : start + 1000]}))

    @staticmethod
    def _document(answer: requests.Response) -> dict[str, Any]:
        assert answer.status_code == 200, f"{answer.status_code} {answer.text}"
        document: dict[str, Any] = answer.json()
        return document


@dataclass(frozen=True)
class Release:
    """The chart, installed."""

    namespace: Namespace
    values: Values
    chart: Path = CHART

    def helm(self, *arguments: str, values: Values | None = None) -> str:
        """Run Helm in the namespace and return what it printed."""
        command = [os.environ.get("HELM", "helm"), "--kube-context", self.namespace.cluster.context]
        command += ["--namespace", self.namespace.name, *arguments]
        given = None if values is None else json.dumps(values)
        done = subprocess.run(command, input=given, capture_output=True, text=True, check=False, timeout=600)
        assert done.returncode == 0, f"{' '.join(arguments)}: {done.stdout}{done.stderr}"
        return done.stdout

    def upgrade(self, **values: Any) -> float:
        """Run `helm upgrade --install --wait` with these values over those of the release; return how long it took."""
        started = time.monotonic()
        all_values = merged(self.values, values)
        arguments = ("upgrade", "--install", NAME, str(self.chart), "--wait", "--timeout", "5m", "--values", "-")
        self.helm(*arguments, values=all_values)
        return time.monotonic() - started

    @contextlib.contextmanager
    def api(self, where: str = f"service/{NAME}-api") -> Iterator[Api]:
        """Yield the API as a developer reaches it, through `kubectl port-forward`."""
        with self.namespace.port_forward(where, 5000) as port:
            yield Api(f"http://127.0.0.1:{port}")

    def get(self, path: str) -> dict[str, Any]:
        """Return the answer to one GET."""
        with self.api() as api:
            return api.get(path)

    def pods(self) -> list[Any]:
        """Return the pods of the API that are not being deleted."""
        return self.namespace.pods(API_PODS)

    def api_pod(self) -> str:
        """Return the name of the one ready pod of the API."""
        return str(wait_for("a ready pod of the API", self._ready_pod))

    def _ready_pod(self) -> str | None:
        ready = [pod.metadata.name for pod in self.pods() if is_ready(pod)]
        return ready[0] if ready else None

    def in_api(self, *command: str, stdin: str | None = None) -> str:
        """Run a command beside the API, as `kubectl exec` does."""
        return self.namespace.execute(f"pod/{self.api_pod()}", *command, stdin=stdin)

    def sql(self, statement: str) -> list[list[str]]:
        """Return the rows that the sqlite3 of the API's pod prints."""
        printed = self.in_api("sqlite3", "/app/data/requests.db", statement)
        return [line.split("|") for line in printed.splitlines()]

    @property
    def deployment(self) -> Any:
        """The API's Deployment as it is now."""
        return self.namespace.cluster.apps.read_namespaced_deployment(f"{NAME}-api", self.namespace.name)

    def wait_until_rolled_out(self) -> None:
        """Return when only new pods of the API run, and the old ones, which clients still use, have ended.

        A roll-out that is late for its deadline, as after a model that does not load, is completed nevertheless.
        """
        wait_for("the new pods", self._is_rolled_out)
        wait_for("the end of the old pods", self._has_only_wanted_pods)

    def _is_rolled_out(self) -> bool:
        rollout = ("rollout", "status", f"deployment/{NAME}-api", "--timeout=180s")
        return self.namespace.kubectl(*rollout, exit_code=None).returncode == 0

    def _has_only_wanted_pods(self) -> bool:
        pods = self.namespace.cluster.core.list_namespaced_pod(self.namespace.name, label_selector=API_PODS).items
        wanted = [pod for pod in pods if is_ready(pod) and pod.metadata.deletion_timestamp is None]
        return bool(len(pods) == len(wanted) == self.deployment.spec.replicas)

    def start_job(self, job: str, name: str, *, force: bool = False) -> str:
        """Start `detect-drift`, `retrain` or `fraudctl` now, `force` with --force."""
        return self.namespace.start_job(f"{NAME}-{job}", name, arguments=("--force",) if force else ())

    def kill_container(self, pod: Any) -> None:
        """Send SIGKILL to the first process of a container from its node, because inside a first process is immune."""
        container = pod.status.container_statuses[0].container_id.removeprefix("containerd://")
        kill = ["ctr", "--namespace", "k8s.io", "tasks", "kill", "--signal", "SIGKILL", container]
        subprocess.run(["docker", "exec", pod.spec.node_name, *kill], check=True, capture_output=True, timeout=60)

    @contextlib.contextmanager
    def admin(self) -> Iterator["Admin"]:
        """Run the pod for `fraudctl`, as docs/operations.md says."""
        self.start_job("fraudctl", "admin")
        self.namespace.kubectl("wait", "job/admin", "--for=jsonpath={.status.ready}=1", "--timeout=180s")
        try:
            yield Admin(self.namespace)
        finally:
            self.namespace.kubectl("delete", "job", "admin")

    def current(self) -> "Current":
        """Return the version that the link on the volume names."""
        manifest = json.loads(self.in_api("cat", f"{MODELS}/current/manifest.json"))
        sums = self.in_api("sha256sum", f"{MODELS}/current/model.onnx", f"{MODELS}/current/reference_data.db")
        model, reference = (line.split()[0] for line in sums.splitlines())
        version = self.in_api("readlink", f"{MODELS}/current").strip()
        return Current(version, manifest, model, reference)


@dataclass(frozen=True)
class Current:
    """A version on the volume: what its manifest says, and the sums of the bytes beside it."""

    version: str
    manifest: dict[str, Any]
    model_sha256: str
    reference_sha256: str


@dataclass(frozen=True)
class Admin:
    """The pod for `fraudctl`, with all volumes and no token."""

    namespace: Namespace

    def run(self, *command: str, stdin: str | None = None) -> str:
        """Run a command in it."""
        return self.namespace.execute("job/admin", *command, stdin=stdin)

    def sql(self, statement: str) -> list[list[str]]:
        """Return the rows that `fraudctl db query` prints, with either database."""
        _names, *rows = csv.reader(self.run("fraudctl", "db", "query", statement).splitlines())
        return rows


def is_ready(pod: Any) -> bool:
    """Say whether a pod takes requests."""
    return any(each.type == "Ready" and each.status == "True" for each in pod.status.conditions or [])


def merged(values: Values, more: Values) -> dict[str, Any]:
    """Return values overridden by others, as Helm does with two files."""
    result = dict(values)
    for name, value in more.items():
        both = isinstance(value, Mapping) and isinstance(result.get(name), Mapping)
        result[name] = merged(result[name], value) if both else value
    return result
