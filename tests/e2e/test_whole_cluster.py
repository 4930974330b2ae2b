"""What takes an ordinary kind cluster: Grafana, enforced network policies, and a volume among several nodes."""

import base64
import functools
from collections.abc import Iterator
from typing import Any

import pytest
import requests

from tests.chart.test_dashboards import DASHBOARDS
from tests.e2e.cluster import Cluster, Namespace, wait_for
from tests.e2e.conftest import Installed
from tests.e2e.release import API_PODS, NAME, Release

CONNECTS = """
import socket, sys
try:
    socket.create_connection((sys.argv[1], int(sys.argv[2])), timeout=4).close()
    print("yes")
except OSError:
    print("no")
"""


@pytest.mark.grafana
def test_grafana_shows_every_dashboard_with_figures(cluster: Cluster, release: Release) -> None:
    monitoring = Namespace(cluster, "monitoring")
    secret = cluster.core.read_namespaced_secret("kube-prometheus-stack-grafana", "monitoring").data
    user, password = (base64.b64decode(secret[key]).decode() for key in ("admin-user", "admin-password"))
    with monitoring.port_forward("service/kube-prometheus-stack-grafana", 80) as port:

        def get(path: str) -> requests.Response:
            return requests.get(f"http://127.0.0.1:{port}{path}", auth=(user, password), timeout=30)

        for dashboard in DASHBOARDS.values():
            address = f"/api/dashboards/uid/{dashboard['uid']}"
            wait_for(f"dashboard {dashboard['uid']}", functools.partial(get, address))  # a refusal is falsy
            shown = get(address).json()["dashboard"]
            assert (shown["title"], len(shown["panels"])) == (dashboard["title"], len(dashboard["panels"]))
        [source] = [each for each in get("/api/datasources").json() if each["isDefault"]]
        query = f'up{{namespace="{release.namespace.name}", service="{NAME}-api"}}'
        proxied = f"/api/datasources/proxy/uid/{source['uid']}/api/v1/query?query={query}"
        assert wait_for("figures in Grafana", lambda: get(proxied).json()["data"]["result"])


@pytest.fixture(scope="module")
def fenced(installed: Installed) -> Iterator[Release]:
    """A release with its network policies, for whose sake askers are put here and there."""
    with installed("fenced") as release:
        yield release


@pytest.mark.network_policies
def test_only_those_who_need_it_reach_anything(fenced: Release, cluster: Cluster) -> None:
    kubernetes_api = ("kubernetes.default.svc", 443)
    api = (f"{NAME}-api.{fenced.namespace.name}.svc", 5000)
    gateway = (f"{NAME}-pushgateway.{fenced.namespace.name}.svc", 9091)
    elsewhere = cluster.namespace(f"{fenced.namespace.name}-strangers")
    try:
        stranger, neighbour = _asker(elsewhere, fenced), _asker(fenced.namespace, fenced)
        with fenced.admin():
            reached = {
                "a stranger, the API": _connects(elsewhere, stranger, *api),
                "a stranger, the Pushgateway": _connects(elsewhere, stranger, *gateway),
                "a neighbour, the API": _connects(fenced.namespace, neighbour, *api),
                "a neighbour, the Pushgateway": _connects(fenced.namespace, neighbour, *gateway),
                "a job, the Pushgateway": _connects(fenced.namespace, "job/admin", *gateway),
                "a job, Kubernetes": _connects(fenced.namespace, "job/admin", *kubernetes_api),
                "the API, the Pushgateway": _connects(fenced.namespace, f"pod/{fenced.api_pod()}", *gateway),
                "the API, Kubernetes": _connects(fenced.namespace, f"pod/{fenced.api_pod()}", *kubernetes_api),
            }
        assert {what for what, is_reached in reached.items() if is_reached} == {
            "a neighbour, the API",
            "a job, the Pushgateway",
        }

        # the control: it was the policies, not the network
        fenced.namespace.kubectl("delete", "networkpolicies", "--all")
        wait_for("a stranger who is not kept out", lambda: _connects(elsewhere, stranger, *gateway), seconds=30)
        assert _connects(elsewhere, stranger, *api)
        assert _connects(fenced.namespace, f"pod/{fenced.api_pod()}", *kubernetes_api)
    finally:
        elsewhere.delete()


@pytest.mark.three_nodes
def test_all_pods_of_the_volume_run_on_its_node(release: Release) -> None:
    nodes = {pod.spec.node_name for pod in release.pods()}
    release.namespace.kubectl("rollout", "restart", f"deployment/{NAME}-api")
    jobs = [release.start_job(job, f"place-{job}") for job in ("detect-drift", "fraudctl")]
    try:
        wait_for("both pods of the API", lambda: len(release.namespace.pods(API_PODS)) == 2)
        release.wait_until_rolled_out()
        release.namespace.kubectl("wait", f"job/{jobs[1]}", "--for=jsonpath={.status.ready}=1", "--timeout=120s")
        on_the_volume = release.namespace.pods(f"fraud-detection.io/data-volume={NAME}-data")
        nodes |= {pod.spec.node_name for pod in on_the_volume}
    finally:
        release.namespace.kubectl("delete", "job", *jobs)

    assert len(on_the_volume) >= 3
    assert len(nodes) == 1


def _asker(namespace: Namespace, release: Release) -> str:
    """A pod that belongs to nobody and does nothing until it is asked to."""
    container: dict[str, Any] = {
        "name": "asker",
        "image": release.deployment.spec.template.spec.containers[0].image,
        "args": ["-c", "import time; time.sleep(600)"],
        "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
    }
    security = {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}}
    spec = {"securityContext": security, "containers": [container], "terminationGracePeriodSeconds": 1}
    namespace.create({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "asker"}, "spec": spec})
    namespace.kubectl("wait", "pod/asker", "--for=condition=Ready", "--timeout=120s")
    return "pod/asker"


def _connects(namespace: Namespace, where: str, host: str, port: int) -> bool:
    return namespace.execute(where, "python", "-c", CONNECTS, host, str(port)) == "yes\n"
