"""The pods that share a volume run on one node, and the chart refuses what SQLite does not survive."""

from typing import Any

import pytest

from tests.chart.helm import CI, Helm, Pod, named, pods

NAME = "fraud-fraud-detection"
LABEL = "fraud-detection.io/data-volume"
POSTGRESQL = {"database": {"mode": "postgresql", "existingSecret": "db"}}
SEVERAL_NODES = POSTGRESQL | {"persistence": {"models": {"enabled": True, "accessMode": "ReadWriteMany"}}}


def claims_of(pod: Pod) -> set[str]:
    return {
        v["persistentVolumeClaim"]["claimName"] for v in pod.spec.get("volumes", []) if "persistentVolumeClaim" in v
    }


def required_neighbours(pod: Pod) -> list[Any]:
    affinity = pod.spec.get("affinity", {}).get("podAffinity", {})
    required: list[Any] = affinity.get("requiredDuringSchedulingIgnoredDuringExecution", [])
    return required


def by_owner(found: list[Pod]) -> dict[str, Pod]:
    return {pod.owner: pod for pod in found}


@pytest.mark.parametrize("ci", CI)
def test_exactly_the_pods_that_share_a_volume_share_label_and_node(helm: Helm, ci: str) -> None:
    manifests = helm.render(ci=ci)
    found = pods(manifests)
    on_many_nodes = {
        m["metadata"]["name"]
        for m in manifests
        if m["kind"] == "PersistentVolumeClaim" and m["spec"]["accessModes"] == ["ReadWriteMany"]
    }
    mounted = [claim for pod in found for claim in claims_of(pod) - on_many_nodes]
    shared = {claim for claim in mounted if mounted.count(claim) > 1}

    for pod in found:
        label = pod.metadata["labels"].get(LABEL)
        term = {"labelSelector": {"matchLabels": {LABEL: label}}, "topologyKey": "kubernetes.io/hostname"}
        assert (label is not None) is bool(claims_of(pod) & shared), pod.owner
        assert [t for t in required_neighbours(pod) if LABEL in str(t)] == ([term] if label else []), pod.owner
        for neighbour in found:
            if claims_of(pod) & claims_of(neighbour) & shared:
                assert neighbour.metadata["labels"][LABEL] == label, (pod.owner, neighbour.owner)


@pytest.mark.parametrize(
    ("ci", "path", "claim"),
    [
        ("default", ("persistence",), "data"),
        ("postgresql", ("persistence", "models"), "models"),
        ("default", ("pushgateway", "persistence"), "pushgateway"),
    ],
)
def test_a_claim_can_name_its_volume(helm: Helm, ci: str, path: tuple[str, ...], claim: str) -> None:
    binding = {"volumeName": "disk-7", "selector": {"matchLabels": {"disk": "fast"}}}
    values: dict[str, Any] = {**binding, "labels": {"team": "risk"}, "storageClass": "local"}
    for name in reversed(path):
        values = {name: values}

    found = named(helm.render(values, ci=ci), "PersistentVolumeClaim", f"{NAME}-{claim}")

    assert {field: found["spec"][field] for field in binding} == binding
    assert found["spec"]["storageClassName"] == "local"
    assert found["metadata"]["labels"]["team"] == "risk"
    assert found["metadata"]["labels"]["app.kubernetes.io/managed-by"] == "Helm"


def test_api_and_every_job_are_pods_of_the_volume(helm: Helm) -> None:
    found = pods(helm.render(ci="full"))

    assert {pod.owner for pod in found if pod.metadata["labels"].get(LABEL) == f"{NAME}-data"} == {
        f"Deployment {NAME}-api",
        *(f"CronJob {NAME}-{job}" for job in ("detect-drift", "retrain", "backup", "fraudctl")),
    }


@pytest.mark.parametrize("part", ["api", "jobs"])
def test_an_affinity_of_the_values_stays_beside_that_of_the_volume(helm: Helm, part: str) -> None:
    theirs: dict[str, Any] = {
        "nodeAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [{"weight": 1, "preference": {}}]},
        "podAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [{"topologyKey": "zone"}]},
    }
    manifests = helm.render({"api": {"affinity": theirs}, "jobs": {"common": {"affinity": theirs}}})
    pod = by_owner(pods(manifests))[f"Deployment {NAME}-api" if part == "api" else f"CronJob {NAME}-retrain"]

    assert pod.spec["affinity"]["nodeAffinity"] == theirs["nodeAffinity"]
    assert required_neighbours(pod)[1:] == [{"topologyKey": "zone"}]
    assert LABEL in str(required_neighbours(pod)[0])


def test_a_claim_of_ours_is_kept_and_names_no_class_and_no_version(helm: Helm) -> None:
    claim = named(helm.render(), "PersistentVolumeClaim", f"{NAME}-data")

    assert claim["metadata"]["annotations"] == {"helm.sh/resource-policy": "keep"}
    assert claim["spec"] == {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "10Gi"}}}
    assert "0.1.0" not in str(claim["metadata"])


@pytest.mark.parametrize(("given", "class_name"), [("fast", "fast"), ("-", "")])
def test_a_class_is_named_when_it_is_given(helm: Helm, given: str, class_name: str) -> None:
    claim = named(helm.render({"persistence": {"storageClass": given}}), "PersistentVolumeClaim", f"{NAME}-data")

    assert claim["spec"]["storageClassName"] == class_name


def test_a_claim_is_deleted_with_its_release_if_that_is_wanted(helm: Helm) -> None:
    claim = named(helm.render({"persistence": {"retain": False}}), "PersistentVolumeClaim", f"{NAME}-data")

    assert "annotations" not in claim["metadata"]


def test_makes_no_claim_when_one_is_there(helm: Helm) -> None:
    values = {"persistence": {"existingClaim": "mine"}, "pushgateway": {"persistence": {"existingClaim": "push"}}}
    manifests = helm.render(values)

    assert "PersistentVolumeClaim" not in {m["kind"] for m in manifests}
    assert {claim for pod in pods(manifests) for claim in claims_of(pod)} == {"mine", "push"}


def test_the_backup_goes_to_a_claim_that_the_chart_does_not_make(helm: Helm) -> None:
    manifests = helm.render({"jobs": {"backup": {"enabled": True, "existingClaim": "elsewhere"}}})
    found = by_owner(pods(manifests))

    assert "elsewhere" not in {
        m["metadata"]["name"] for m in manifests
    }  # otherwise `helm --wait` waits for the first night
    for job in ("backup", "fraudctl"):
        assert claims_of(found[f"CronJob {NAME}-{job}"]) == {f"{NAME}-data", "elsewhere"}
    assert "elsewhere" not in claims_of(found[f"CronJob {NAME}-retrain"])


MODELS_AND_WRITERS = {"bootstrap": True, "api": False, "detect-drift": False, "retrain": True, "fraudctl": True}


@pytest.mark.parametrize("values", [{}, POSTGRESQL, SEVERAL_NODES], ids=["sqlite", "postgresql", "several-nodes"])
def test_only_containers_that_make_models_can_write_them(helm: Helm, values: dict[str, Any]) -> None:
    found = {c["name"]: c for pod in pods(helm.render(values)) for c in pod.containers}

    for name, writes in MODELS_AND_WRITERS.items():
        [mount] = [m for m in found[name]["volumeMounts"] if m["mountPath"] == "/app/models"]
        assert mount.get("readOnly", False) is not writes, name


def test_the_data_can_be_written_since_sqlite_needs_it_even_to_read(helm: Helm) -> None:
    found = {c["name"]: c for pod in pods(helm.render()) for c in pod.containers}

    for name in MODELS_AND_WRITERS:
        [data] = [m for m in found[name]["volumeMounts"] if m["mountPath"] == "/app/data"]
        assert data == {"name": "data", "mountPath": "/app/data", "subPath": "data"}, name


def test_postgresql_runs_on_several_nodes_with_a_claim_that_many_may_write(helm: Helm) -> None:
    values = SEVERAL_NODES | {"api": {"replicas": 3, "hpa": {"enabled": True}}}
    manifests = helm.render(values)
    api = by_owner(pods(manifests))[f"Deployment {NAME}-api"]

    assert claims_of(api) == {f"{NAME}-models"}
    assert "affinity" not in api.spec
    assert LABEL not in api.metadata["labels"]
    assert named(manifests, "PersistentVolumeClaim", f"{NAME}-models")["spec"]["accessModes"] == ["ReadWriteMany"]
    assert named(manifests, "HorizontalPodAutoscaler")["spec"]["scaleTargetRef"]["name"] == f"{NAME}-api"
    assert "replicas" not in named(manifests, "Deployment", f"{NAME}-api")["spec"]


def test_postgresql_runs_several_pods_on_the_node_of_the_models(helm: Helm) -> None:
    manifests = helm.render(POSTGRESQL | {"api": {"replicas": 2}})
    api = by_owner(pods(manifests))[f"Deployment {NAME}-api"]

    assert named(manifests, "Deployment", f"{NAME}-api")["spec"]["replicas"] == 2
    assert len(required_neighbours(api)) == 1


@pytest.mark.parametrize("ci", ["full", "no-persistence"])
def test_no_pod_can_fill_its_node(helm: Helm, ci: str) -> None:
    found = [
        (pod.owner, volume)
        for pod in pods(helm.render(ci=ci))
        for volume in pod.spec.get("volumes", [])
        if "emptyDir" in volume
    ]

    assert found
    for owner, volume in found:
        assert volume["emptyDir"]["sizeLimit"], (owner, volume["name"])
