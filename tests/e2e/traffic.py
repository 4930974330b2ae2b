"""Send constant traffic from a pod beside the API (load.py), and compare its answers with the store."""

import contextlib
import itertools
import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.e2e.cluster import Namespace, wait_for
from tests.e2e.release import NAME, SECRET, Release

RATE = 60.0
LEAST_RATE = 50.0
"""What a claim about load has to hold under, in requests a second."""
_STOP = "import os, signal; os.kill(1, signal.SIGTERM)"


@dataclass(frozen=True)
class Seen:
    """What a client saw from its first request to its last."""

    answers: list[dict[str, Any]]
    """One for each transaction that was stored, with request_id and score."""
    failures: list[dict[str, Any]]
    """One for each transaction that was not, with the problem."""
    seconds: float

    @property
    def rate(self) -> float:
        """Requests per second."""
        return (len(self.answers) + len(self.failures)) / self.seconds

    @property
    def digests(self) -> list[str]:
        """Which models answered, in the order of their first answers."""
        return list(dict.fromkeys(answer["digest"] for answer in sorted(self.answers, key=lambda each: each["at"])))

    @property
    def gaps_seconds(self) -> list[float]:
        """The seconds from each answer to the next."""
        times: list[float] = sorted(answer["at"] for answer in self.answers)
        return [after - before for before, after in itertools.pairwise(times)]

    def last_failure_before(self, moment: float) -> float:
        """Return when the last failed request that was sent before this moment failed, in seconds since 1970, or 0."""
        ends: list[float] = [each["at"] + each["took"] for each in self.failures if each["at"] < moment]
        return max(ends, default=0.0)

    def __str__(self) -> str:
        """Return a summary for people."""
        return (
            f"{len(self.answers) + len(self.failures):,} requests at {self.rate:.0f}/s, "
            f"{len(self.failures)} failed, longest gap {max(self.gaps_seconds):.2f} s"
        )

    def failed_with(self) -> dict[str, int]:
        """Return how often each problem occurred."""
        return dict(Counter(failure["problem"][:200] for failure in self.failures))


@dataclass(frozen=True)
class Traffic:
    """A running client."""

    namespace: Namespace
    pod: str

    def stop(self) -> Seen:
        """Stop it, and return what it saw."""
        # Any exit code will do: the command may be killed with the container that it ends.
        self.namespace.kubectl("exec", f"pod/{self.pod}", "--", "python", "-c", _STOP, exit_code=None)
        wait_for(f"pod {self.pod} to end", self._has_ended, seconds=60)
        *lines, end = map(json.loads, self.namespace.kubectl("logs", self.pod).stdout.splitlines())
        assert len(lines) == end["sent"], "the node has deleted a part of the load's log: make the test shorter"
        answers = [line for line in lines if "request_id" in line]
        return Seen(answers, [line for line in lines if "request_id" not in line], end["seconds"])

    def _has_ended(self) -> bool:
        return bool(
            self.namespace.cluster.core.read_namespaced_pod(self.pod, self.namespace.name).status.phase == "Succeeded"
        )


@contextlib.contextmanager
def traffic(release: Release, rows: Sequence[Sequence[float]], *, name: str, attempts: int = 1) -> Iterator[Traffic]:
    """Score these transactions in turn until the block ends; `name` starts the transaction ids and names the pod."""
    namespace = release.namespace
    files = {"load.py": Path(__file__).with_name("load.py").read_text(), "rows.json": json.dumps(rows[:1000])}
    config = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": files}
    namespace.create(config, _pod(name, _jobs_image(release), attempts))
    try:
        namespace.kubectl("wait", f"pod/{name}", "--for=condition=Ready", "--timeout=120s")
        wait_for("the first answer", lambda: namespace.kubectl("logs", name, "--tail=1").stdout, seconds=60)
        yield Traffic(namespace, name)
    finally:
        namespace.kubectl("delete", "pod", name, "--grace-period=1", "--wait=false")


def _jobs_image(release: Release) -> str:
    cronjob = release.namespace.cluster.batch.read_namespaced_cron_job(f"{NAME}-fraudctl", release.namespace.name)
    return str(cronjob.spec.job_template.spec.template.spec.containers[0].image)


def _pod(name: str, image: str, attempts: int) -> dict[str, Any]:
    load = ["python", "/load/load.py", "--rows=/load/rows.json", f"--name={name}", f"--rate={RATE}"]
    container = {
        "name": "load",
        "image": image,
        "command": [*load, "--connections=8", f"--attempts={attempts}"],
        "env": [
            {"name": "API_URL", "value": f"http://{NAME}-api:5000"},
            {"name": "API_TOKEN", "valueFrom": {"secretKeyRef": {"name": SECRET, "key": "api-token"}}},
        ],
        "resources": {"requests": {"cpu": "50m", "memory": "64Mi"}},
        "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
        "volumeMounts": [{"name": "load", "mountPath": "/load"}],
    }
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name},
        "spec": {
            "restartPolicy": "Never",
            "automountServiceAccountToken": False,
            "securityContext": {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}},
            "containers": [container],
            "volumes": [{"name": "load", "configMap": {"name": name}}],
        },
    }


Stored = Mapping[str, Sequence[tuple[str, float]]]
"""Request id and score of every row, by transaction id."""


def stored_rows(ask: Callable[[str], Sequence[Sequence[str]]], name: str) -> Stored:
    """Return the stored transactions whose ids start with this name; `ask` runs SQL there."""
    found: dict[str, list[tuple[str, float]]] = {}
    columns = "transaction_id, request_id, fraud_probability"
    for transaction_id, request_id, score in ask(
        f"SELECT {columns} FROM requests WHERE transaction_id LIKE '{name}-%'"  # noqa: S608  a name of our tests
    ):
        found.setdefault(transaction_id, []).append((request_id, float(score)))
    return found


def lost_or_altered(answers: Sequence[Mapping[str, Any]], stored: Stored) -> list[str]:
    """Return the ids of answered transactions that are not stored exactly once, with that request and score."""
    return [
        answer["transaction_id"]
        for answer in answers
        if not _is_as_answered(answer, stored.get(answer["transaction_id"], []))
    ]


def _is_as_answered(answer: Mapping[str, Any], rows: Sequence[tuple[str, float]]) -> bool:
    return len(rows) == 1 and rows[0][0] == answer["request_id"] and abs(rows[0][1] - answer["score"]) < 1e-9
