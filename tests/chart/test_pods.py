"""Every pod takes the same settings, and each setting reaches all of its containers."""

from typing import Any

import pytest

from tests.chart.helm import Helm, Manifest, Pod, named, pods

NAME = "fraud-fraud-detection"
JOBS = {"detectDrift": "detect-drift", "retrain": "retrain", "backup": "backup", "fraudctl": "fraudctl"}
ALL_JOBS = [f"CronJob {NAME}-{job}" for job in JOBS.values()]
TESTS = [f"Pod {NAME}-test-{test}" for test in ("metrics-auth", "smoke")]
BACKUP = {"jobs": {"backup": {"enabled": True, "existingClaim": "backups"}}}
POSTGRESQL = {"database": {"mode": "postgresql", "existingSecret": "db"}}

WORKLOADS = [
    pytest.param("api", [f"Deployment {NAME}-api"], id="api"),
    pytest.param("jobs.common", ALL_JOBS, id="jobs"),
    *(pytest.param(f"jobs.{key}", [f"CronJob {NAME}-{job}"], id=job) for key, job in JOBS.items()),
    pytest.param("pushgateway", [f"Deployment {NAME}-pushgateway"], id="pushgateway"),
    pytest.param("tests", TESTS, id="tests"),
]
"""Where the settings of pods are among the values, and the owners of these pods."""
every_workload = pytest.mark.parametrize(("path", "owners"), WORKLOADS)

PLACE: dict[str, Any] = {
    "nodeSelector": {"disk": "fast"},
    "tolerations": [{"key": "dedicated", "operator": "Exists"}],
    "affinity": {
        "nodeAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [{"weight": 1, "preference": {}}]}
    },
    "priorityClassName": "high",
    "hostAliases": [{"ip": "10.0.0.9", "hostnames": ["proxy.internal"]}],
    "runtimeClassName": "gvisor",
    "schedulerName": "volcano",
    "dnsPolicy": "None",
    "dnsConfig": {"nameservers": ["10.0.0.53"], "options": [{"name": "ndots", "value": "1"}]},
}


def values_at(path: str, settings: dict[str, Any]) -> dict[str, Any]:
    """Return values with these settings at a path such as jobs.common, with every job enabled."""
    for name in reversed(path.split(".")):
        settings = {name: settings}
    jobs = {"backup": BACKUP["jobs"]["backup"] | settings.get("jobs", {}).get("backup", {})}
    return settings | {"jobs": settings.get("jobs", {}) | jobs}


def by_owner(manifests: list[Manifest]) -> dict[str, Pod]:
    return {pod.owner: pod for pod in pods(manifests)}


def changed_pods(helm: Helm, path: str, settings: dict[str, Any]) -> dict[str, tuple[Pod, Pod]]:
    """Return the pods that these settings change, before and after, by owner."""
    before, after = by_owner(helm.render(BACKUP)), by_owner(helm.render(values_at(path, settings)))
    return {owner: (before[owner], pod) for owner, pod in after.items() if pod != before[owner]}


@every_workload
def test_what_is_set_for_a_pod_reaches_all_of_its_containers(helm4: Helm, path: str, owners: list[str]) -> None:
    settings: dict[str, Any] = {
        "extraEnv": [{"name": "SSL_CERT_FILE", "value": "/etc/ca/ca.pem"}],
        "extraEnvFrom": [{"secretRef": {"name": "more"}}],
        "extraVolumes": [{"name": "ca", "configMap": {"name": "ca"}}],
        "extraVolumeMounts": [{"name": "ca", "mountPath": "/etc/ca", "readOnly": True}],
        "resources": {"limits": {"cpu": "9"}},
    }
    changed = changed_pods(helm4, path, settings)

    assert sorted(changed) == sorted(owners)
    for before, after in changed.values():
        assert after.spec["volumes"] == [*before.spec["volumes"], *settings["extraVolumes"]]
        for was, container in zip(before.containers, after.containers, strict=True):
            assert container["env"] == [*was.get("env", []), *settings["extraEnv"]]
            assert container["envFrom"] == [*was.get("envFrom", []), *settings["extraEnvFrom"]]
            assert container["volumeMounts"] == [*was["volumeMounts"], *settings["extraVolumeMounts"]]
            if path != "jobs.common" or container["name"] != "fraudctl":  # which has resources of its own
                assert container["resources"]["limits"]["cpu"] == "9"


@every_workload
def test_where_and_how_a_pod_runs(helm4: Helm, path: str, owners: list[str]) -> None:
    changed = changed_pods(helm4, path, PLACE)

    followers = TESTS if path == "api" else []  # tests run where the API may run
    assert sorted(changed) == sorted([*owners, *followers])
    for before, after in (changed[owner] for owner in owners):
        selector = before.spec["nodeSelector"] | PLACE["nodeSelector"]
        affinity = before.spec.get("affinity", {}) | PLACE["affinity"]
        assert after.spec == before.spec | PLACE | {"nodeSelector": selector, "affinity": affinity}


@every_workload
def test_labels_and_annotations_of_pods(helm4: Helm, path: str, owners: list[str]) -> None:
    settings = {"podLabels": {"team": "risk"}, "podAnnotations": {"example.com/owner": "risk"}}
    changed = changed_pods(helm4, path, settings)

    assert sorted(changed) == sorted(owners)
    for before, after in changed.values():
        assert after.metadata["labels"] == before.metadata["labels"] | settings["podLabels"]
        assert after.metadata["annotations"] == before.metadata.get("annotations", {}) | settings["podAnnotations"]


@pytest.mark.parametrize(("path", "owners"), WORKLOADS[:-1])  # the pods of tests have no other object
def test_labels_and_annotations_of_one_workload_alone(helm4: Helm, path: str, owners: list[str]) -> None:
    settings = {"labels": {"team": "risk"}, "annotations": {"argocd.argoproj.io/ignore-healthcheck": "true"}}
    changed = []
    for before, after in zip(helm4.render(BACKUP), helm4.render(values_at(path, settings)), strict=True):
        if after["metadata"] != before["metadata"]:
            assert after["metadata"]["labels"] == before["metadata"]["labels"] | settings["labels"]
            assert after["metadata"]["annotations"] == settings["annotations"]
            changed.append(f"{after['kind']} {after['metadata']['name']}")
            if after["kind"] == "CronJob":
                assert (
                    after["spec"]["jobTemplate"]["metadata"].items() >= {"annotations": settings["annotations"]}.items()
                )
                assert after["spec"]["jobTemplate"]["metadata"]["labels"]["team"] == "risk"

    assert sorted(changed) == sorted(owners)
    assert changed_pods(helm4, path, settings) == {}


@every_workload
def test_containers_beside_ours(helm4: Helm, path: str, owners: list[str]) -> None:
    settings: dict[str, Any] = {
        "initContainers": [
            {"name": "wait", "image": "wait"},
            {"name": "log", "image": "log", "restartPolicy": "Always"},
        ],
        "sidecars": [{"name": "proxy", "image": "proxy"}],
    }
    changed = changed_pods(helm4, path, settings)

    assert sorted(changed) == sorted(owners)
    for before, after in changed.values():
        # A sidecar would keep a job from ending, unless it is native.
        ends = after.spec.get("restartPolicy") == "Never"
        native = [{"name": "proxy", "image": "proxy", "restartPolicy": "Always"}] if ends else []
        beside = [] if ends else settings["sidecars"]
        init = [*native, *settings["initContainers"], *before.spec.get("initContainers", [])]
        assert after.spec["initContainers"] == init
        assert after.spec["containers"] == [*before.spec["containers"], *beside]


def test_pods_of_tests_can_be_kept_for_their_logs(helm4: Helm) -> None:
    kept = {"helm.sh/hook-delete-policy": "before-hook-creation"}
    changed = changed_pods(helm4, "tests", {"podAnnotations": kept})

    assert [after.metadata["annotations"] for _, after in changed.values()] == [{"helm.sh/hook": "test"} | kept] * 2


def test_a_job_adds_to_the_settings_of_all_jobs(helm: Helm) -> None:
    common = {
        "extraEnv": [{"name": "A", "value": "all"}, {"name": "B", "value": "all"}],
        "extraVolumeMounts": [{"name": "ca", "mountPath": "/a"}, {"name": "ca", "mountPath": "/b"}],
        "tolerations": [{"key": "one"}],
        "podLabels": {"a": "all", "b": "all"},
        "resources": {"requests": {"cpu": "1"}, "limits": {"cpu": "1"}},
        "priorityClassName": "all",
    }
    own = {
        "extraEnv": [{"name": "B", "value": "own"}],
        "extraVolumeMounts": [{"name": "own", "mountPath": "/b"}],
        "tolerations": [{"key": "two"}],
        "podLabels": {"b": "own"},
        "resources": {"limits": {"memory": "1Gi"}},
        "priorityClassName": "own",
        "ttlSecondsAfterFinished": 1209600,  # which Helm would print as 1.2096e+06
    }
    manifests = helm.render({"jobs": {"common": common, "retrain": own}})
    retrain, drift = (by_owner(manifests)[f"CronJob {NAME}-{job}"] for job in ("retrain", "detect-drift"))
    [container] = retrain.containers

    assert [(e["name"], e["value"]) for e in container["env"]][-2:] == [("A", "all"), ("B", "own")]
    assert [(m["name"], m["mountPath"]) for m in container["volumeMounts"]][-2:] == [("ca", "/a"), ("own", "/b")]
    assert retrain.spec["tolerations"] == [{"key": "one"}, {"key": "two"}]
    assert retrain.metadata["labels"].items() >= {"a": "all", "b": "own"}.items()
    assert container["resources"] == own["resources"]
    assert retrain.spec["priorityClassName"] == "own"
    job = named(manifests, "CronJob", f"{NAME}-retrain")["spec"]["jobTemplate"]["spec"]
    assert str(job["ttlSecondsAfterFinished"]) == "1209600"  # as a whole number
    assert drift.spec["priorityClassName"] == "all"
    assert drift.containers[0]["resources"]["limits"]["cpu"] == "1"


@pytest.mark.parametrize(
    ("theirs", "replaced"),
    [
        ({"name": "OMP_NUM_THREADS", "value": "2"}, "OMP_NUM_THREADS"),
        ({"name": "API_TOKEN_FILE", "value": "/vault/secrets/api-token"}, "API_TOKEN_FILE"),
        ({"name": "API_TOKEN", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}}, "API_TOKEN_FILE"),
    ],
)
def test_a_variable_of_the_installation_replaces_ours(helm: Helm, theirs: dict[str, Any], replaced: str) -> None:
    before = by_owner(helm.render())[f"Deployment {NAME}-api"].container("api")["env"]
    after = by_owner(helm.render({"api": {"extraEnv": [theirs]}}))[f"Deployment {NAME}-api"].container("api")["env"]

    assert replaced in {variable["name"] for variable in before}
    assert after == [*(variable for variable in before if variable["name"] != replaced), theirs]


AMD64 = {"kubernetes.io/os": "linux", "kubernetes.io/arch": "amd64"}


@pytest.mark.parametrize(
    ("of_all", "of_the_api", "selector"),
    [
        ({}, {}, AMD64),
        ({"pool": "fraud"}, {"disk": "fast"}, AMD64 | {"pool": "fraud", "disk": "fast"}),
        ({"kubernetes.io/arch": None}, {}, {"kubernetes.io/os": "linux"}),
        ({"kubernetes.io/arch": ""}, {}, {"kubernetes.io/os": "linux"}),
        ({}, {"kubernetes.io/arch": "arm64"}, AMD64 | {"kubernetes.io/arch": "arm64"}),
        ({}, {"kubernetes.io/arch": ""}, {"kubernetes.io/os": "linux"}),
        ({"kubernetes.io/arch": None, "kubernetes.io/os": None}, {}, None),
    ],
)
def test_pods_run_on_nodes_of_the_images_platform(
    helm: Helm, of_all: dict[str, Any], of_the_api: dict[str, Any], selector: dict[str, str] | None
) -> None:
    manifests = helm.render(BACKUP | {"global": {"nodeSelector": of_all}, "api": {"nodeSelector": of_the_api}})
    found = by_owner(manifests)

    assert found[f"Deployment {NAME}-api"].spec.get("nodeSelector") == selector
    if not of_the_api:
        assert [pod.spec.get("nodeSelector") for pod in found.values()] == [selector] * len(found)


def test_scratch_is_requested_and_can_be_a_claim(helm: Helm) -> None:
    ephemeral = {"storageClassName": "premium-rwo"}
    settings = {"scratchSizeLimit": "60Gi", "scratch": {"ephemeral": ephemeral}}
    changed = changed_pods(helm, "jobs.common", settings)

    assert sorted(changed) == sorted(ALL_JOBS)
    for before, after in changed.values():
        assert before.spec["volumes"][0] == {"name": "tmp", "emptyDir": {"sizeLimit": "12Gi"}}
        assert before.containers[0]["resources"]["requests"]["ephemeral-storage"] == "2Gi"
        claim = after.spec["volumes"][0]["ephemeral"]["volumeClaimTemplate"]
        assert claim["spec"] == ephemeral | {
            "accessModes": ["ReadWriteOnce"],
            "resources": {"requests": {"storage": "60Gi"}},
        }
        assert claim["metadata"]["labels"]["app.kubernetes.io/instance"] == "fraud"


def test_a_claim_for_scratch_can_be_of_the_default_class(helm: Helm) -> None:
    [(_, after)] = changed_pods(helm, "jobs.backup", {"scratch": {"ephemeral": {}}}).values()

    assert "storageClassName" not in after.spec["volumes"][0]["ephemeral"]["volumeClaimTemplate"]["spec"]


def test_the_number_of_pods_can_be_left_to_an_autoscaler(helm: Helm) -> None:
    manifests = helm.render(POSTGRESQL | {"api": {"replicas": None}})

    assert "replicas" not in named(manifests, "Deployment", f"{NAME}-api")["spec"]
    assert named(helm.render({"api": {"replicas": 0}}), "Deployment", f"{NAME}-api")["spec"]["replicas"] == 0
