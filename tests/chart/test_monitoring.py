"""Prometheus finds the API and the Pushgateway with the right token, and the Pushgateway is isolated."""

from typing import Any

import pytest

from tests.chart.helm import Helm, Manifest, Values, named, pods

OPERATOR = ("monitoring.coreos.com/v1",)
API = "fraud-fraud-detection-api"
PUSHGATEWAY = "fraud-fraud-detection-pushgateway"


def kinds(manifests: list[Manifest]) -> set[str]:
    return {m["kind"] for m in manifests if m["apiVersion"] == "monitoring.coreos.com/v1"}


KINDS = {"serviceMonitor": {"ServiceMonitor"}, "prometheusRule": {"PrometheusRule"}}


def alone(section: str, mode: str) -> Values:
    """Return values that switch on only one of the two sections."""
    others = {other: {"enabled": False} for other in KINDS}
    return {"metrics": {**others, section: {"enabled": True, "renderMode": mode}}}


@pytest.mark.parametrize("section", KINDS)
@pytest.mark.parametrize(
    ("mode", "api_versions", "is_rendered"),
    [
        ("skipIfMissing", (), False),
        ("skipIfMissing", OPERATOR, True),
        ("failIfMissing", OPERATOR, True),
        ("alwaysRender", (), True),
        ("alwaysRender", OPERATOR, True),
    ],
)
def test_is_rendered_where_the_cluster_knows_it_or_always(
    *, helm: Helm, section: str, mode: str, api_versions: tuple[str, ...], is_rendered: bool
) -> None:
    manifests = helm.render(alone(section, mode), api_versions=api_versions)

    assert kinds(manifests) == (KINDS[section] if is_rendered else set())


@pytest.mark.parametrize("section", KINDS)
def test_a_cluster_that_does_not_know_it_can_be_refused(helm: Helm, section: str) -> None:
    assert helm.refusal(alone(section, "failIfMissing")) == (
        f"metrics.{section}.renderMode is failIfMissing, but the cluster lacks monitoring.coreos.com/v1: "
        "install the Prometheus operator first, or set renderMode to skipIfMissing"
    )


def test_switched_off_nothing_is_rendered_and_nothing_refused(helm: Helm) -> None:
    values = {"metrics": {section: {"enabled": False, "renderMode": "failIfMissing"} for section in KINDS}}

    assert kinds(helm.render(values)) == set()
    assert kinds(helm.render(values, api_versions=OPERATOR)) == set()


def monitor(manifests: list[Manifest], name: str) -> tuple[Manifest, Manifest]:
    """Return a ServiceMonitor and its endpoint, and check that it selects exactly the Service of its name."""
    found = named(manifests, "ServiceMonitor", name)
    labels = found["spec"]["selector"]["matchLabels"]
    services = [m for m in manifests if m["kind"] == "Service" and labels.items() <= m["metadata"]["labels"].items()]
    assert [service["metadata"]["name"] for service in services] == [name]
    [endpoint] = found["spec"]["endpoints"]
    assert endpoint["port"] in {port["name"] for port in services[0]["spec"]["ports"]}
    return found, endpoint


def test_prometheus_brings_the_token_of_the_secret_in_its_own_namespace(helm: Helm) -> None:
    values = {"auth": {"existingSecret": "mine", "tokenKey": "the-key"}}

    found, endpoint = monitor(helm.render(values, api_versions=OPERATOR), API)

    assert endpoint["authorization"] == {"type": "Bearer", "credentials": {"name": "mine", "key": "the-key"}}
    assert "namespaceSelector" not in found["spec"]
    assert "bearerTokenSecret" not in endpoint


@pytest.mark.parametrize(
    ("auth", "key"),
    [
        ({"existingSecret": ""}, "metrics-token"),
        ({"existingSecret": "", "metricsTokenKey": "scrape"}, "scrape"),
        ({"existingSecret": "mine"}, "api-token"),
        ({"existingSecret": "mine", "metricsTokenKey": "scrape"}, "scrape"),
    ],
)
def test_prometheus_gets_a_token_that_opens_only_the_metrics(helm: Helm, auth: dict[str, str], key: str) -> None:
    manifests = helm.render({"auth": auth}, api_versions=OPERATOR)

    _, endpoint = monitor(manifests, API)
    volumes = named(manifests, "Deployment", API)["spec"]["template"]["spec"]["volumes"]
    [sources] = [volume["projected"]["sources"] for volume in volumes if volume["name"] == "auth"]
    paths = {item["path"]: item["key"] for source in sources for item in source["secret"]["items"]}
    assert endpoint["authorization"]["credentials"]["key"] == key
    assert paths.get("metrics-token") == (key if key != "api-token" else None)


def test_monitors_and_rules_carry_what_prometheus_selects_by(helm: Helm) -> None:
    labels, annotations = {"release": "kube-prometheus-stack"}, {"note": "ours"}
    settings = {"labels": labels, "annotations": annotations}
    values = {
        "metrics": {
            "serviceMonitor": {**settings, "interval": "15s", "scrapeTimeout": "7s"},
            "prometheusRule": settings,
        }
    }

    manifests = helm.render(values, api_versions=OPERATOR)

    of_the_operator = [m for m in manifests if m["apiVersion"] in OPERATOR]
    assert {m["kind"] for m in of_the_operator} == {"ServiceMonitor", "PrometheusRule"}
    for manifest in of_the_operator:
        assert labels.items() <= manifest["metadata"]["labels"].items()
        assert annotations.items() <= manifest["metadata"]["annotations"].items()
    for name in (API, PUSHGATEWAY):
        _, endpoint = monitor(manifests, name)
        assert (endpoint["interval"], endpoint["scrapeTimeout"]) == ("15s", "7s")


def test_figures_of_the_jobs_keep_their_job_and_outlive_the_pod_of_the_pushgateway(helm: Helm) -> None:
    _, endpoint = monitor(helm.render(api_versions=OPERATOR), PUSHGATEWAY)

    assert endpoint["honorLabels"] is True
    assert endpoint["relabelings"] == [{"action": "labeldrop", "regex": "pod|container|endpoint"}]


def test_argo_cd_may_write_its_own_instance_onto_every_object(helm: Helm) -> None:
    manifests = helm.render(api_versions=OPERATOR)
    for manifest in manifests:
        manifest["metadata"]["labels"]["app.kubernetes.io/instance"] = "payments-fraud-prod"

    for name in (API, PUSHGATEWAY):
        assert monitor(manifests, name)


def scraped(helm: Helm, settings: Values, name: str) -> tuple[Manifest, Manifest]:
    values = {"metrics": {"serviceMonitor": settings}, "auth": {"existingSecret": "mine"}}
    return monitor(helm.render(values, api_versions=OPERATOR), name)


@pytest.mark.parametrize("name", [API, PUSHGATEWAY])
def test_a_scrape_is_as_the_values_say(helm: Helm, name: str) -> None:
    wanted = {
        "scheme": "https",
        "tlsConfig": {"caFile": "/etc/prom-certs/root-cert.pem", "insecureSkipVerify": True},
        "metricRelabelings": [{"action": "drop", "sourceLabels": ["__name__"], "regex": "python_.*"}],
    }
    relabeling = {"targetLabel": "region", "replacement": "eu"}

    found, endpoint = scraped(helm, wanted | {"relabelings": [relabeling], "scrapeClass": "mesh"}, name)

    assert {field: endpoint[field] for field in wanted} == wanted
    assert endpoint["relabelings"][-1] == relabeling
    assert found["spec"]["scrapeClass"] == "mesh"


@pytest.mark.parametrize("name", [API, PUSHGATEWAY])
def test_a_monitor_in_another_namespace_selects_in_ours(helm: Helm, name: str) -> None:
    found, _ = scraped(helm, {"namespace": "watch"}, name)

    assert found["metadata"]["namespace"] == "watch"
    assert found["spec"]["namespaceSelector"] == {"matchNames": ["fraud"]}


def test_the_rules_can_be_in_another_namespace(helm: Helm) -> None:
    rules = named(
        helm.render({"metrics": {"prometheusRule": {"namespace": "watch"}}}, api_versions=OPERATOR), "PrometheusRule"
    )

    assert rules["metadata"]["namespace"] == "watch"
    assert 'namespace="fraud"' in str(rules["spec"])


def pushgateway(manifests: list[Manifest]) -> list[tuple[str, Manifest]]:
    ours = [m for m in manifests if m["metadata"]["labels"].get("app.kubernetes.io/component") == "pushgateway"]
    return [(m["kind"], m) for m in ours]


@pytest.mark.parametrize("url", ["", "http://gateway.elsewhere:9091"])
def test_without_a_pushgateway_none_of_its_objects_is_rendered(helm: Helm, url: str) -> None:
    manifests = helm.render({"pushgateway": {"enabled": False, "externalUrl": url}}, api_versions=OPERATOR)

    assert pushgateway(manifests) == []
    told = named(manifests, "ConfigMap", "fraud-fraud-detection-jobs")["data"]
    assert told.get("PUSHGATEWAY_URL") == (url or None)


def test_the_jobs_push_to_the_service_that_there_is(helm: Helm) -> None:
    manifests = helm.render()

    [port] = named(manifests, "Service", PUSHGATEWAY)["spec"]["ports"]
    told = named(manifests, "ConfigMap", "fraud-fraud-detection-jobs")["data"]
    assert told["PUSHGATEWAY_URL"] == f"http://{PUSHGATEWAY}:{port['port']}"


def deployment(helm: Helm, **settings: Any) -> Manifest:
    found: Manifest = named(helm.render({"pushgateway": settings}), "Deployment", PUSHGATEWAY)["spec"]
    return found


def test_the_pushgateway_remembers(helm: Helm) -> None:
    """It writes a file on the volume every minute, and only one pod runs at a time."""
    spec = deployment(helm)
    pod = spec["template"]["spec"]
    [container] = pod["containers"]

    assert "--persistence.interval=1m" in container["args"]
    [file] = [each.partition("=")[2] for each in container["args"] if each.startswith("--persistence.file=")]
    [mount] = [each for each in container["volumeMounts"] if file.startswith(f"{each['mountPath']}/")]
    [volume] = [each for each in pod["volumes"] if each["name"] == mount["name"]]
    assert volume["persistentVolumeClaim"] == {"claimName": PUSHGATEWAY}
    assert (spec["replicas"], spec["strategy"]) == (1, {"type": "Recreate"})


@pytest.mark.parametrize(
    ("persistence", "volume", "makes_claim"),
    [
        ({"existingClaim": "mine"}, {"persistentVolumeClaim": {"claimName": "mine"}}, False),
        ({"enabled": False}, {"emptyDir": {"sizeLimit": "100Mi"}}, False),
        ({"size": "5Gi"}, {"persistentVolumeClaim": {"claimName": PUSHGATEWAY}}, True),
    ],
)
def test_the_pushgateways_volume_is_as_wanted(
    *, helm: Helm, persistence: Values, volume: Manifest, makes_claim: bool
) -> None:
    manifests = helm.render({"pushgateway": {"persistence": persistence}})

    [found] = named(manifests, "Deployment", PUSHGATEWAY)["spec"]["template"]["spec"]["volumes"]
    assert found == {"name": "data", **volume}
    claims = [
        m["spec"] for m in manifests if m["kind"] == "PersistentVolumeClaim" and m["metadata"]["name"] == PUSHGATEWAY
    ]
    assert [claim["resources"] for claim in claims] == [{"requests": {"storage": "5Gi"}}] * makes_claim


def test_no_client_can_delete_figures_or_stop_the_pushgateway_over_http(helm: Helm) -> None:
    [container] = deployment(helm)["template"]["spec"]["containers"]

    assert {each.partition("=")[0] for each in container["args"]} == {
        "--web.listen-address",
        "--persistence.file",
        "--persistence.interval",
    }


def test_the_pushgateway_takes_further_arguments(helm: Helm) -> None:
    [container] = deployment(helm, extraArgs=["--log.level=debug"])["template"]["spec"]["containers"]

    assert container["args"][-1] == "--log.level=debug"
    assert "--persistence.interval=1m" in container["args"]


def test_the_pushgateway_has_probes(helm: Helm) -> None:
    [container] = deployment(helm)["template"]["spec"]["containers"]

    assert container["livenessProbe"]["httpGet"] == {"path": "/-/healthy", "port": "http"}
    assert container["readinessProbe"]["httpGet"] == {"path": "/-/ready", "port": "http"}


def test_the_pushgateway_has_no_token_and_a_place_of_its_own(helm: Helm) -> None:
    """It mounts none of the shared volumes, so it need not run on their node."""
    pod = deployment(helm, nodeSelector={"disk": "ssd"}, priorityClassName="low")["template"]

    assert pod["spec"]["automountServiceAccountToken"] is False
    assert pod["spec"]["nodeSelector"]["disk"] == "ssd"
    assert pod["spec"]["priorityClassName"] == "low"
    assert "affinity" not in pod["spec"]
    assert "fraud-detection.io/data-volume" not in pod["metadata"]["labels"]


def test_only_jobs_that_push_and_prometheus_reach_the_pushgateway(helm: Helm) -> None:
    manifests = helm.render({"networkPolicy": {"prometheusNamespace": "watch"}})
    policy = named(manifests, "NetworkPolicy", PUSHGATEWAY)["spec"]
    [rule] = policy["ingress"]
    [of_ours, of_prometheus] = rule["from"]

    [pod] = [each for each in pods(manifests) if each.owner == f"Deployment {PUSHGATEWAY}"]
    assert policy["podSelector"]["matchLabels"].items() <= pod.metadata["labels"].items()
    assert policy["policyTypes"] == ["Ingress", "Egress"]
    assert "egress" not in policy  # it opens no connection
    assert rule["ports"] == [{"port": "http", "protocol": "TCP"}]
    assert of_prometheus == {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "watch"}}}
    assert {each.owner for each in pods(manifests) if selects(of_ours["podSelector"], each.metadata["labels"])} == {
        f"CronJob fraud-fraud-detection-{job}" for job in ("detect-drift", "retrain", "fraudctl")
    }


def selects(selector: Manifest, labels: Manifest) -> bool:
    """Say whether a label selector selects these labels; of the operators it knows In."""
    return selector["matchLabels"].items() <= labels.items() and all(
        labels.get(expression["key"]) in expression["values"] for expression in selector["matchExpressions"]
    )
