"""The account of the retraining may restart one Deployment, and the other accounts have no rights in the cluster."""

from collections.abc import Callable
from typing import Any

import kubernetes
import pytest

from tests.e2e.release import LABELS, NAME, SECRET, Release

ANNOTATION = {"spec": {"template": {"metadata": {"annotations": {"fraud-detection.io/model-digest": "0" * 64}}}}}


@pytest.fixture
def retrain(release: Release) -> Any:
    """A connection to Kubernetes with the token that the retraining's pod gets."""
    namespace = release.namespace
    request = kubernetes.client.AuthenticationV1TokenRequest(
        spec=kubernetes.client.V1TokenRequestSpec(audiences=[], expiration_seconds=600)
    )
    answer = namespace.cluster.core.create_namespaced_service_account_token(f"{NAME}-retrain", namespace.name, request)
    configuration = kubernetes.client.Configuration()
    configuration.host = namespace.cluster.api.configuration.host
    configuration.ssl_ca_cert = namespace.cluster.api.configuration.ssl_ca_cert
    configuration.api_key = {"authorization": f"Bearer {answer.status.token}"}
    return kubernetes.client.ApiClient(configuration)


def test_retraining_may_restart_the_api(release: Release, retrain: Any) -> None:
    apps: Any = kubernetes.client.AppsV1Api(retrain)
    name, namespace = f"{NAME}-api", release.namespace.name

    assert apps.read_namespaced_deployment(name, namespace).metadata.name == name
    assert apps.patch_namespaced_deployment(name, namespace, ANNOTATION, dry_run="All").metadata.name == name


def _container(**change: Any) -> dict[str, Any]:
    return {"spec": {"template": {"spec": {"containers": [{"name": "api", **change}]}}}}


@pytest.mark.parametrize(
    "change",
    [
        _container(image="somebody/elses:image"),
        _container(command=["sh"]),
        {"spec": {"replicas": 0}},
        {"spec": {"template": {"spec": {"serviceAccountName": f"{NAME}-retrain"}}}},
        {"metadata": {"labels": {"mine": "now"}}},
        {"spec": {"template": {"metadata": {"annotations": {"mine": "now"}}}}},
    ],
    ids=["image", "command", "replicas", "account", "labels", "annotation"],
)
def test_retraining_may_change_nothing_else_of_it(release: Release, retrain: Any, change: dict[str, Any]) -> None:
    apps = kubernetes.client.AppsV1Api(retrain)

    status = _refusal(
        lambda: apps.patch_namespaced_deployment(f"{NAME}-api", release.namespace.name, change, dry_run="All")
    )

    assert status in {403, 422}  # 422 is how an admission policy rejects


FORBIDDEN: dict[str, Callable[[Any, str], object]] = {
    "list deployments": lambda k, n: k.AppsV1Api.list_namespaced_deployment(n),
    "patch another deployment": lambda k, n: k.AppsV1Api.patch_namespaced_deployment(
        f"{NAME}-pushgateway", n, ANNOTATION, dry_run="All"
    ),
    "patch it in another namespace": lambda k, _: k.AppsV1Api.patch_namespaced_deployment(
        f"{NAME}-api", "fraud", ANNOTATION, dry_run="All"
    ),
    "delete the deployment": lambda k, n: k.AppsV1Api.delete_namespaced_deployment(f"{NAME}-api", n, dry_run="All"),
    "scale the deployment": lambda k, n: k.AppsV1Api.patch_namespaced_deployment_scale(
        f"{NAME}-api", n, {"spec": {"replicas": 0}}, dry_run="All"
    ),
    "read the token": lambda k, n: k.CoreV1Api.read_namespaced_secret(SECRET, n),
    "list secrets": lambda k, n: k.CoreV1Api.list_namespaced_secret(n),
    "read a ConfigMap": lambda k, n: k.CoreV1Api.read_namespaced_config_map(f"{NAME}-api", n),
    "list pods": lambda k, n: k.CoreV1Api.list_namespaced_pod(n),
    "exec into a pod": lambda k, n: k.CoreV1Api.connect_post_namespaced_pod_exec("any", n, command=["id"]),
    "make a job": lambda k, n: k.BatchV1Api.create_namespaced_job(
        n, {"metadata": {"name": "x"}, "spec": {"template": {"spec": {"containers": []}}}}, dry_run="All"
    ),
    "list nodes": lambda k, _: k.CoreV1Api.list_node(),
}


@pytest.mark.parametrize("what", FORBIDDEN)
def test_everything_else_is_forbidden(release: Release, retrain: Any, what: str) -> None:
    assert _refusal(lambda: FORBIDDEN[what](_Apis(retrain), release.namespace.name)) == 403


class _Apis:
    """The groups of the Kubernetes API by name, over one connection."""

    def __init__(self, connection: Any) -> None:
        self._connection = connection

    def __getattr__(self, name: str) -> Any:
        return getattr(kubernetes.client, name)(self._connection)


def _refusal(do: Callable[[], object]) -> int | None:
    """Return the status with which Kubernetes refuses; None if it does not."""
    try:
        do()
    except kubernetes.client.ApiException as error:
        return int(error.status)
    return None


def test_no_pod_but_that_of_retraining_has_a_token_of_the_cluster(release: Release) -> None:
    names = [release.start_job(job, f"token-{job}") for job in ("detect-drift", "retrain", "fraudctl")]
    try:
        release.namespace.kubectl("wait", "--for=jsonpath={.status.ready}=1", f"job/{names[-1]}", "--timeout=120s")
        pods = release.namespace.pods(LABELS)
        with_token = {pod.metadata.labels["app.kubernetes.io/component"] for pod in pods if _tokens(pod)}
        components = {pod.metadata.labels["app.kubernetes.io/component"] for pod in pods}
        account = "/var/run/secrets/kubernetes.io/serviceaccount"
        beside_the_api = release.in_api("python", "-c", f"import os; print(os.path.exists({account!r}))")
    finally:
        release.namespace.kubectl("delete", "job", *names)

    assert components == {"api", "pushgateway", "detect-drift", "retrain", "fraudctl"}
    assert with_token == {"retrain"}
    assert beside_the_api == "False\n"


def _tokens(pod: Any) -> list[str]:
    """Return the volumes with a token of the pod's account, from the chart or from Kubernetes itself."""
    return [
        volume.name
        for volume in pod.spec.volumes
        if volume.projected and any(source.service_account_token for source in volume.projected.sources)
    ]
