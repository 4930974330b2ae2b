"""Pods and nodes are killed, evicted and drained: every answered row is stored, and the API recovers."""

import functools
import time
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from math import inf

import kubernetes
import pytest

from tests.e2e.cluster import wait_for
from tests.e2e.release import Installed, Release, is_ready
from tests.e2e.traffic import Seen, Stored, lost_or_altered, stored_rows, traffic
from tests.support.sample import Sample

DRAINED = "fraud-detection.io/drained-by-tests"
"""A label, because a drain looks into all namespaces."""


@pytest.fixture(scope="module")
def sturdy(installed: Installed) -> Iterator[Release]:
    """A release for faults."""
    with installed("faults", api={"podLabels": {DRAINED: "true"}}) as release:
        yield release


@pytest.fixture
def rows(sturdy: Release, sample: Sample) -> list[list[float]]:
    """What the load scores."""
    return sample.scaled(sample.calm, sturdy.get("/model")["amount_scaling"])


def test_kill_9_during_writes(sturdy: Release, rows: Sequence[Sequence[float]], figure: Callable[[str], None]) -> None:
    restarts = _restarts(sturdy)
    kills: list[float] = []
    with traffic(sturdy, rows, name="killed") as load:
        for times in (1, 2):
            kills.append(time.time())
            sturdy.kill_container(sturdy.pods()[0])
            wait_for("the container's restart", functools.partial(_has_restarted, sturdy, restarts + times))
            sturdy.api_pod()
            time.sleep(3)  # for some writes between the two
        seen = load.stop()

    assert seen.failures, "no request failed, so the kill -9 did not happen"
    _assert_nothing_is_lost(sturdy, seen, "killed")
    recovered = " and ".join(f"{seen.last_failure_before(end) - begin:.1f} s" for begin, end in pairwise([*kills, inf]))
    figure(f"kill -9 twice: {seen}; every request is answered again after {recovered} (Kubernetes itself waits 10 s)")


def test_eviction(sturdy: Release, rows: Sequence[Sequence[float]], figure: Callable[[str], None]) -> None:
    with traffic(sturdy, rows, name="evicted") as load:
        evicted = sturdy.api_pod()
        metadata = kubernetes.client.V1ObjectMeta(name=evicted, namespace=sturdy.namespace.name)
        sturdy.namespace.cluster.core.create_namespaced_pod_eviction(
            evicted, sturdy.namespace.name, kubernetes.client.V1Eviction(metadata=metadata)
        )
        wait_for("another ready pod", lambda: [pod for pod in sturdy.pods() if is_ready(pod)])
        sturdy.wait_until_rolled_out()
        seen = load.stop()

    _assert_nothing_is_lost(sturdy, seen, "evicted")
    figure(f"eviction: {seen}")


def test_a_node_that_is_drained_and_comes_back(
    sturdy: Release, rows: Sequence[Sequence[float]], figure: Callable[[str], None]
) -> None:
    cluster = sturdy.namespace.cluster
    with sturdy.api() as api:
        api.predict(rows[:100], [f"drained-{number}" for number in range(100)])
    before = stored_rows(sturdy.sql, "drained")
    node = sturdy.pods()[0].spec.node_name
    try:
        ours = ("--pod-selector", DRAINED, "--ignore-daemonsets", "--delete-emptydir-data", "--timeout=120s")
        cluster.kubectl("drain", node, *ours)
        time.sleep(5)
        assert not [pod for pod in sturdy.pods() if pod.spec.node_name == node]
    finally:
        cluster.kubectl("uncordon", node)
    back = time.monotonic()
    sturdy.api_pod()
    seconds = time.monotonic() - back

    assert _stored_in_one_piece(sturdy, "drained") == before
    assert len(before) == 100
    figure(f"node drained and uncordoned: serves {seconds:.0f} s after the uncordon")


def test_a_pod_that_is_deleted_at_once_is_noticed_by_the_load(sturdy: Release, rows: Sequence[Sequence[float]]) -> None:
    """The control of every `0 failed`: if a pod is deleted at once, requests fail and the load counts them."""
    with traffic(sturdy, rows, name="torn") as load:
        sturdy.namespace.kubectl("delete", "pod", sturdy.api_pod(), "--grace-period=0", "--force")
        sturdy.api_pod()
        time.sleep(2)
        seen = load.stop()

    assert seen.failed_with() != {}
    _assert_nothing_is_lost(sturdy, seen, "torn")


def _has_restarted(release: Release, times: int) -> bool:
    return _restarts(release) == times


def _restarts(release: Release) -> int:
    return sum(status.restart_count for status in release.pods()[0].status.container_statuses if status.name == "api")


def _stored_in_one_piece(release: Release, name: str) -> Stored:
    assert release.sql("PRAGMA integrity_check") == [["ok"]]
    return stored_rows(release.sql, name)


def _assert_nothing_is_lost(release: Release, seen: Seen, name: str) -> None:
    """Assert that answered rows are stored once, and rows without an answer at most once."""
    stored = _stored_in_one_piece(release, name)
    assert lost_or_altered(seen.answers, stored) == []
    assert [transaction_id for transaction_id, rows in stored.items() if len(rows) > 1] == []
