"""In an ordinary kind cluster: Grafana, enforced network policies, and one volume among several nodes."""

import base64
import functools
import secrets
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest
import requests

from tests.e2e.cluster import Cluster, Namespace, wait_for
from tests.e2e.release import API_PODS, NAME, Installed, Release
from tests.support.dashboards import DASHBOARDS

CLAIM = "anywhere"
CONNECTS = """
import socket, sys
try:
    socket.create_connection((sys.argv[1], int(sys.argv[2])), timeout=4).close()
    print("yes")
except OSError:
    print("no")
"""


@pytest.mark.grafana
def test_grafana_shows_every_dashboard_with_figures(cluster: Cluster) -> None:
    monitoring = Namespace(cluster, "monitoring")
    secret = cluster.core.read_namespaced_secret("kube-prometheus-stack-grafana", "monitoring").data
    user, password = (base64.b64decode(secret[key]).decode() for key in ("admin-user", "admin-password"))
    with monitoring.port_forward("service/kube-prometheus-stack-grafana", 80) as port:

        def get(path: str) -> requests.Response:
            return requests.get(f"http://127.0.0.1:{port}{path}", auth=(user, password), timeout=30)

        for dashboard in DASHBOARDS.values():
            address = f"/api/dashboards/uid/{dashboard['uid']}"
            answer = wait_for(f"dashboard {dashboard['uid']}", functools.partial(get, address))  # a refusal is falsy
            shown = answer.json()["dashboard"]
            assert (shown["title"], len(shown["panels"])) == (dashboard["title"], len(dashboard["panels"]))
        [source] = [each for each in get("/api/datasources").json() if each["isDefault"]]
        query = f'up{{namespace="fraud", service="{NAME}-api"}}'
        proxied = f"/api/datasources/proxy/uid/{source['uid']}/api/v1/query?query={query}"
        assert wait_for("figures in Grafana", lambda: get(proxied).json()["data"]["result"])


@pytest.fixture(scope="module")
def fenced(installed: Installed) -> Iterator[Release]:
    """A release with its network policies, and pods in several places that try to connect."""
    with installed("fenced") as release:
        yield release


@pytest.mark.network_policies
def test_only_pods_that_need_it_reach_anything(fenced: Release, cluster: Cluster) -> None:
    # By address, because a pod that may not resolve names would fail by that alone.
    here = fenced.namespace
    api, gateway = (_address(cluster, here.name, f"{NAME}-{part}") for part in ("api", "pushgateway"))
    kubernetes_api = _address(cluster, "default", "kubernetes")
    elsewhere = cluster.namespace(f"{here.name}-strangers")
    try:
        stranger, neighbour = _asker(elsewhere, fenced), _asker(here, fenced)
        api_pod = f"pod/{fenced.api_pod()}"
        with fenced.admin():
            reached = {
                "a stranger, the API": _connects(elsewhere, stranger, api),
                "a stranger, the Pushgateway": _connects(elsewhere, stranger, gateway),
                "a neighbour, the API": _connects(here, neighbour, api),
                "a neighbour, the Pushgateway": _connects(here, neighbour, gateway),
                "a job, the Pushgateway": _connects(here, "job/admin", gateway),
                "a job, Kubernetes": _connects(here, "job/admin", kubernetes_api),
                "the API, the Pushgateway": _connects(here, api_pod, gateway),
                "the API, Kubernetes": _connects(here, api_pod, kubernetes_api),
            }
        assert {what for what, is_reached in reached.items() if is_reached} == {
            "a neighbour, the API",
            "a job, the Pushgateway",
        }

        # the control: without the policies they connect
        here.kubectl("delete", "networkpolicies", "--all")
        wait_for("a connection of a stranger", lambda: _connects(elsewhere, stranger, gateway), seconds=30)
        assert _connects(elsewhere, stranger, api)
        assert _connects(here, api_pod, kubernetes_api)
    finally:
        elsewhere.delete()


@pytest.fixture(scope="module")
def unbound(installed: Installed, cluster: Cluster) -> Iterator[Release]:
    """A release on a volume that every node can mount; kind's own volumes belong to a node and would hide a fault."""
    volume = f"fraud-e2e-{secrets.token_hex(4)}"
    folder = f"/var/{volume}"
    for node in cluster.core.list_node().items:
        make = ["docker", "exec", node.metadata.name, "install", "-d", "-m", "777", folder]
        subprocess.run(make, check=True, capture_output=True, timeout=60)

    def prepare(namespace: Namespace) -> None:
        size = {"storage": "1Gi"}
        common = {"accessModes": ["ReadWriteOnce"], "storageClassName": ""}
        namespace.create(
            {
                "apiVersion": "v1",
                "kind": "PersistentVolume",
                "metadata": {"name": volume},
                "spec": {**common, "capacity": size, "hostPath": {"path": folder}},
            },
            {
                "apiVersion": "v1",
                "kind": "PersistentVolumeClaim",
                "metadata": {"name": CLAIM},
                "spec": {**common, "volumeName": volume, "resources": {"requests": size}},
            },
        )

    try:
        with installed("nodes", prepare, persistence={"existingClaim": CLAIM}) as release:
            yield release
    finally:
        cluster.kubectl("delete", "persistentvolume", volume, "--wait=false")


@pytest.mark.three_nodes
def test_all_pods_of_the_volume_run_on_its_node(unbound: Release, cluster: Cluster) -> None:
    here = unbound.namespace
    nodes = {pod.spec.node_name for pod in unbound.pods()}
    here.kubectl("rollout", "restart", f"deployment/{NAME}-api")
    jobs = [unbound.start_job(job, f"place-{job}") for job in ("detect-drift", "retrain", "fraudctl")]
    wait_for("both pods of the API", lambda: len(here.pods(API_PODS)) == 2)
    unbound.wait_until_rolled_out()
    here.kubectl("wait", f"job/{jobs[-1]}", "--for=jsonpath={.status.ready}=1", "--timeout=120s")
    on_the_volume = here.pods(f"fraud-detection.io/data-volume={CLAIM}")
    nodes |= {pod.spec.node_name for pod in on_the_volume}

    assert len(on_the_volume) >= 4
    assert len(nodes) == 1

    # the control: a pod on another node can mount the volume, so it was the affinity that kept them together
    others = {each.metadata.name for each in cluster.core.list_node().items if not each.spec.taints} - nodes
    _asker(here, unbound, node=others.pop())


def _asker(namespace: Namespace, release: Release, *, node: str | None = None) -> str:
    """Return a pod that only sleeps; with the claim and on the node, if they are given."""
    container: dict[str, Any] = {
        "name": "asker",
        "image": release.deployment.spec.template.spec.containers[0].image,
        "args": ["-c", "import time; time.sleep(600)"],
        "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
    }
    spec: dict[str, Any] = {
        "securityContext": {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}},
        "containers": [container],
        "terminationGracePeriodSeconds": 1,
    }
    if node is not None:
        container["volumeMounts"] = [{"name": "data", "mountPath": "/data"}]
        spec["volumes"] = [{"name": "data", "persistentVolumeClaim": {"claimName": CLAIM}}]
        spec["nodeSelector"] = {"kubernetes.io/hostname": node}
    namespace.create({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "asker"}, "spec": spec})
    namespace.kubectl("wait", "pod/asker", "--for=condition=Ready", "--timeout=120s")
    return "pod/asker"


def _address(cluster: Cluster, namespace: str, service: str) -> tuple[str, int]:
    spec = cluster.core.read_namespaced_service(service, namespace).spec
    return spec.cluster_ip, spec.ports[0].port


def _connects(namespace: Namespace, where: str, address: tuple[str, int]) -> bool:
    return namespace.execute(where, "python", "-c", CONNECTS, address[0], str(address[1])) == "yes\n"
