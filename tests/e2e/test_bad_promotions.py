"""A model that cannot serve does not serve, and an interrupted promotion is finished."""

import json
import time
from collections.abc import Callable, Iterator, Sequence

import pytest

from tests.e2e.cluster import wait_for
from tests.e2e.release import MODELS, NAME, Installed, Release
from tests.e2e.traffic import LEAST_RATE, Seen, lost_or_altered, stored_rows, traffic
from tests.support.sample import Sample

MARK = f"{MODELS}/spoil-all-but"
"""Where a test names the only version whose bytes stay whole."""

SPOIL = f"""
import os, pathlib
mark, current = pathlib.Path("{MARK}"), pathlib.Path("{MODELS}/current")
if mark.exists() and os.readlink(current) != mark.read_text().strip():
    (current / "model.onnx").write_bytes(b"what a bad disk gives back")
"""
"""Runs before each new pod of the API: the job still found the version whole, the pod does not."""

PUT_BY_HAND = f"""
cd {MODELS}
cp -r "$(readlink current)" by-hand
printf 'not a model' > by-hand/model.onnx
ln -sfn by-hand current
"""


@pytest.fixture(scope="module")
def trained(installed: Installed, sample: Sample) -> Iterator[Release]:
    """A release with history, whose new pods find a damaged model when a test says so."""
    rollout = {"timeoutSeconds": 60}  # longer than Kubernetes waits before it reports a failed rollout
    with installed("bad", api={"progressDeadlineSeconds": 50}, jobs={"retrain": {"rollout": rollout}}) as release:
        image = release.deployment.spec.template.spec.containers[0].image
        spoiler = {
            "name": "spoiler",
            "image": image,
            "args": ["-c", SPOIL],
            "resources": release.values["api"]["resources"],
            "securityContext": {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            },
            "volumeMounts": [{"name": "data", "mountPath": MODELS, "subPath": "models"}],
        }
        release.upgrade(api={"progressDeadlineSeconds": 50, "initContainers": [spoiler]})
        with release.admin() as admin:
            admin.run("fraudctl", "import-csv", "/dev/stdin", stdin=sample.text(sample.history))
        yield release


@pytest.fixture
def rows(trained: Release, sample: Sample) -> list[list[float]]:
    """What the load scores."""
    return sample.scaled(sample.calm, trained.get("/model")["amount_scaling"])


@pytest.mark.prometheus
def test_a_corrupt_model_that_is_put_in_place_by_hand_never_serves(
    trained: Release, rows: Sequence[Sequence[float]], figure: Callable[[str], None]
) -> None:
    before, version, since = trained.get("/model"), trained.current().version, time.time()
    with traffic(trained, rows, name="by-hand") as load:
        with trained.admin() as admin:
            admin.run("sh", "-ec", PUT_BY_HAND)
        trained.namespace.kubectl("rollout", "restart", f"deployment/{NAME}-api")
        said = wait_for("the new pod's refusal", lambda: _refusal_of_the_newest_pod(trained))
        retraining = trained.namespace.wait_for_job(trained.start_job("retrain", "after-by-hand"))
        trained.wait_until_rolled_out()
        seen = load.stop()

    assert "by-hand" in said
    assert (retraining.succeeded, retraining.exit_codes) == (False, [4]), retraining.log
    assert trained.get("/model") == before
    assert trained.current().version == version
    _assert_no_client_noticed(trained, seen, "by-hand")
    assert seen.digests == [before["digest"][:12]]
    _wait_for_the_alert(trained, since)
    figure(f"a corrupt model by hand: refused and rolled back, {seen}")


@pytest.mark.prometheus
def test_a_new_model_that_does_not_serve_is_rolled_back(
    trained: Release, rows: Sequence[Sequence[float]], figure: Callable[[str], None]
) -> None:
    before, version, since = trained.get("/model"), trained.current().version, time.time()
    with trained.admin() as admin:
        admin.run("sh", "-ec", f"printf {version} > {MARK}")
    with traffic(trained, rows, name="taken-back") as load:
        retraining = trained.namespace.wait_for_job(trained.start_job("retrain", "to-fail", force=True))
        trained.wait_until_rolled_out()
        seen = load.stop()
    with trained.admin() as admin:
        journal = [json.loads(line) for line in admin.run("cat", f"{MODELS}/promotions.jsonl").splitlines()]
        admin.run("rm", MARK)

    assert (retraining.succeeded, retraining.exit_codes) == (False, [4]), retraining.log
    assert [entry["event"] for entry in journal[-3:]] == ["promoted", "restored", "verified"]
    assert journal[-1]["version"] == version
    assert trained.get("/model") == before
    _assert_no_client_noticed(trained, seen, "taken-back")
    assert seen.digests == [before["digest"][:12]]
    _wait_for_the_alert(trained, since)
    figure(f"a new model that does not serve: job {retraining.seconds:.0f} s until taken back, {seen}")


def test_a_promotion_of_a_killed_job_is_finished_by_its_next_attempt(
    trained: Release, rows: Sequence[Sequence[float]], figure: Callable[[str], None]
) -> None:
    before = trained.get("/model")
    generation = trained.deployment.metadata.generation
    with traffic(trained, rows, name="job-killed") as load:
        job = trained.start_job("retrain", "to-be-killed", force=True)
        wait_for("the restart", lambda: trained.deployment.metadata.generation > generation, seconds=300)
        [pod] = trained.namespace.pods(f"job-name={job}")
        trained.kill_container(pod)
        ended = trained.namespace.wait_for_job(job)
        trained.wait_until_rolled_out()
        seen = load.stop()

    served, current = trained.get("/model"), trained.current()
    assert ended.succeeded, ended.log
    assert ended.exit_codes == [137, 0]
    assert "finishing the promotion" in ended.log
    assert served["digest"] == current.model_sha256 != before["digest"]
    assert trained.deployment.metadata.generation == generation + 1
    _assert_no_client_noticed(trained, seen, "job-killed")
    figure(f"a job killed during its promotion: finished by the next attempt, {seen}")


def _refusal_of_the_newest_pod(release: Release) -> str | None:
    """Return the last messages of the newest pod's containers when one of them has failed."""
    pod = release.pods()[-1]
    logs = ""
    for container in ("bootstrap", "api"):
        for which in ((), ("--previous",)):
            said = release.namespace.kubectl("logs", pod.metadata.name, "-c", container, *which, exit_code=None)
            logs += said.stdout
    return logs if "by-hand" in logs else None


def _assert_no_client_noticed(release: Release, seen: Seen, name: str) -> None:
    assert seen.rate >= LEAST_RATE
    assert seen.failed_with() == {}
    assert lost_or_altered(seen.answers, stored_rows(release.sql, name)) == []


def _wait_for_the_alert(release: Release, since: float) -> None:
    """Wait for the alert of a retraining that ended after `since`."""
    pushed = "fraud_job_last_attempt_timestamp_seconds"
    ended = f'{pushed}{{namespace="{release.namespace.name}", job="fraud-retrain"}} > {since}'
    wait_for("the retraining's figures", lambda: release.namespace.cluster.series(ended))
    alert = f'ALERTS{{alertname="FraudModelRestored", alertstate="firing", namespace="{release.namespace.name}"}}'
    wait_for("alert FraudModelRestored", lambda: release.namespace.cluster.series(alert))
