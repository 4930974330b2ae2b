"""Every pod is locked down, only one may use the Kubernetes API, and secrets are only in files."""

import base64
import re
from typing import Any

import kubernetes_validate
import pytest

from tests.chart.api_schemas import VERSIONS
from tests.chart.helm import CI, Helm, Manifest, Pod, named, pods
from tests.chart.pod_security import violations

RETRAIN = "CronJob fraud-fraud-detection-retrain"


@pytest.fixture(params=CI)
def all_pods(helm: Helm, request: pytest.FixtureRequest) -> list[Pod]:
    """Every pod of an installation, for each ci file."""
    return pods(helm.render(ci=request.param))


def test_every_pod_passes_pod_security_restricted(all_pods: list[Pod]) -> None:
    assert {pod.owner: violations(pod) for pod in all_pods if violations(pod)} == {}


def test_every_container_has_requests_and_limits(all_pods: list[Pod]) -> None:
    for pod in all_pods:
        for container in pod.containers:
            resources = container["resources"]
            assert {"cpu", "memory"} <= set(resources["requests"]), (pod.owner, container["name"])
            assert {"cpu", "memory"} <= set(resources["limits"]), (pod.owner, container["name"])


def test_every_container_has_a_root_that_is_read_only(all_pods: list[Pod]) -> None:
    for pod in all_pods:
        for container in pod.containers:
            assert container["securityContext"]["readOnlyRootFilesystem"] is True, (pod.owner, container["name"])


def modes_of_secrets(found: list[Pod]) -> set[int]:
    """Return the mode of each volume that holds a Secret."""
    volumes = [volume for pod in found for volume in pod.spec.get("volumes", [])]
    sources = [source for volume in volumes for kind, source in volume.items() if kind in ("secret", "projected")]
    return {
        source.get("defaultMode", 0o644)
        for source in sources
        if "secretName" in source or any("secret" in each for each in source["sources"])
    }


def test_files_of_secrets_are_for_the_group_of_the_pod_alone(all_pods: list[Pod]) -> None:
    assert modes_of_secrets(all_pods) == {0o440}


def test_files_of_secrets_can_be_read_without_a_group_of_the_pod(helm: Helm) -> None:
    assert modes_of_secrets(pods(helm.render({"podSecurityContext": {"fsGroup": None}}, ci="full"))) == {0o444}


def test_every_pod_runs_as_the_user_and_group_that_own_the_volume(helm: Helm) -> None:
    for pod in pods(helm.render(ci="full")):
        context = pod.spec["securityContext"]
        assert context["runAsUser"] == 10001, pod.owner
        assert context["fsGroup"] == 10001, pod.owner
        assert context["fsGroupChangePolicy"] == "OnRootMismatch", pod.owner


def test_leaves_users_and_groups_to_openshift(helm: Helm) -> None:
    for pod in pods(helm.render(ci="openshift")):
        for context in (pod.spec["securityContext"], *(c["securityContext"] for c in pod.containers)):
            assert not {"runAsUser", "runAsGroup", "fsGroup"} & set(context), pod.owner


@pytest.mark.parametrize(
    ("adapt", "api_versions", "fixed"),
    [
        ("auto", (), True),
        ("auto", ("security.openshift.io/v1",), False),
        ("force", (), False),
        ("disabled", ("security.openshift.io/v1",), True),
    ],
)
def test_fixed_users_are_dropped_where_openshift_is_seen(
    helm: Helm, adapt: str, api_versions: tuple[str, ...], fixed: bool
) -> None:
    values = {"openshift": {"adaptSecurityContext": adapt}}

    for pod in pods(helm.render(values, api_versions=api_versions)):
        assert ("runAsUser" in pod.spec["securityContext"]) is fixed, pod.owner


def has_token(pod: Pod) -> bool:
    """Say whether a token of the Kubernetes API is mounted, by the account or as a volume."""
    return pod.spec.get("automountServiceAccountToken") is not False or "serviceAccountToken" in str(pod.spec)


def test_no_pod_but_that_of_retraining_has_a_service_account_token(all_pods: list[Pod]) -> None:
    assert {pod.owner for pod in all_pods if has_token(pod)} <= {RETRAIN}


@pytest.mark.parametrize(("mode", "owners"), [("restart", {RETRAIN}), ("reload", set()), ("none", set())])
def test_retraining_has_a_token_and_a_role_when_it_restarts(helm: Helm, mode: str, owners: set[str]) -> None:
    manifests = helm.render({"jobs": {"retrain": {"rollout": {"mode": mode}}}})

    assert {pod.owner for pod in pods(manifests) if has_token(pod)} == owners
    assert {m["kind"] for m in manifests} & {"Role", "RoleBinding"} == ({"Role", "RoleBinding"} if owners else set())


def test_the_token_of_retraining_is_short_lived_and_where_clients_look(helm: Helm) -> None:
    [pod] = [pod for pod in pods(helm.render()) if pod.owner == RETRAIN]
    [volume] = [volume for volume in pod.spec["volumes"] if "serviceAccountToken" in str(volume)]
    [mount] = [mount for mount in pod.containers[0]["volumeMounts"] if mount["name"] == volume["name"]]

    assert volume["projected"]["sources"][0] == {"serviceAccountToken": {"path": "token", "expirationSeconds": 3600}}
    assert mount["mountPath"] == "/var/run/secrets/kubernetes.io/serviceaccount"
    assert mount["readOnly"] is True


def test_no_service_account_mounts_its_token_by_itself(helm: Helm) -> None:
    accounts = [manifest for manifest in helm.render(ci="full") if manifest["kind"] == "ServiceAccount"]

    assert accounts
    for account in accounts:
        assert account["automountServiceAccountToken"] is False, account["metadata"]["name"]


def test_retraining_may_get_and_patch_one_deployment(helm: Helm) -> None:
    manifests = helm.render()
    role, binding = named(manifests, "Role"), named(manifests, "RoleBinding")
    [retrain] = [pod for pod in pods(manifests) if pod.owner == RETRAIN]

    assert role["rules"] == [
        {
            "apiGroups": ["apps"],
            "resources": ["deployments"],
            "resourceNames": ["fraud-fraud-detection-api"],
            "verbs": ["get", "patch"],
        }
    ]
    assert binding["roleRef"] == {
        "apiGroup": "rbac.authorization.k8s.io",
        "kind": "Role",
        "name": role["metadata"]["name"],
    }
    assert binding["subjects"] == [
        {"kind": "ServiceAccount", "name": retrain.spec["serviceAccountName"], "namespace": "fraud"}
    ]
    assert {m["kind"] for m in manifests} & {"ClusterRole", "ClusterRoleBinding"} == set()


def test_no_role_is_rendered_if_the_installation_has_its_own(helm: Helm) -> None:
    kinds = {m["kind"] for m in helm.render({"rbac": {"create": False}})}

    assert not kinds & {"Role", "RoleBinding"}


POLICY = {"rbac": {"restrictPatchWithAdmissionPolicy": True}}


def test_the_admission_policy_binds_the_account_of_retraining(helm: Helm) -> None:
    manifests = helm.render(POLICY)
    policy, binding = (
        named(manifests, "ValidatingAdmissionPolicy"),
        named(manifests, "ValidatingAdmissionPolicyBinding"),
    )

    assert policy["spec"]["failurePolicy"] == "Fail"
    assert policy["spec"]["matchConstraints"]["resourceRules"] == [
        {"apiGroups": ["apps"], "apiVersions": ["*"], "operations": ["UPDATE"], "resources": ["deployments"]}
    ]
    assert [condition["expression"] for condition in policy["spec"]["matchConditions"]] == [
        "request.userInfo.username == 'system:serviceaccount:fraud:fraud-fraud-detection-retrain'"
    ]
    assert binding["spec"] == {
        "policyName": policy["metadata"]["name"],
        "validationActions": ["Deny"],
        "matchResources": {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "fraud"}}},
    }
    assert "fraud" in policy["metadata"]["name"].split(
        "-"
    )  # the namespace, because policies have none and two releases must not share one


def test_the_admission_policy_leaves_two_annotations_and_watches_the_rest(helm: Helm) -> None:
    spec = named(helm.render(POLICY), "ValidatingAdmissionPolicy")["spec"]
    variables = {variable["name"]: variable["expression"] for variable in spec["variables"]}
    rules = " ".join(validation["expression"] for validation in spec["validations"])

    assert variables["ours"] == "['fraud-detection.io/model-digest', 'kubectl.kubernetes.io/restartedAt']"
    fields = fields_of("io.k8s.api.apps.v1.DeploymentSpec")
    assert {"template", "replicas"} < fields
    for field in fields - {"template"}:
        assert re.search(rf"object\.spec\.\??{field} == oldObject\.spec\.\??{field}\b", rules), field
    assert "object.spec.template.spec == oldObject.spec.template.spec" in rules


def fields_of(definition: str) -> set[str]:
    """Return the fields of a Kubernetes type in the newest version: the policy must name all of them."""
    schemas = kubernetes_validate.utils.schema_contents(
        f"kubernetes-json-schema/v{VERSIONS[-1]}-local-strict/_definitions.json", VERSIONS[-1]
    )
    return set(schemas["$defs"][definition]["properties"])


def test_there_is_no_admission_policy_unless_it_is_asked_for(helm: Helm) -> None:
    assert not {m["kind"] for m in helm.render()} & {"ValidatingAdmissionPolicy", "ValidatingAdmissionPolicyBinding"}


def test_makes_no_secret_when_one_is_there(helm: Helm) -> None:
    values = {"auth": {"existingSecret": "tokens"}, "database": {"mode": "postgresql", "existingSecret": "db"}}
    manifests = helm.render(values)

    assert "Secret" not in {m["kind"] for m in manifests}
    mounted = [
        re.findall(r"'secret': {'name': '(.+?)'|'secretName': '(.+?)'", str(pod.spec)) for pod in pods(manifests)
    ]
    assert {name for names in mounted for both in names for name in both if name} == {"tokens", "db"}


def test_generates_a_token_once_and_keeps_it(helm: Helm) -> None:
    secret = named(helm.render(ci="no-monitoring", values={"auth": {"existingSecret": ""}}), "Secret")

    assert set(secret["data"]) == {"api-token", "metrics-token"}
    for encoded in secret["data"].values():
        assert len(base64.b64decode(encoded)) >= 32
    assert len(set(secret["data"].values())) == 2
    assert secret["metadata"]["annotations"]["helm.sh/resource-policy"] == "keep"


def test_a_generated_token_is_only_in_its_secret(helm: Helm) -> None:
    """A checksum over it is nowhere either, because it would restart the pods at each render."""
    manifests = helm.render({"auth": {"existingSecret": ""}})
    generated = named(manifests, "Secret")["data"].values()

    elsewhere = repr([m for m in manifests if m["kind"] != "Secret"])
    for encoded in generated:
        assert encoded not in elsewhere
        assert base64.b64decode(encoded).decode() not in elsewhere


def secret_references(container: Manifest) -> list[Any]:
    return [e for e in container.get("env", []) if "secretKeyRef" in e.get("valueFrom", {})]


def test_secrets_come_as_files_and_not_as_variables(all_pods: list[Pod]) -> None:
    for pod in all_pods:
        for container in pod.containers:
            assert secret_references(container) == [], (pod.owner, container["name"])
            for variable in container.get("env", []):
                assert variable["name"] not in {"API_TOKEN", "API_TOKEN_PREVIOUS", "METRICS_TOKEN", "DATABASE_URL"}, (
                    pod.owner
                )
