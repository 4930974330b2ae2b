"""CronJobs neither pile up, nor repeat what cannot succeed, nor fail unseen."""

from typing import Any

import pytest

from tests.chart.helm import Helm, Manifest, named

NAME = "fraud-fraud-detection"
ALL = {"jobs": {"backup": {"enabled": True, "existingClaim": "backups"}}}
JOBS = ["detect-drift", "retrain", "backup", "fraudctl"]


def cronjob(helm: Helm, name: str, values: dict[str, Any] | None = None) -> Manifest:
    spec: Manifest = named(helm.render(values or ALL), "CronJob", f"{NAME}-{name}")["spec"]
    return spec


def container(spec: Manifest) -> Manifest:
    [found] = spec["jobTemplate"]["spec"]["template"]["spec"]["containers"]
    assert isinstance(found, dict)
    return found


@pytest.mark.parametrize("name", JOBS)
def test_a_missed_start_is_left_out_and_never_ends_the_schedule(helm: Helm, name: str) -> None:
    spec = cronjob(helm, name)

    assert spec["concurrencyPolicy"] == "Forbid"
    assert spec["startingDeadlineSeconds"] == 600
    assert spec["timeZone"] == "Etc/UTC"
    assert (spec["successfulJobsHistoryLimit"], spec["failedJobsHistoryLimit"]) == (3, 3)


@pytest.mark.parametrize("name", JOBS)
def test_a_failure_that_would_repeat_is_not_repeated(helm: Helm, name: str) -> None:
    spec = cronjob(helm, name)
    job = spec["jobTemplate"]["spec"]

    assert job["backoffLimit"] == 1
    assert job["template"]["spec"]["restartPolicy"] == "Never"
    assert job["ttlSecondsAfterFinished"] == 86400
    assert job["podFailurePolicy"] == {
        "rules": [
            {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]},
            {
                "action": "FailJob",
                "onExitCodes": {"containerName": container(spec)["name"], "operator": "In", "values": [2, 3, 4]},
            },
        ]
    }


def test_a_pod_that_cannot_start_fails_visibly(helm: Helm) -> None:
    deadlines = {name: cronjob(helm, name)["jobTemplate"]["spec"]["activeDeadlineSeconds"] for name in JOBS}

    assert deadlines == {"detect-drift": 3600, "retrain": 7200, "backup": 3600, "fraudctl": 15000}


def test_the_pod_for_people_runs_only_on_request(helm: Helm) -> None:
    suspended = {name: cronjob(helm, name)["suspend"] for name in JOBS}

    assert suspended == {"detect-drift": False, "retrain": False, "backup": False, "fraudctl": True}
    assert container(cronjob(helm, "fraudctl"))["command"] == ["sleep", "14400"]


@pytest.mark.parametrize(
    ("name", "command"),
    [
        ("detect-drift", ["python", "-m", "jobs.detect_drift"]),
        ("retrain", ["python", "-m", "jobs.retrain"]),
        ("backup", ["fraudctl", "db", "backup", "--into", "/backups", "--keep", "7"]),
    ],
)
def test_what_a_job_runs(helm: Helm, name: str, command: list[str]) -> None:
    ran = container(cronjob(helm, name))

    assert ran["command"] == command
    assert "args" not in ran


@pytest.mark.parametrize(
    ("key", "name"),
    [("detectDrift", "detect-drift"), ("retrain", "retrain"), ("backup", "backup"), ("fraudctl", "fraudctl")],
)
def test_every_job_can_be_switched_off(helm: Helm, key: str, name: str) -> None:
    rest = [f"{NAME}-{job}" for job in JOBS if job != name]
    switches = {"backup": {"enabled": True, "existingClaim": "backups"}} | {key: {"enabled": False}}
    manifests = helm.render({"jobs": switches})

    assert sorted(m["metadata"]["name"] for m in manifests if m["kind"] == "CronJob") == sorted(rest)


@pytest.mark.parametrize(
    ("key", "name"), [("detectDrift", "detect-drift"), ("retrain", "retrain"), ("backup", "backup")]
)
def test_schedules_can_be_set(helm: Helm, key: str, name: str) -> None:
    theirs = {"schedule": "15 4 * * 1", "timeZone": "Europe/Berlin", "suspend": True}
    values = {**ALL["jobs"], key: ALL["jobs"].get(key, {}) | theirs}
    spec = cronjob(helm, name, {"jobs": values})

    assert (spec["schedule"], spec["timeZone"], spec["suspend"]) == ("15 4 * * 1", "Europe/Berlin", True)


def test_the_chart_makes_cronjobs_and_no_jobs_or_hooks(helm: Helm) -> None:
    """An upgrade cannot change a Job, and a hook that runs before the claim is bound waits for ever."""
    manifests = helm.render(ci="full")

    assert "Job" not in {m["kind"] for m in manifests}
    hooks = {a["helm.sh/hook"] for m in manifests if "helm.sh/hook" in (a := m["metadata"].get("annotations", {}))}
    assert hooks == {"test"}


def test_a_training_takes_no_more_threads_than_its_limit(helm: Helm) -> None:
    ran = container(cronjob(helm, "retrain"))
    told = {variable["name"]: variable["value"] for variable in ran["env"]}

    assert told["OMP_NUM_THREADS"] == told["OPENBLAS_NUM_THREADS"] == told["LOKY_MAX_CPU_COUNT"] == "2"
    assert ran["resources"]["limits"]["cpu"] == "2"


def test_tests_leave_nothing_behind(helm: Helm) -> None:
    probes = [m for m in helm.render() if m["metadata"].get("annotations", {}).get("helm.sh/hook") == "test"]

    assert probes
    for probe in probes:
        assert probe["kind"] == "Pod"
        assert probe["spec"]["restartPolicy"] == "Never"
        assert probe["metadata"]["annotations"]["helm.sh/hook-delete-policy"] == "before-hook-creation,hook-succeeded"
    assert not [m for m in helm.render({"tests": {"enabled": False}}) if m["kind"] == "Pod"]
