"""The running API comes to a promoted model by reload or restart, or the job says why not."""

import contextlib
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import requests

from fraud_detection.environment import BadSetting
from fraud_detection.model.files import CURRENT, ONNX
from fraud_detection.model.write import promote
from fraud_detection.settings import ClientSettings
from jobs.rollout import running_api as module
from jobs.rollout.deployment import MODEL_DIGEST, KubernetesAway, KubernetesRefused
from jobs.rollout.running_api import NotServed, RunningApi, bring_to, require_rollout, running_api
from tests.support.installation import FEATURES, SmallInstallation
from tests.support.kubernetes_api import EXCEEDED, NAME, Cluster, Pods
from tests.support.ports import free_port
from tests.support.service import ApiDidNotStart, api_process
from tests.support.waiting import PATIENCE_SECONDS


@pytest.fixture
def old(installation: SmallInstallation, pods: Pods, make_version: Callable[..., str]) -> str:
    """The digest of the model that the pods serve."""
    version = make_version(installation.models_dir, of=FEATURES, seed=1)
    promote(installation.models_dir, version, actor="test", reason="a test")
    pods.restart()
    return installation.served().digest


@pytest.fixture
def new(installation: SmallInstallation, old: str, make_version: Callable[..., str]) -> str:
    """The digest of a promoted model that the pods do not know yet."""
    version = make_version(installation.models_dir, of=FEATURES, seed=2)
    promote(installation.models_dir, version, actor="test", reason="a test")
    return installation.served().digest


def api_of(installation: SmallInstallation) -> RunningApi:
    api = running_api(installation.settings, installation.variables)
    assert api is not None
    return api


def come_to(digest: str, installation: SmallInstallation) -> str | None:
    """Return why the API does not come to a model, None if it does."""
    try:
        bring_to(digest, installation.settings, api_of(installation))
    except NotServed as problem:
        return str(problem)
    return None


# -- which API there is ----------------------------------------------------------------------------------------------


def test_an_api_is_asked_only_if_one_is_named(installation: SmallInstallation) -> None:
    named = {"API_URL": "http://127.0.0.1:5000", "API_TOKEN": "secret"}

    assert running_api(installation.settings, {"API_TOKEN": "secret"}) is None
    assert running_api(installation.settings, named) == RunningApi(
        ClientSettings(api_url="http://127.0.0.1:5000", api_token="secret")
    )


@pytest.mark.parametrize("name", ["API_URL", "API_TOKEN"])
def test_a_deployment_needs_an_api_to_ask(installation: SmallInstallation, pods: Pods, name: str) -> None:
    del installation.variables[name]

    with pytest.raises(BadSetting, match=f"{name} is not set"):
        api_of(installation)


def test_without_a_rollout_a_deployment_needs_no_cluster(installation: SmallInstallation) -> None:
    installation.variables |= {"ROLLOUT_MODE": "none", "ROLLOUT_DEPLOYMENT": NAME}

    assert running_api(installation.settings, installation.variables) is None


# -- restart ---------------------------------------------------------------------------------------------------------


def test_pods_are_restarted_once_and_serve_the_model(
    installation: SmallInstallation, cluster: Cluster, pods: Pods, new: str
) -> None:
    problem = come_to(new, installation)

    assert problem is None
    assert pods.serving == new
    assert cluster.restarts == [new]
    assert cluster.annotations[MODEL_DIGEST] == new


def test_an_old_pod_may_answer_for_a_while(
    installation: SmallInstallation, cluster: Cluster, pods: Pods, new: str
) -> None:
    pods.stale = 4

    problem = come_to(new, installation)

    assert problem is None
    assert pods.asked == 8 + module.ANSWERS_IN_A_ROW
    assert cluster.restarts == [new]


def test_pods_that_were_restarted_for_the_model_are_not_again(
    installation: SmallInstallation, cluster: Cluster, pods: Pods, new: str
) -> None:
    come_to(new, installation)

    problem = come_to(new, installation)

    assert problem is None
    assert cluster.restarts == [new]


def test_a_restart_under_way_is_waited_for(
    installation: SmallInstallation, cluster: Cluster, pods: Pods, new: str
) -> None:
    api = api_of(installation)
    assert api.deployment is not None
    api.deployment.restart(new, deadline=float("inf"))  # by a job that was killed after it

    problem = come_to(new, installation)

    assert problem is None
    assert (pods.serving, cluster.restarts) == (new, [new])


def test_pods_that_were_rolled_back_by_hand_are_restarted(
    installation: SmallInstallation, cluster: Cluster, pods: Pods, new: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The Deployment still says that they were restarted for this model."""
    monkeypatch.setattr(module, "SERVED_WITHIN_SECONDS", 0.0)
    come_to(new, installation)
    pods.serving = pods.before

    problem = come_to(new, installation)

    assert problem is None
    assert (pods.serving, cluster.restarts) == (new, [new, new])


def test_the_first_model_that_is_served_already_takes_no_restart(
    installation: SmallInstallation, cluster: Cluster, pods: Pods, old: str
) -> None:
    problem = come_to(old, installation)

    assert problem is None
    assert [request.method for request in cluster.requests] == ["GET"]


def test_pods_that_do_not_become_ready_are_reported_in_the_words_of_kubernetes(
    installation: SmallInstallation, cluster: Cluster, pods: Pods, old: str, new: str
) -> None:
    cluster.crashing = {new}

    problem = come_to(new, installation)

    assert problem is not None
    assert EXCEEDED in problem
    assert pods.serving == old


def test_pods_that_never_become_ready_end_with_the_timeout(
    installation: SmallInstallation, cluster: Cluster, pods: Pods, new: str
) -> None:
    installation.variables["ROLLOUT_TIMEOUT_SECONDS"] = "5"
    cluster.crashing, cluster.gives_up = {new}, False

    problem = come_to(new, installation)

    assert problem is not None
    assert "was not rolled out in time: old pods still running because not all new pods are ready: 1" in problem


def test_pods_that_serve_another_model_after_the_rollout_are_an_error(
    installation: SmallInstallation, cluster: Cluster, pods: Pods, old: str, new: str
) -> None:
    """API_URL may lead to the pods of another installation."""
    installation.variables["ROLLOUT_TIMEOUT_SECONDS"] = "5"
    cluster.replace_pods = lambda: True

    problem = come_to(new, installation)

    assert problem is not None
    assert f"still serves {old[:12]}" in problem


def test_a_refused_connection_is_no_success_if_pods_run(
    installation: SmallInstallation, cluster: Cluster, pods: Pods, new: str
) -> None:
    installation.variables |= {"ROLLOUT_TIMEOUT_SECONDS": "3", "API_URL": f"http://127.0.0.1:{free_port()}"}

    problem = come_to(new, installation)

    assert problem is not None
    assert "cannot be reached" in problem


def test_without_pods_the_deployment_only_learns_the_model(
    installation: SmallInstallation, cluster: Cluster, pods: Pods, new: str
) -> None:
    cluster.scale(0)
    pods.serving = None

    seen = [bring_to(new, installation.settings, api_of(installation)) for _ in range(2)]

    assert seen == [f"{api_of(installation).deployment} has 0 replicas: its next pod verifies this model."] * 2
    assert cluster.restarts == [new]


class RealPods:
    """One real API at a time, started with the variables of the installation, behind an address that stays."""

    def __init__(self, installation: SmallInstallation) -> None:
        self.environment = installation.environment
        self.folder = installation.folder
        self.pod, self.url = contextlib.ExitStack(), ""
        self.logs: list[Path] = []

    def restart(self) -> bool:
        self.logs.append(self.folder / f"pod-{len(self.logs)}.log")
        with contextlib.ExitStack() as stack:
            try:
                url = stack.enter_context(api_process(self.environment, self.logs[-1]))
            except ApiDidNotStart:
                return False
            self.pod.close()
            self.pod, self.url = stack.pop_all(), url
        return True

    def start(self) -> ThreadingHTTPServer:
        pods = self

        class Service(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                answer = requests.get(pods.url + self.path, headers=dict(self.headers), timeout=PATIENCE_SECONDS)
                self.send_response(answer.status_code)
                self.end_headers()
                self.wfile.write(answer.content)

            def log_request(self, *_: object) -> None:
                return

        server = ThreadingHTTPServer(("127.0.0.1", 0), Service)
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        return server


@pytest.fixture
def real_pods(installation: SmallInstallation, cluster: Cluster, pods: Pods, old: str) -> Iterator[RealPods]:
    """The same, but the pods are real processes, and serve the old model."""
    real = RealPods(installation)
    server = real.start()
    installation.variables["API_URL"] = f"http://127.0.0.1:{server.server_port}"
    cluster.replace_pods = real.restart
    assert real.restart()
    yield real
    real.pod.close()
    server.shutdown()
    server.server_close()


def digest_at(url: str) -> str:
    answer = requests.get(f"{url}/model", headers={"Authorization": "Bearer the-token"}, timeout=PATIENCE_SECONDS)
    return str(answer.json()["digest"])


def test_a_real_api_serves_the_new_model_after_its_restart_and_not_before(
    installation: SmallInstallation, cluster: Cluster, real_pods: RealPods, new: str
) -> None:
    before = digest_at(real_pods.url)

    problem = come_to(new, installation)

    assert before != new
    assert problem is None
    assert len(real_pods.logs) == 2


def test_a_real_api_refuses_a_damaged_model_at_start_and_the_old_one_keeps_serving(
    installation: SmallInstallation, cluster: Cluster, real_pods: RealPods, old: str, new: str
) -> None:
    (installation.models_dir / CURRENT / ONNX).write_bytes(b"damaged since it was promoted")

    problem = come_to(new, installation)

    assert problem is not None
    assert EXCEEDED in problem
    assert "model.onnx is not the file" in real_pods.logs[-1].read_text()
    assert digest_at(real_pods.url) == old


# -- reload ----------------------------------------------------------------------------------------------------------


def test_replicas_that_reload_must_answer_several_times_in_a_row(
    installation: SmallInstallation, cluster: Cluster, pods: Pods, new: str
) -> None:
    installation.variables["ROLLOUT_MODE"] = "reload"
    pods.restart()
    pods.stale = 2

    problem = come_to(new, installation)

    assert problem is None
    assert pods.asked == 4 + module.ANSWERS_IN_A_ROW
    assert {request.method for request in cluster.requests} == {"GET"}


@pytest.mark.parametrize(("replicas", "is_fine"), [(1, False), (0, True)])
def test_a_refused_connection_is_fine_only_without_replicas(
    installation: SmallInstallation,
    cluster: Cluster,
    pods: Pods,
    new: str,
    monkeypatch: pytest.MonkeyPatch,
    *,
    replicas: int,
    is_fine: bool,
) -> None:
    monkeypatch.setattr(module, "SERVED_WITHIN_SECONDS", 0.2)
    installation.variables |= {"ROLLOUT_MODE": "reload", "API_URL": f"http://127.0.0.1:{free_port()}"}
    cluster.scale(replicas)

    problem = come_to(new, installation)

    assert (problem is None) is is_fine


# -- beforehand ------------------------------------------------------------------------------------------------------


def test_what_would_prevent_a_rollout_is_found_before_it(
    installation: SmallInstallation, cluster: Cluster, pods: Pods, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "KUBERNETES_ANSWERS_WITHIN_SECONDS", 0.1)
    require_rollout(installation.settings, api_of(installation))

    cluster.refused = {"PATCH": (403, "no")}
    with pytest.raises(KubernetesRefused):
        require_rollout(installation.settings, api_of(installation))
    cluster.refused = {"GET": (503, "no")}
    with pytest.raises(KubernetesAway):
        require_rollout(installation.settings, api_of(installation))

    assert cluster.restarts == []


def test_a_reload_needs_no_right_to_restart(installation: SmallInstallation, cluster: Cluster, pods: Pods) -> None:
    installation.variables["ROLLOUT_MODE"] = "reload"
    cluster.refused = {"PATCH": (403, "no")}
    cluster.deployment["spec"]["paused"] = True

    require_rollout(installation.settings, api_of(installation))

    assert len(cluster.requests) == 1


def test_without_kubernetes_nothing_can_prevent_a_rollout(installation: SmallInstallation) -> None:
    require_rollout(installation.settings, None)
