"""Look at a kind cluster, and do there what a person does with kubectl."""

import contextlib
import json
import re
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeVar

import kubernetes

Found = TypeVar("Found")

PATIENCE_SECONDS = 180.0
RESTRICTED = {"pod-security.kubernetes.io/enforce": "restricted"}


def wait_for(what: str, look: Callable[[], Found | None], *, seconds: float = PATIENCE_SECONDS) -> Found:
    """Look once a second until there is something, and return it."""
    deadline = time.monotonic() + seconds
    while True:
        found = look()
        if found:
            return found
        assert time.monotonic() < deadline, f"{what}: not after {seconds:.0f} s"
        time.sleep(1)


@dataclass(frozen=True)
class Cluster:
    """A kind cluster by its name."""

    name: str

    @property
    def context(self) -> str:
        """Its name for kubectl and Helm."""
        return f"kind-{self.name}"

    @cached_property
    def api(self) -> Any:
        """A connection to the Kubernetes API with the rights of an administrator."""
        connect: Any = kubernetes.config.new_client_from_config
        return connect(context=self.context)

    @cached_property
    def core(self) -> Any:
        return kubernetes.client.CoreV1Api(self.api)

    @cached_property
    def apps(self) -> Any:
        return kubernetes.client.AppsV1Api(self.api)

    @cached_property
    def batch(self) -> Any:
        return kubernetes.client.BatchV1Api(self.api)

    def kubectl(
        self, *arguments: str, stdin: str | None = None, exit_code: int | None = 0
    ) -> "subprocess.CompletedProcess[str]":
        """Run kubectl; any exit code will do when it is None."""
        command = ["kubectl", "--context", self.context, *arguments]
        done = subprocess.run(command, input=stdin, capture_output=True, text=True, check=False, timeout=600)
        if exit_code is not None:
            assert done.returncode == exit_code, f"{' '.join(arguments)}: {done.stdout}{done.stderr}"
        return done

    def prometheus(self, path: str, **parameters: str) -> Any:
        """Return the data of an answer of the cluster's Prometheus, reached through the Kubernetes API."""
        service = "/api/v1/namespaces/monitoring/services/prometheus-operated:9090/proxy/api/v1"
        url = f"{self.api.configuration.host}{service}/{path}"
        answer = self.api.rest_client.pool_manager.request("GET", url, fields=parameters, timeout=30)
        assert answer.status == 200, f"{parameters}: {answer.data.decode()}"
        return answer.json()["data"]

    def series(self, query: str) -> list[dict[str, Any]]:
        """Return what Prometheus finds for a query now."""
        found: list[dict[str, Any]] = self.prometheus("query", query=query)["result"]
        return found

    def namespace(self, name: str) -> "Namespace":
        """Make an empty namespace that enforces the Pod Security standard `restricted`."""
        metadata = kubernetes.client.V1ObjectMeta(name=name, labels=RESTRICTED)
        self.core.create_namespace(kubernetes.client.V1Namespace(metadata=metadata))
        wait_for("the namespace's default account", lambda: self._has_account(name), seconds=60)
        return Namespace(self, name)

    def _has_account(self, namespace: str) -> bool:
        return bool(self.core.list_namespaced_service_account(namespace).items)


@dataclass(frozen=True)
class EndedJob:
    """How a job ended."""

    succeeded: bool
    exit_codes: list[int]
    """Of its pods, in the order in which they ran."""
    log: str
    seconds: float


@dataclass(frozen=True)
class Namespace:
    """One namespace of the cluster."""

    cluster: Cluster
    name: str

    def kubectl(
        self, *arguments: str, stdin: str | None = None, exit_code: int | None = 0
    ) -> "subprocess.CompletedProcess[str]":
        """Run kubectl here."""
        return self.cluster.kubectl("--namespace", self.name, *arguments, stdin=stdin, exit_code=exit_code)

    def execute(self, where: str, *command: str, stdin: str | None = None) -> str:
        """Run a command in a pod by `kubectl exec -i WHERE -- COMMAND`, and return what it printed."""
        return self.kubectl("exec", "--stdin", where, "--", *command, stdin=stdin).stdout

    def create(self, *manifests: dict[str, Any]) -> None:
        """Create these objects; `kubectl apply` would keep a second copy in an annotation, whose size is limited."""
        self.kubectl("create", "--filename", "-", stdin="\n---\n".join(map(json.dumps, manifests)))

    def pods(self, selector: str) -> list[Any]:
        """Return the pods that a label selector finds and that are not being deleted, the oldest first."""
        found = self.cluster.core.list_namespaced_pod(self.name, label_selector=selector).items
        return sorted(
            (pod for pod in found if pod.metadata.deletion_timestamp is None),
            key=lambda pod: (pod.metadata.creation_timestamp, pod.metadata.name),
        )

    def start_job(self, cronjob: str, name: str, *, arguments: tuple[str, ...] = ()) -> str:
        """Run `kubectl create job NAME --from=cronjob/CRONJOB`, if wanted with more arguments; return the name."""
        create = ("create", "job", name, f"--from=cronjob/{cronjob}")
        if not arguments:
            self.kubectl(*create)
            return name
        job = json.loads(self.kubectl(*create, "--dry-run=client", "--output=json").stdout)
        job["spec"]["template"]["spec"]["containers"][0]["command"] += arguments
        self.kubectl("create", "--filename", "-", stdin=json.dumps(job))
        return name

    def wait_for_job(self, name: str, *, seconds: float = 600) -> EndedJob:
        """Wait until a job has succeeded or failed."""
        started = time.monotonic()
        verdict = wait_for(f"job {name}", lambda: self._verdict(name), seconds=seconds)
        pods = self.pods(f"job-name={name}")
        ends = [pod.status.container_statuses[0].state.terminated for pod in pods if pod.status.container_statuses]
        log = "".join(self.kubectl("logs", pod.metadata.name, exit_code=None).stdout for pod in pods)
        codes = [end.exit_code for end in ends if end is not None]
        return EndedJob(verdict == "Complete", codes, log, time.monotonic() - started)

    def _verdict(self, job: str) -> str | None:
        conditions = self.cluster.batch.read_namespaced_job(job, self.name).status.conditions or []
        held = [condition.type for condition in conditions if condition.status == "True"]
        return next((kind for kind in held if kind in {"Complete", "Failed"}), None)

    @contextlib.contextmanager
    def port_forward(self, where: str, port: int) -> Iterator[int]:
        """Run `kubectl port-forward WHERE :PORT`; yield the port of 127.0.0.1, which leads to one pod while it runs."""
        command = ["kubectl", "--context", self.cluster.context, "--namespace", self.name]
        command += ["port-forward", where, f":{port}"]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        try:
            assert process.stdout is not None
            said = process.stdout.readline()
            found = re.search(r"127\.0\.0\.1:(\d+)", said)
            assert found, f"port-forward {where}: {said}"
            yield int(found[1])
        finally:
            process.terminate()
            process.communicate(timeout=30)

    def delete(self) -> None:
        """Delete everything, without waiting for it."""
        self.cluster.core.delete_namespace(self.name)
