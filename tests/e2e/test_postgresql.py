"""With PostgreSQL and three replicas, every row is stored once under load, through restarts and kills."""

import json
import os
import subprocess
import time
from collections.abc import Callable, Iterator

import pytest

from tests.e2e.cluster import Namespace, wait_for
from tests.e2e.release import NAME, Installed, Release, is_ready
from tests.e2e.traffic import LEAST_RATE, lost_or_altered, stored_rows, traffic
from tests.support.sample import Sample

IMAGE = os.environ.get("E2E_POSTGRES_IMAGE", "postgres:15-bookworm")
PASSWORD = "a-password-for-the-cluster"
REPLICAS = 3


@pytest.fixture(scope="module")
def replicas(installed: Installed) -> Iterator[Release]:
    """Three replicas and their database: that of E2E_POSTGRES_URL, else one in the cluster."""
    database = {"mode": "postgresql", "existingSecret": "fraud-database"}
    with installed("postgresql", _prepare, database=database, api={"replicas": REPLICAS}) as release:
        yield release


def _prepare(namespace: Namespace) -> None:
    url = os.environ.get("E2E_POSTGRES_URL") or _database(namespace)
    secret = ("create", "secret", "generic", "fraud-database", "--from-file=database-url=/dev/stdin")
    namespace.kubectl(*secret, stdin=url)


def _database(namespace: Namespace) -> str:
    """Run a PostgreSQL server, locked down like the other pods; return the address of its database."""
    if subprocess.run(["docker", "image", "inspect", IMAGE], capture_output=True, check=False).returncode == 0:
        load = ["kind", "load", "docker-image", "--name", namespace.cluster.name, IMAGE]
        subprocess.run(load, check=True, capture_output=True)
    variables = {"POSTGRES_USER": "fraud", "POSTGRES_PASSWORD": PASSWORD, "POSTGRES_DB": "fraud", "PGDATA": "/data/db"}
    pod = {
        "securityContext": {
            "runAsNonRoot": True, "runAsUser": 999, "runAsGroup": 999, "fsGroup": 999,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": [{
            "name": "postgresql",
            "image": IMAGE,
            "env": [{"name": name, "value": value} for name, value in variables.items()],
            "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
            "readinessProbe": {
                "exec": {"command": ["pg_isready", "-h", "127.0.0.1", "-U", "fraud"]}, "periodSeconds": 2,
            },
            "volumeMounts": [
                {"name": "data", "mountPath": "/data"}, {"name": "run", "mountPath": "/var/run/postgresql"},
            ],
        }],
        "volumes": [{"name": "data", "emptyDir": {}}, {"name": "run", "emptyDir": {}}],
    }  # fmt: skip
    labels = {"app": "postgresql"}
    template = {"metadata": {"labels": labels}, "spec": pod}
    spec = {"selector": {"matchLabels": labels}, "template": template}
    namespace.create(
        {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "postgresql"}, "spec": spec},
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": "postgresql"},
            "spec": {"selector": labels, "ports": [{"port": 5432}]},
        },
    )
    namespace.kubectl("rollout", "status", "deployment/postgresql", "--timeout=180s")
    return f"postgresql://fraud:{PASSWORD}@postgresql:5432/fraud"


@pytest.fixture
def rows(replicas: Release, sample: Sample) -> list[list[float]]:
    """What the load scores."""
    return sample.scaled(sample.calm, replicas.get("/model")["amount_scaling"])


def test_a_rolling_restart_of_three_replicas_fails_no_request(
    replicas: Release, rows: list[list[float]], figure: Callable[[str], None]
) -> None:
    before = {pod.metadata.name for pod in replicas.pods()}
    with traffic(replicas, rows, name="rolling") as load:
        replicas.namespace.kubectl("rollout", "restart", f"deployment/{NAME}-api")
        replicas.wait_until_rolled_out()
        seen = load.stop()
    with replicas.admin() as admin:
        stored = stored_rows(admin.sql, "rolling")

    after = {pod.metadata.name for pod in replicas.pods()}
    assert len(before) == len(after) == REPLICAS
    assert not before & after
    assert seen.rate >= LEAST_RATE
    assert seen.failed_with() == {}
    assert lost_or_altered(seen.answers, stored) == []
    figure(f"rolling restart of {REPLICAS} replicas: {seen}")


def test_a_killed_replica_costs_a_retry_and_no_row(
    replicas: Release, rows: list[list[float]], figure: Callable[[str], None]
) -> None:
    with traffic(replicas, rows, name="one-killed", attempts=6) as load:
        before = _restarts(replicas)
        replicas.kill_container(replicas.pods()[0])
        wait_for("the container's restart", lambda: _restarts(replicas) == before + 1)
        wait_for("all replicas", lambda: sum(map(is_ready, replicas.pods())) == REPLICAS)
        time.sleep(3)
        seen = load.stop()
    with replicas.admin() as admin:
        stored = stored_rows(admin.sql, "one-killed")
        keys = admin.sql("SELECT COUNT(*), COUNT(DISTINCT request_id) FROM requests")

    assert seen.failed_with() == {}
    assert lost_or_altered(seen.answers, stored) == []
    assert [name for name, found in stored.items() if len(found) != 1] == []
    assert keys[0][0] == keys[0][1]  # the load sends one row per request
    figure(f"one of {REPLICAS} replicas killed, clients try again with the same key: {seen}")


def _restarts(release: Release) -> int:
    return sum(pod.status.container_statuses[0].restart_count for pod in release.pods())


def test_every_replica_serves(replicas: Release) -> None:
    digests = set()
    for pod in replicas.pods():
        with replicas.api(f"pod/{pod.metadata.name}") as api:
            digests.add(api.get("/model")["digest"])

    assert len(replicas.pods()) == REPLICAS
    assert len(digests) == 1
    assert json.loads(replicas.helm("get", "values", NAME, "--output", "json"))["api"]["replicas"] == REPLICAS
