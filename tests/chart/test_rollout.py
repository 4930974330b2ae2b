"""A new pod serves before the old one stops, and the old one stops only when no client sends it requests."""

import re
from typing import Any

import pytest

from tests.chart.helm import Helm, Manifest, named, pods
from tests.support.project import ROOT

NAME = "fraud-fraud-detection"


def deployment(helm: Helm, values: dict[str, Any] | None = None, ci: str = "default") -> Manifest:
    spec: Manifest = named(helm.render(values, ci=ci), "Deployment", f"{NAME}-api")["spec"]
    return spec


@pytest.mark.parametrize(
    ("values", "strategy"),
    [
        ({}, {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}}),
        ({"api": {"updateStrategy": "Recreate"}}, {"type": "Recreate"}),
        (
            {
                "persistence": {"accessMode": "ReadWriteOncePod"},
                "jobs": {name: {"enabled": False} for name in ("detectDrift", "retrain", "backup", "fraudctl")},
            },
            {"type": "Recreate"},
        ),
    ],
)
def test_strategy(helm: Helm, values: dict[str, Any], strategy: dict[str, Any]) -> None:
    assert deployment(helm, values)["strategy"] == strategy


def test_a_pod_has_time_to_stop(helm: Helm) -> None:
    spec = deployment(helm)["template"]["spec"]
    [api] = spec["containers"]
    pre_stop = api["lifecycle"]["preStop"]["sleep"]["seconds"]

    assert (pre_stop, spec["terminationGracePeriodSeconds"]) == (10, 40)
    assert graceful_timeout() == 20
    assert spec["terminationGracePeriodSeconds"] >= pre_stop + graceful_timeout() + 10


def graceful_timeout() -> int:
    [found] = re.findall(r"(?m)^graceful_timeout = (\d+)$", (ROOT / "api" / "gunicorn_conf.py").read_text())
    return int(found)


def test_a_rollout_fails_before_the_timeout_of_the_retraining(helm: Helm) -> None:
    told = named(helm.render(), "ConfigMap", f"{NAME}-jobs")["data"]

    assert deployment(helm)["progressDeadlineSeconds"] < int(told["ROLLOUT_TIMEOUT_SECONDS"])


def test_restarts_do_not_push_releases_out_of_the_history(helm: Helm) -> None:
    spec = deployment(helm)

    assert spec["revisionHistoryLimit"] == 3
    assert spec["minReadySeconds"] == 5


def test_probes_ask_their_own_port_without_a_token(helm: Helm) -> None:
    [api] = deployment(helm)["template"]["spec"]["containers"]
    ports = {port["name"]: port["containerPort"] for port in api["ports"]}

    assert ports == {"http": 5000, "probes": 5001}
    for probe, path in (("startupProbe", "/livez"), ("livenessProbe", "/livez"), ("readinessProbe", "/readyz")):
        assert api[probe]["httpGet"] == {"path": path, "port": "probes"}, probe
    assert api["startupProbe"]["failureThreshold"] * api["startupProbe"]["periodSeconds"] == 60


def test_the_service_leads_to_the_api_and_not_to_the_probes(helm: Helm) -> None:
    [port] = named(helm.render(), "Service", f"{NAME}-api")["spec"]["ports"]

    assert (port["port"], port["targetPort"], port["name"]) == (5000, "http", "http")


def test_a_changed_setting_restarts_the_pods_and_nothing_else_does(helm: Helm) -> None:
    def checksum(values: dict[str, Any]) -> str:
        found: str = deployment(helm, values)["template"]["metadata"]["annotations"]["checksum/config"]
        return found

    assert checksum({"config": {"fraudThreshold": 0.5}}) != checksum({})
    assert checksum({"features": [{"name": "amount"}]}) != checksum({})
    for other in (
        {"commonLabels": {"team": "risk"}},
        {"jobs": {"retrain": {"schedule": "0 4 * * *"}}},
        {"rbac": {"create": False}},
    ):
        assert checksum(other) == checksum({})


def test_a_digest_overrides_the_tag_and_a_global_registry_both_registries(helm: Helm) -> None:
    digest = f"sha256:{'a' * 64}"
    image = {"registry": "r", "repository": "fraud", "tag": "v9", "digest": digest}
    values: dict[str, Any] = {"image": {"api": image, "jobs": image}, "pushgateway": {"image": image}}

    assert images(helm, values) == {f"r/fraud@{digest}"}
    assert images(helm, values | {"global": {"imageRegistry": "mirror:5000"}}) == {f"mirror:5000/fraud@{digest}"}
    values["image"]["api"] = values["image"]["jobs"] = values["pushgateway"]["image"] = image | {"digest": ""}
    assert images(helm, values) == {"r/fraud:v9"}


def test_images_follow_the_version_of_the_app(helm: Helm) -> None:
    assert images(helm, {"pushgateway": {"enabled": False}}) == {
        "ghcr.io/fraud-detection/fraud-detection-api:0.1.0",
        "ghcr.io/fraud-detection/fraud-detection-jobs:0.1.0",
    }


def images(helm: Helm, values: dict[str, Any]) -> set[str]:
    return {container["image"] for pod in pods(helm.render(values)) for container in pod.containers}
