"""What the end-to-end tests share: the cluster, a release, transactions, figures, and evidence when a test fails."""

import fcntl
import json
import os
import secrets
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.cluster import Cluster, Namespace
from tests.e2e.release import NAME, SECRET, TOKEN, Installed, Release, Values, merged
from tests.support.programs import skip_or_fail
from tests.support.project import CHART, REAL_DATA, ROOT
from tests.support.sample import Sample, made_up_sample, read_sample

EVIDENCE = ROOT / "build" / "e2e"
KEEP = bool(os.environ.get("E2E_KEEP"))

BEGAN = time.time()
MADE_FOR_THE_TESTS = EVIDENCE / "cluster-made-for-the-tests"
"""Holds the name of a cluster that a session of these tests made, while that lasts."""


@pytest.fixture(scope="session")
def cluster() -> Cluster:
    """The cluster of `make kind-up`, which stays; if there is none, a cluster for the time of the tests."""
    for program in ("docker", "kind", "kubectl", os.environ.get("HELM", "helm")):
        if shutil.which(program) is None:
            skip_or_fail(f"{program} is not installed; k8s-dev/README.md says what is needed")
    name = os.environ.get("KIND_CLUSTER", "fraud-detection")
    EVIDENCE.mkdir(parents=True, exist_ok=True)
    with (EVIDENCE / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # several processes may run the tests
        known = subprocess.run(["kind", "get", "clusters"], stdout=subprocess.PIPE, text=True, check=True).stdout
        if name not in known.split():
            MADE_FOR_THE_TESTS.write_text(name)
            subprocess.run([ROOT / "k8s-dev" / "up.sh"], check=True)
    return Cluster(name)


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Delete the cluster that was made for the tests when the last process has finished with it."""
    if hasattr(session.config, "workerinput") or not MADE_FOR_THE_TESTS.exists():
        return
    is_of_this_session = (
        MADE_FOR_THE_TESTS.stat().st_mtime >= BEGAN
    )  # an older run was interrupted, or its cluster was kept on purpose
    name = MADE_FOR_THE_TESTS.read_text()
    MADE_FOR_THE_TESTS.unlink()
    if is_of_this_session and not KEEP:
        subprocess.run([ROOT / "k8s-dev" / "down.sh"], env={**os.environ, "KIND_CLUSTER": name}, check=True)


@pytest.fixture(scope="session")
def development_values(cluster: Cluster) -> Values:
    """The values of the release that `make kind-up` installed: its images, and how Prometheus finds it."""
    command = [os.environ.get("HELM", "helm"), "--kube-context", cluster.context, "--namespace", "fraud"]
    done = subprocess.run(
        [*command, "get", "values", NAME, "--output", "json"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, f"run `make kind-up` first, whose images are tested: {done.stderr}"
    values: dict[str, Any] = json.loads(done.stdout)
    return values


@pytest.fixture(scope="session")
def installed(cluster: Cluster, development_values: Values) -> Installed:
    """A context manager: the chart, with these values, in a new namespace where something may be prepared before."""

    @contextmanager
    def install(
        name: str, prepare: Callable[[Namespace], None] = lambda _: None, chart: Path = CHART, **values: Any
    ) -> Iterator[Release]:
        namespace = cluster.namespace(f"fraud-{name}-{secrets.token_hex(2)}")
        namespace.kubectl("create", "secret", "generic", SECRET, f"--from-literal=api-token={TOKEN}")
        # Labels of today count, and no job starts by its schedule.
        ours = {
            "auth": {"existingSecret": SECRET},
            "config": {"labelMaturityDays": 0, "retrainCooldownDays": 0, "driftWindowRows": 1000},
            "jobs": {"detectDrift": {"suspend": True}, "retrain": {"suspend": True}},
            # Grafana would show each dashboard once for every release, and lose it when one of them goes.
            "metrics": {"dashboards": {"enabled": False}},
        }
        release = Release(namespace, merged(merged(development_values, ours), values), chart)
        try:
            prepare(namespace)
            release.upgrade()
            yield release
        except BaseException:
            keep_evidence(cluster, EVIDENCE / namespace.name)
            raise
        finally:
            if not KEEP:
                release.helm(
                    "uninstall", NAME, "--ignore-not-found"
                )  # deletes its objects outside of the namespace too
                namespace.delete()

    return install


@pytest.fixture(scope="session")
def release(installed: Installed) -> Iterator[Release]:
    """A release for tests that do not change it; its retraining may change only two annotations."""
    with installed("e2e", rbac={"restrictPatchWithAdmissionPolicy": True}) as release:
        yield release


@pytest.fixture(scope="session")
def sample() -> Sample:
    """The real transactions or, if they are absent, made-up ones."""
    return read_sample(REAL_DATA) if REAL_DATA.exists() else made_up_sample()


LACKING: dict[str, Callable[[Cluster], bool]] = {
    "prometheus": lambda cluster: _lacks(cluster.core.list_namespaced_service("monitoring"), "prometheus-operated"),
    "grafana": lambda cluster: _lacks(
        cluster.core.list_namespaced_service("monitoring"), "kube-prometheus-stack-grafana"
    ),
    "network_policies": lambda cluster: _lacks(cluster.apps.list_namespaced_daemon_set("kube-system"), "kindnet"),
    "three_nodes": lambda cluster: len(cluster.core.list_node().items) < 3,
}
"""How to see that a cluster lacks what a test is marked with. kind's own network enforces policies since 0.24."""


def _lacks(found: Any, name: str) -> bool:
    return name not in {each.metadata.name for each in found.items}


@pytest.fixture(autouse=True)
def _what_it_is_marked_with(request: pytest.FixtureRequest, cluster: Cluster) -> None:
    for marker, is_lacking in LACKING.items():
        if request.node.get_closest_marker(marker) and is_lacking(cluster):
            skip_or_fail(f"this cluster lacks {marker.replace('_', ' ')}; k8s-dev/README.md says how to get it")


# -- what was measured -----------------------------------------------------------------------------------------------


@pytest.fixture
def figure(request: pytest.FixtureRequest) -> Callable[[str], None]:
    """Note a measurement; the end of the run prints all of them."""
    return lambda text: request.node.user_properties.append(("measured", text))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print what was measured."""
    ended = [*terminalreporter.getreports("passed"), *terminalreporter.getreports("failed")]
    measured = [
        f"{report.nodeid.rpartition('::')[2]}: {text}"
        for report in ended
        if report.when == "call"
        for name, text in report.user_properties
        if name == "measured"
    ]
    if measured:
        terminalreporter.section("measured")
        terminalreporter.write_line("\n".join(measured))


# -- evidence --------------------------------------------------------------------------------------------------------


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Any:
    """Keep logs, events and manifests of the cluster when a test fails, before its releases are deleted."""
    report = yield
    cluster = getattr(item, "funcargs", {}).get("cluster")
    if report.failed and isinstance(cluster, Cluster):
        folder = EVIDENCE / item.name / report.when
        keep_evidence(cluster, folder)
        report.sections.append(("evidence", f"logs, events and manifests are in {folder.relative_to(ROOT)}"))
    return report


def keep_evidence(cluster: Cluster, folder: Path) -> None:
    """Write what a person would look at: nodes, and each namespace's objects, events and logs of pods."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "nodes.txt").write_text(cluster.kubectl("describe", "nodes", exit_code=None).stdout)
    namespaces = [each.metadata.name for each in cluster.core.list_namespace().items]
    for namespace in [name for name in namespaces if name.startswith(("fraud", "monitoring"))]:
        here = folder / namespace
        here.mkdir(parents=True, exist_ok=True)
        kinds = "all,configmaps,persistentvolumeclaims,networkpolicies"
        for file, *command in (
            ("objects.yaml", "get", kinds, "--output=yaml"),
            ("monitoring.yaml", "get", "servicemonitors,prometheusrules", "--output=yaml"),
            ("events.txt", "get", "events", "--sort-by=.lastTimestamp"),
            ("pods.txt", "describe", "pods"),
        ):
            said = cluster.kubectl("--namespace", namespace, *command, exit_code=None)
            (here / file).write_text(said.stdout + said.stderr)
        for pod in cluster.core.list_namespaced_pod(namespace).items:
            for which in ((), ("--previous",)):
                log = ("--namespace", namespace, "logs", pod.metadata.name, "--all-containers", *which)
                said = cluster.kubectl(*log, exit_code=None)
                if said.returncode == 0:
                    (here / f"{pod.metadata.name}{'-previous' * len(which)}.log").write_text(said.stdout)
