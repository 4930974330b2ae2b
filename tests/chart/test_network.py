"""Each kind of pod has one policy, which names every connection that it may accept or open."""

from typing import Any

import pytest

from tests.chart.helm import Helm, Manifest, named, pods

NAME = "fraud-fraud-detection"
WHOLE = {"auth": {"existingSecret": "tokens"}, "jobs": {"backup": {"enabled": True, "existingClaim": "backups"}}}
DNS = [{"port": port, "protocol": protocol} for port in (53, 5353) for protocol in ("UDP", "TCP")]
KUBERNETES = [{"port": 443, "protocol": "TCP"}, {"port": 6443, "protocol": "TCP"}]
HTTP = [{"port": 5000, "protocol": "TCP"}]
COMPONENTS = {
    "api": "api", "detectDrift": "detect-drift", "retrain": "retrain", "backup": "backup", "fraudctl": "fraudctl",
    "pushgateway": "pushgateway", "tests": "test",
}  # fmt: skip
"""The components whose rules the values can replace, with the names that their policies end with."""


def namespace(name: str) -> dict[str, Any]:
    return {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": name}}}


def component(name: str) -> dict[str, Any]:
    return {"podSelector": {"matchLabels": selector(name)}}


def selector(name: str) -> dict[str, str]:
    return {
        "app.kubernetes.io/name": "fraud-detection",
        "app.kubernetes.io/instance": "fraud",
        "app.kubernetes.io/component": name,
    }


DNS_RULE = {"to": [namespace("kube-system")], "ports": DNS}
PUSH_RULE = {"to": [component("pushgateway")], "ports": [{"port": 9091, "protocol": "TCP"}]}
API_RULE = {"to": [component("api")], "ports": HTTP}


def policy(helm: Helm, name: str, values: dict[str, Any]) -> Manifest:
    spec: Manifest = named(helm.render(WHOLE | values), "NetworkPolicy", f"{NAME}-{name}")["spec"]
    return spec


@pytest.mark.parametrize("ci", ["default", "full", "postgresql"])
def test_every_pod_has_exactly_one_policy(helm: Helm, ci: str) -> None:
    manifests = helm.render(ci=ci)
    policies = [m["spec"] for m in manifests if m["kind"] == "NetworkPolicy"]

    for pod in pods(manifests):
        chosen = [p for p in policies if p["podSelector"]["matchLabels"].items() <= pod.metadata["labels"].items()]
        assert len(chosen) == 1, pod.owner
        assert chosen[0]["policyTypes"] == ["Ingress", "Egress"], pod.owner


def test_network_policies_can_be_switched_off(helm: Helm) -> None:
    assert "NetworkPolicy" not in {m["kind"] for m in helm.render({"networkPolicy": {"enabled": False}})}


@pytest.mark.parametrize(
    ("values", "peers"),
    [
        ({}, [{"podSelector": {}}, namespace("monitoring")]),
        (
            {"allowSameNamespace": False, "prometheusNamespace": "prom", "ingressFrom": [namespace("ingress-nginx")]},
            [component("retrain"), component("test"), namespace("prom"), namespace("ingress-nginx")],
        ),
    ],
)
def test_who_reaches_the_api(helm: Helm, values: dict[str, Any], peers: list[Any]) -> None:
    assert policy(helm, "api", {"networkPolicy": values})["ingress"] == [{"from": peers, "ports": HTTP}]


def test_the_api_reaches_nothing_with_sqlite_and_its_database_with_postgresql(helm: Helm) -> None:
    with_postgresql = {
        "database": {"mode": "postgresql", "existingSecret": "db"},
        "networkPolicy": {"databasePort": 6432},
    }

    assert "egress" not in policy(helm, "api", {})
    assert policy(helm, "api", with_postgresql)["egress"] == [DNS_RULE, {"ports": [{"port": 6432, "protocol": "TCP"}]}]


@pytest.mark.parametrize(
    ("job", "rules"),
    [
        ("detect-drift", [DNS_RULE, PUSH_RULE]),
        ("retrain", [DNS_RULE, PUSH_RULE, API_RULE, {"ports": KUBERNETES}]),
        ("backup", [DNS_RULE]),
        ("fraudctl", [DNS_RULE, PUSH_RULE]),
    ],
)
def test_what_a_job_reaches(helm: Helm, job: str, rules: list[Any]) -> None:
    found = policy(helm, job, {})

    assert "ingress" not in found
    assert found["egress"] == rules


@pytest.mark.parametrize(
    ("cidr", "blocks"),
    [("10.0.0.1/32", ["10.0.0.1/32"]), (["10.0.0.1/32", "fd00::1/128"], ["10.0.0.1/32", "fd00::1/128"])],
)
def test_the_kubernetes_api_can_be_one_address_or_several(helm: Helm, cidr: object, blocks: list[str]) -> None:
    found = policy(helm, "retrain", {"networkPolicy": {"apiServerCidr": cidr}})

    assert {"ports": KUBERNETES, "to": [{"ipBlock": {"cidr": block}} for block in blocks]} in found["egress"]


@pytest.mark.parametrize(
    ("mode", "rules"), [("reload", [DNS_RULE, PUSH_RULE, API_RULE]), ("none", [DNS_RULE, PUSH_RULE])]
)
def test_retraining_does_not_reach_what_it_does_not_need(helm: Helm, mode: str, rules: list[Any]) -> None:
    found = helm.render(WHOLE | {"jobs": {"retrain": {"rollout": {"mode": mode}}}})

    assert named(found, "NetworkPolicy", f"{NAME}-retrain")["spec"]["egress"] == rules


def test_jobs_reach_the_servers_that_they_report_to(helm: Helm) -> None:
    values = {
        "pushgateway": {"enabled": False, "externalUrl": "https://push.example"},
        "config": {"mlflowTrackingUri": "http://mlflow:5000"},
    }
    ports = [{"ports": [{"port": port, "protocol": "TCP"}]} for port in (443, 5000)]

    assert policy(helm, "detect-drift", values)["egress"] == [DNS_RULE, *ports]


def test_only_our_jobs_and_prometheus_reach_the_pushgateway_and_it_reaches_nothing(helm: Helm) -> None:
    found = policy(helm, "pushgateway", {})

    [rule] = found["ingress"]
    [jobs, prometheus] = rule["from"]
    assert jobs["podSelector"]["matchExpressions"] == [
        {"key": "app.kubernetes.io/component", "operator": "In", "values": ["detect-drift", "retrain", "fraudctl"]}
    ]
    assert set(jobs["podSelector"]["matchLabels"]) == {"app.kubernetes.io/name", "app.kubernetes.io/instance"}
    assert prometheus == namespace("monitoring")
    assert rule["ports"] == [{"port": "http", "protocol": "TCP"}]
    assert "egress" not in found


def test_rules_of_the_installation_are_added_to_every_policy(helm: Helm) -> None:
    to_the_mesh = {"to": [namespace("linkerd")], "ports": [{"port": 8080, "protocol": "TCP"}]}
    from_the_mesh = {"ports": [{"port": 15008, "protocol": "TCP"}]}
    values = {"extraEgress": [to_the_mesh], "extraIngress": [from_the_mesh], "dnsNamespace": "openshift-dns"}
    policies = [m for m in helm.render(WHOLE | {"networkPolicy": values}) if m["kind"] == "NetworkPolicy"]

    assert len(policies) == len(COMPONENTS)
    for found in policies:
        name = found["metadata"]["name"]
        assert found["spec"]["ingress"][-1] == from_the_mesh, name
        assert found["spec"]["egress"][-1] == to_the_mesh, name
        assert {"to": [namespace("openshift-dns")], "ports": DNS} in found["spec"]["egress"], name


@pytest.mark.parametrize("component", COMPONENTS)
def test_the_rules_of_a_component_can_be_replaced(helm: Helm, component: str) -> None:
    mine = {"ingress": [{"from": [namespace("mine")]}], "egress": [{"to": [namespace("mine")]}]}
    others = [name for key, name in COMPONENTS.items() if key != component]

    replaced = helm.render(WHOLE | {"networkPolicy": {"rules": {component: mine}}})

    spec = named(replaced, "NetworkPolicy", f"{NAME}-{COMPONENTS[component]}")["spec"]
    assert (spec["ingress"], spec["egress"]) == (mine["ingress"], mine["egress"])
    for name in others:
        assert named(replaced, "NetworkPolicy", f"{NAME}-{name}")["spec"] == policy(helm, name, {}), name


def test_an_empty_list_of_rules_allows_nothing(helm: Helm) -> None:
    spec = policy(helm, "retrain", {"networkPolicy": {"rules": {"retrain": {"egress": []}}}})

    assert "egress" not in spec
    assert spec["policyTypes"] == ["Ingress", "Egress"]


def test_without_a_namespace_of_prometheus_no_namespace_is_let_in(helm: Helm) -> None:
    values = {"networkPolicy": {"prometheusNamespace": ""}}

    assert policy(helm, "api", values)["ingress"][0]["from"] == [{"podSelector": {}}]
    [jobs] = policy(helm, "pushgateway", values)["ingress"][0]["from"]
    assert "podSelector" in jobs
