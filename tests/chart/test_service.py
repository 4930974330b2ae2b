"""Services and routes take what a cluster's load balancers, gateways and IP families ask of them."""

from typing import Any

import pytest

from tests.chart.helm import Helm, Manifest, named

API = "fraud-fraud-detection-api"
OPEN: dict[str, Any] = {"networkPolicy": {"ingressFrom": [{"namespaceSelector": {}}]}}


def service(helm: Helm, settings: dict[str, Any]) -> Manifest:
    return named(helm.render(OPEN | {"api": {"service": settings}}), "Service", API)


BALANCER = {
    "type": "LoadBalancer",
    "loadBalancerClass": "example.com/inner",
    "loadBalancerSourceRanges": ["10.0.0.0/8", "fd00::/8"],
    "allocateLoadBalancerNodePorts": False,
    "externalTrafficPolicy": "Local",
}
ANY_TYPE = {
    "internalTrafficPolicy": "Local",
    "sessionAffinity": "ClientIP",
    "trafficDistribution": "PreferClose",
    "ipFamilyPolicy": "RequireDualStack",
    "ipFamilies": ["IPv6", "IPv4"],
}


def test_the_service_has_the_fields_that_the_values_set(helm: Helm) -> None:
    wanted = BALANCER | ANY_TYPE

    spec = service(helm, wanted)["spec"]

    assert {field: spec[field] for field in wanted} == wanted


def test_the_service_leaves_to_kubernetes_what_the_values_do_not_set(helm: Helm) -> None:
    assert set(service(helm, {})["spec"]) == {"type", "selector", "ports"}


def test_the_pushgateway_has_ip_families_too(helm: Helm) -> None:
    families = {field: ANY_TYPE[field] for field in ("ipFamilyPolicy", "ipFamilies")}

    spec = named(helm.render({"pushgateway": {"service": families}}), "Service", f"{API[:-3]}pushgateway")["spec"]

    assert {field: spec[field] for field in families} == families


def test_a_mesh_sees_the_protocol_of_every_port(helm: Helm) -> None:
    ports = [port for m in helm.render() if m["kind"] == "Service" for port in m["spec"]["ports"]]

    assert len(ports) > 1
    assert {(port["name"], port["appProtocol"]) for port in ports} == {("http", "http")}


@pytest.mark.parametrize("field", ["nodePort", *(field for field in BALANCER if field != "type")])
def test_a_field_that_kubernetes_would_reject_is_refused(helm: Helm, field: str) -> None:
    value = BALANCER.get(field, 31000)

    assert f"api.service.{field} is set, but Kubernetes rejects it for api.service.type=ClusterIP" in helm.refusal(
        {"api": {"service": {field: value}}}
    )


def test_the_route_has_filters_timeouts_and_labels(helm: Helm) -> None:
    rule = {
        "filters": [{"type": "RequestHeaderModifier", "requestHeaderModifier": {"remove": ["x-internal"]}}],
        "timeouts": {"request": "4s", "backendRequest": "3s500ms"},
    }
    route = {"enabled": True, "parentRefs": [{"name": "public"}], "labels": {"team": "risk"}, **rule}

    found = named(helm.render(OPEN | {"api": {"httpRoute": route}}), "HTTPRoute")

    [made] = found["spec"]["rules"]
    assert {name: made[name] for name in rule} == rule
    assert found["metadata"]["labels"]["team"] == "risk"


@pytest.mark.parametrize(
    ("kind", "values"),
    [
        ("Service", {"service": {"labels": {"team": "risk"}}}),
        ("Ingress", {"ingress": {"enabled": True, "hosts": [{"host": "a.example"}], "labels": {"team": "risk"}}}),
    ],
)
def test_labels_of_one_object_are_on_it_alone(helm: Helm, kind: str, values: dict[str, Any]) -> None:
    manifests = helm.render(OPEN | {"api": values})

    labelled = {(m["kind"], m["metadata"]["name"]) for m in manifests if "team" in m["metadata"]["labels"]}
    assert labelled == {(kind, API)}
