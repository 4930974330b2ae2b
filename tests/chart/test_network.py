"""Each kind of pod has one policy, which names every connection that it may accept or open."""

from typing import Any

import pytest

from tests.chart.helm import Helm, Manifest, named, pods

NAME = "fraud-fraud-detection"
WHOLE = {"auth": {"existingSecret": "tokens"}, "jobs": {"backup": {"enabled": True, "existingClaim": "backups"}}}
DNS = [{"port": port, "protocol": protocol} for port in (53, 5353) for protocol in ("UDP", "TCP")]
KUBERNETES = [{"port": 443, "protocol": "TCP"}, {"port": 6443, "protocol": "TCP"}]
HTTP = [{"port": 5000, "protocol": "TCP"}]


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


def test_the_kubernetes_api_can_be_one_address(helm: Helm) -> None:
    found = policy(helm, "retrain", {"networkPolicy": {"apiServerCidr": "10.0.0.1/32"}})

    assert {"ports": KUBERNETES, "to": [{"ipBlock": {"cidr": "10.0.0.1/32"}}]} in found["egress"]


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


def test_a_rule_of_the_installation_is_added_to_every_policy(helm: Helm) -> None:
    rule = {"to": [{"ipBlock": {"cidr": "169.254.20.10/32"}}], "ports": DNS}
    manifests = helm.render(WHOLE | {"networkPolicy": {"extraEgress": [rule], "dnsNamespace": "openshift-dns"}})

    for name in ("api", "detect-drift", "retrain", "backup", "fraudctl"):
        egress = named(manifests, "NetworkPolicy", f"{NAME}-{name}")["spec"]["egress"]
        assert rule in egress, name
        assert {"to": [namespace("openshift-dns")], "ports": DNS} in egress, name
