"""A Deployment is restarted once per model, and every answer of Kubernetes has its consequence."""

import logging
import re
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from fraud_detection.environment import BadSetting
from jobs.rollout import deployment as module
from jobs.rollout.deployment import (
    MODEL_DIGEST,
    RESTARTED_AT,
    Deployment,
    KubernetesAway,
    KubernetesRefused,
    NotRolledOut,
)
from tests.support.kubernetes_api import EXCEEDED, NAME, NAMESPACE, PATH, Cluster
from tests.support.waiting import PATIENCE_SECONDS

DIGEST = "ab" * 32


def soon() -> float:
    return time.monotonic() + PATIENCE_SECONDS


def at_once() -> float:
    return time.monotonic()


@pytest.fixture
def deployment(cluster: Cluster, in_cluster: dict[str, str]) -> Deployment:
    return Deployment.of_this_cluster(NAME, in_cluster)


def test_a_restart_names_the_model_the_time_and_the_job(cluster: Cluster, deployment: Deployment) -> None:
    deployment.restart(DIGEST, soon())

    (request,) = cluster.requests
    assert (request.method, request.path) == ("PATCH", PATH)
    assert request.query == {"fieldManager": ["fraud-detection-retrain"]}
    assert request.content_type == "application/strategic-merge-patch+json"
    assert set(cluster.annotations) == {"checksum/config", MODEL_DIGEST, RESTARTED_AT}
    assert cluster.annotations[MODEL_DIGEST] == DIGEST
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}\+00:00", cluster.annotations[RESTARTED_AT])


def test_a_rollout_is_over_when_only_new_pods_run(cluster: Cluster, deployment: Deployment) -> None:
    deployment.restart(DIGEST, soon())

    assert deployment.wait_until_rolled_out(soon()) == 1
    assert [request.method for request in cluster.requests] == ["PATCH", "GET", "GET", "GET"]


@pytest.mark.parametrize(
    ("replicas", "status", "missing"),
    [
        (
            2,
            {"observedGeneration": 1, "replicas": 2, "updatedReplicas": 2, "availableReplicas": 2},
            "has not started it yet",
        ),
        (2, {}, "Kubernetes has not started it yet"),
        (2, {"observedGeneration": 2, "replicas": 2}, "new pods: 0 of 2"),
        (2, {"observedGeneration": 2, "replicas": 3, "updatedReplicas": 1}, "new pods: 1 of 2"),
        (
            2,
            {"observedGeneration": 2, "replicas": 3, "updatedReplicas": 2, "availableReplicas": 3},
            "old pods still running because not all new pods are ready: 1",
        ),
        (2, {"observedGeneration": 2, "replicas": 2, "updatedReplicas": 2}, "ready pods: 0 of 2"),
        (
            2,
            {"observedGeneration": 2, "replicas": 2, "updatedReplicas": 2, "availableReplicas": 1},
            "ready pods: 1 of 2",
        ),
    ],
)
def test_what_is_missing_at_the_deadline_is_said(
    cluster: Cluster, deployment: Deployment, *, replicas: int, status: dict[str, Any], missing: str
) -> None:
    cluster.deployment["metadata"]["generation"] = 2
    cluster.deployment["spec"]["replicas"] = replicas
    cluster.deployment["status"] = status

    with pytest.raises(NotRolledOut, match=f"Deployment {NAMESPACE}/{NAME} was not rolled out in time: .*{missing}"):
        deployment.wait_until_rolled_out(at_once())


def test_a_rollout_that_kubernetes_reports_as_failed_ends_at_once(cluster: Cluster, deployment: Deployment) -> None:
    cluster.crashing = {DIGEST}
    deployment.restart(DIGEST, soon())

    with pytest.raises(NotRolledOut, match=re.escape(EXCEEDED)):
        deployment.wait_until_rolled_out(time.monotonic() + 3600)


def test_the_failure_of_the_previous_rollout_does_not_end_the_next(cluster: Cluster, deployment: Deployment) -> None:
    cluster.crashing = {DIGEST}
    deployment.restart(DIGEST, soon())
    with pytest.raises(NotRolledOut):
        deployment.wait_until_rolled_out(soon())

    deployment.restart("cd" * 32, soon())

    assert deployment.wait_until_rolled_out(soon()) == 1


def test_without_replicas_a_rollout_is_not_waited_for(
    cluster: Cluster, deployment: Deployment, caplog: pytest.LogCaptureFixture
) -> None:
    cluster.scale(0)
    deployment.restart(DIGEST, soon())

    with caplog.at_level(logging.WARNING):
        assert deployment.wait_until_rolled_out(soon()) == 0

    assert cluster.annotations[MODEL_DIGEST] == DIGEST
    assert "has 0 replicas" in caplog.text


def test_a_paused_deployment_is_refused_with_the_command_that_resumes_it(
    cluster: Cluster, deployment: Deployment
) -> None:
    cluster.deployment["spec"]["paused"] = True

    with pytest.raises(KubernetesRefused, match=f"kubectl rollout resume deployment/{NAME} -n {NAMESPACE}"):
        deployment.require_restart(soon())
    with pytest.raises(KubernetesRefused, match="is paused"):
        deployment.wait_until_rolled_out(soon())


def test_whether_a_restart_is_allowed_is_found_out_without_one(cluster: Cluster, deployment: Deployment) -> None:
    deployment.require_restart(soon())
    cluster.refused = {"PATCH": (403, "no")}

    with pytest.raises(KubernetesRefused, match="does not allow patch"):
        deployment.require_restart(soon())

    assert (cluster.restarts, cluster.deployment["metadata"]["generation"]) == ([], 1)


def test_a_token_that_ran_out_is_read_again(cluster: Cluster, deployment: Deployment) -> None:
    cluster.token = "token-2"

    deployment.restart(DIGEST, soon())

    assert cluster.annotations[MODEL_DIGEST] == DIGEST


def test_each_request_carries_the_token_of_its_moment(cluster: Cluster, deployment: Deployment) -> None:
    """A token that rotates is replaced before the previous one ends, so no request is refused."""
    deployment.look(at_once())
    cluster.token = "token-2"
    (cluster.folder / "token").write_text("token-2")
    deployment.look(at_once())

    assert len(cluster.requests) == 2


def test_a_token_is_never_logged(
    cluster: Cluster, deployment: Deployment, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    cluster.refused = {"PATCH": (403, "no")}
    with caplog.at_level(logging.DEBUG):
        deployment.look(at_once())
        with pytest.raises(KubernetesRefused) as refused:
            deployment.restart(DIGEST, soon())

    shown = (caplog.text, *capfd.readouterr(), *(str(error) for error in (refused.value, refused.value.__cause__)))
    assert "GET" in caplog.text
    assert not any(cluster.token in text for text in shown)


@pytest.mark.parametrize("variable", ["HTTPS_PROXY", "https_proxy", "ALL_PROXY"])
def test_the_proxy_of_the_environment_is_not_asked(
    cluster: Cluster, deployment: Deployment, monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv(variable, "http://127.0.0.1:9")

    deployment.restart(DIGEST, at_once())

    assert cluster.restarts == [DIGEST]


def test_an_api_that_does_not_answer_is_asked_once_within_the_timeout(
    cluster: Cluster, in_cluster: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A retry inside the client would multiply the timeout, and the deadline would not hold."""
    monkeypatch.setattr(module, "_TIMEOUTS_SECONDS", (0.2, 0.2))
    with socket.create_server(("127.0.0.1", 0)) as silent:
        silent.setblocking(False)
        port = str(silent.getsockname()[1])
        deployment = Deployment.of_this_cluster(NAME, in_cluster | {"KUBERNETES_SERVICE_PORT": port})

        with pytest.raises(KubernetesAway, match="timed out"):
            deployment.look(at_once())

        silent.accept()[0].close()
        with pytest.raises(BlockingIOError):
            silent.accept()


def test_the_client_is_imported_only_when_it_is_used() -> None:
    program = "import sys, jobs.retrain, jobs.rollout.by_hand; print('kubernetes' in sys.modules)"
    shown = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout

    assert shown == "False\n"


def test_a_token_that_is_rejected_twice_is_an_error(cluster: Cluster, deployment: Deployment) -> None:
    cluster.first_answers = [(401, "Unauthorized")] * 2

    with pytest.raises(KubernetesRefused, match=r"answers 401 to get on Deployment payments/.*: Unauthorized"):
        deployment.look(soon())

    assert len(cluster.requests) == 2


@pytest.mark.parametrize(
    ("status", "message"),
    [
        (
            403,
            r'does not allow patch on Deployment .* \(why\); .*give the service account a Role .* verbs \["get", "pat',
        ),
        (404, r"ROLLOUT_DEPLOYMENT: there is no Deployment payments/fraud-detection-api \(why\)"),
        (422, r"answers 422 to patch on Deployment payments/fraud-detection-api: why"),
        (302, r"answers 302"),
    ],
)
def test_a_refusal_is_final_and_says_what_to_change(
    cluster: Cluster, deployment: Deployment, status: int, message: str
) -> None:
    cluster.first_answers = [(status, "why")]

    with pytest.raises(KubernetesRefused, match=message):
        deployment.restart(DIGEST, soon())

    assert len(cluster.requests) == 1


@pytest.mark.parametrize("status", [409, 429, 500, 503])
def test_a_passing_error_is_retried(cluster: Cluster, deployment: Deployment, status: int) -> None:
    cluster.first_answers = [(status, "later")] * 2

    deployment.restart(DIGEST, soon())

    assert len(cluster.requests) == 3
    assert cluster.deployment["metadata"]["generation"] == 2


def test_a_restart_whose_answer_was_lost_is_not_a_second_one(cluster: Cluster, deployment: Deployment) -> None:
    cluster.answers_lost = 1

    deployment.restart(DIGEST, soon())

    assert cluster.restarts == [DIGEST, DIGEST]
    assert cluster.deployment["metadata"]["generation"] == 2


@pytest.mark.parametrize("status", [429, 503])
def test_a_lasting_error_is_retried_until_the_deadline(cluster: Cluster, deployment: Deployment, status: int) -> None:
    cluster.refused = {"GET": (status, "later")}

    with pytest.raises(KubernetesAway, match=f"gives no usable answer about Deployment .* answers {status}"):
        deployment.look(time.monotonic() + 2)

    assert len(cluster.requests) > 1


@pytest.mark.parametrize("ca", [b"", b"no certificate"])
def test_without_a_ca_no_api_is_trusted(cluster: Cluster, deployment: Deployment, ca: bytes) -> None:
    (cluster.folder / "ca.crt").write_bytes(ca)

    with pytest.raises(KubernetesAway, match=r"\(SSLError: .*certificate"):
        deployment.look(at_once())

    assert cluster.requests == []


def test_a_server_with_another_certificate_is_not_taken_for_kubernetes(
    cluster: Cluster, deployment: Deployment, tmp_path: Path
) -> None:
    """Its certificate must come from the cluster's own CA."""
    other = Cluster(tmp_path / "other")
    other.folder.mkdir()
    other.start().server_close()
    (cluster.folder / "ca.crt").write_bytes((other.folder / "ca.crt").read_bytes())

    with pytest.raises(KubernetesAway, match=r"\(SSLError: .*certificate verify failed"):
        deployment.restart(DIGEST, at_once())

    assert cluster.requests == []


def test_a_refused_connection_is_an_error(in_cluster: dict[str, str]) -> None:
    nowhere = Deployment.of_this_cluster(NAME, in_cluster | {"KUBERNETES_SERVICE_PORT": "9"})

    with pytest.raises(KubernetesAway, match="ConnectionError"):
        nowhere.look(at_once())


@pytest.mark.parametrize("file", ["token", "ca.crt"])
def test_a_file_that_went_away_is_named(cluster: Cluster, deployment: Deployment, file: str) -> None:
    (cluster.folder / file).unlink()

    with pytest.raises(KubernetesAway, match=rf"FileNotFoundError: .*No such file.*/{file}"):
        deployment.look(at_once())


@pytest.mark.parametrize("token", [b"secret\xff", b"sec\nret", "secret€".encode()])
def test_a_token_that_cannot_be_sent_is_not_repeated(cluster: Cluster, deployment: Deployment, token: bytes) -> None:
    (cluster.folder / "token").write_bytes(token)

    with pytest.raises(KubernetesAway, match="/token has no token that can be sent") as refused:
        deployment.look(at_once())

    assert not any(part in str(refused.value) for part in ("secret", "sec\\n"))
    assert cluster.requests == []


def test_an_answer_that_is_no_json_is_no_answer(cluster: Cluster, deployment: Deployment) -> None:
    cluster.answers_in_html = True

    with pytest.raises(KubernetesAway, match="JSONDecodeError: Expecting value"):
        deployment.look(at_once())


def test_a_list_that_kubernetes_leaves_empty_may_be_null(cluster: Cluster, deployment: Deployment) -> None:
    cluster.deployment["status"]["conditions"] = None
    cluster.deployment["spec"]["template"]["metadata"]["annotations"] = None
    filled = deployment.look(at_once())
    cluster.deployment["status"] = None
    empty = deployment.look(at_once())

    assert (filled.model_digest, filled.failure, filled.missing) == (None, None, None)
    assert empty.missing == "Kubernetes has not started it yet"


@pytest.mark.parametrize("file", ["token", "ca.crt", "namespace"])
def test_without_the_files_of_a_service_account_it_is_a_wrong_setting(
    cluster: Cluster, in_cluster: dict[str, str], file: str
) -> None:
    (cluster.folder / file).unlink()

    with pytest.raises(BadSetting, match=f"ROLLOUT_DEPLOYMENT: .*/{file} cannot be read .* automountServiceAccountTok"):
        Deployment.of_this_cluster(NAME, in_cluster)


def test_outside_a_pod_kubernetes_has_no_address(cluster: Cluster, in_cluster: dict[str, str]) -> None:
    with pytest.raises(BadSetting, match="KUBERNETES_SERVICE_HOST is not set"):
        Deployment.of_this_cluster(NAME, {})


def test_an_ipv6_address_is_in_brackets(cluster: Cluster, in_cluster: dict[str, str]) -> None:
    deployment = Deployment.of_this_cluster(NAME, {"KUBERNETES_SERVICE_HOST": "fd00::1"})

    assert deployment._server == "https://[fd00::1]:443"
