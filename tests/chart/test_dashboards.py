"""Every query of dashboards and alerts finds something in a real Prometheus that scraped a real installation."""

import json
import re
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from api.connections import Connections
from api.metrics import Metrics
from jobs.drift.distance import FeatureChange
from jobs.drift.report import DriftReport, FeatureDrift
from jobs.reporting.pushgateway import METRICS, Run, push_drift, push_retrain
from tests.chart.helm import Helm, pods
from tests.chart.observability import ask, metrics_of, pushgateway
from tests.chart.real_run import real_run
from tests.chart.rules import AS_IN_THE_FILES, groups
from tests.support.alert_rules import alerts, in_the_files
from tests.support.dashboards import DASHBOARDS, KUBERNETES, Query, panels, queries
from tests.support.ports import free_port
from tests.support.project import ROOT

# -- the files -------------------------------------------------------------------------------------------------------


def test_there_are_three_and_each_keeps_its_address() -> None:
    assert {name: dashboard["uid"] for name, dashboard in DASHBOARDS.items()} == {
        "drift": "fraud-detection-drift",
        "model": "fraud-detection-model",
        "service": "fraud-detection-service",
    }


@pytest.mark.parametrize("name", DASHBOARDS)
def test_every_part_asks_the_data_source_that_is_chosen(name: str) -> None:
    dashboard = DASHBOARDS[name]
    chosen = {"type": "prometheus", "uid": "${datasource}"}
    [data_source, *others] = dashboard["templating"]["list"]

    assert (data_source["name"], data_source["type"], data_source["query"]) == (
        "datasource",
        "datasource",
        "prometheus",
    )
    assert [variable["datasource"] for variable in others] == [chosen, chosen]
    assert panels(name)
    for panel in panels(name):
        assert panel["datasource"] == chosen
        assert [target["datasource"] for target in panel["targets"]] == [chosen] * len(panel["targets"])


@pytest.mark.parametrize("name", DASHBOARDS)
def test_every_panel_says_what_it_shows_and_in_which_unit(name: str) -> None:
    assert panels(name)
    for panel in panels(name):
        assert panel["description"].endswith("."), panel["title"]
        defaults = panel["fieldConfig"]["defaults"]
        is_number = panel["type"] in {"timeseries", "bargauge"}
        assert "unit" in defaults or "decimals" in defaults or not is_number, panel["title"]
        assert all(target["legendFormat"] for target in panel["targets"]) or panel["type"] == "stat", panel["title"]
        assert set(re.findall(r"Fraud[A-Z]\w+", panel["description"])) <= {rule.stem for rule in _runbooks()}


def _runbooks() -> list[Path]:
    return list((ROOT / "docs" / "runbooks").glob("*.md"))


@pytest.mark.parametrize("name", DASHBOARDS)
def test_no_two_panels_overlap_or_have_one_id(name: str) -> None:
    everything = DASHBOARDS[name]["panels"]
    cells = [
        (x, y)
        for box in (panel["gridPos"] for panel in everything)
        for x in range(box["x"], box["x"] + box["w"])
        for y in range(box["y"], box["y"] + box["h"])
    ]

    assert len(cells) == len(set(cells))
    assert max(x for x, _ in cells) == 23
    assert len({panel["id"] for panel in everything}) == len(everything)


@pytest.mark.parametrize("query", queries(), ids=lambda query: query.where)
def test_every_query_is_limited_to_the_chosen_installation(query: Query) -> None:
    """At least one selector has them, because a joined series follows the selected one."""
    assert 'namespace=~"$namespace"' in query.expression
    assert "$release" in query.expression


@pytest.mark.parametrize("name", DASHBOARDS)
def test_without_kubernetes_everything_is_shown(name: str) -> None:
    """Without Kubernetes the series have no such labels, and only `.*` finds them."""
    _, *variables = DASHBOARDS[name]["templating"]["list"]

    assert [variable["name"] for variable in variables] == ["namespace", "release"]
    for variable in variables:
        assert (variable["allValue"], variable["includeAll"]) == (".*", True)
        assert variable["current"]["value"] == "$__all"


# -- in the chart ----------------------------------------------------------------------------------------------------


def test_each_dashboard_reaches_grafanas_sidecar_unchanged(helm: Helm) -> None:
    values = {"metrics": {"dashboards": {"annotations": {"grafana_folder": "Fraud"}, "namespace": "monitoring"}}}
    found = [m for m in helm.render(values) if m["metadata"]["labels"].get("grafana_dashboard") == "1"]

    assert {name: json.loads(text) for m in found for name, text in m["data"].items()} == {
        f"fraud-fraud-detection-dashboard-{name}.json": dashboard for name, dashboard in DASHBOARDS.items()
    }
    for manifest in found:
        assert manifest["metadata"]["annotations"] == {"grafana_folder": "Fraud"}
        assert manifest["metadata"]["namespace"] == "monitoring"
        assert len(json.dumps(manifest)) < 1024 * 1024


def test_dashboards_can_be_omitted_or_get_another_label(helm: Helm) -> None:
    def labelled(name: str, **settings: Any) -> int:
        manifests = helm.render({"metrics": {"dashboards": settings}})
        return sum(name in manifest["metadata"]["labels"] for manifest in manifests)

    assert labelled("grafana_dashboard", enabled=False) == 0
    assert labelled("my_board", label="my_board", labelValue="yes") == len(DASHBOARDS)


# -- a real run ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def pushgateway_arguments(helm4: Helm) -> list[str]:
    [pod] = [pod for pod in pods(helm4.render()) if "pushgateway" in pod.owner]
    arguments: list[str] = pod.container("pushgateway")["args"]
    return arguments


@pytest.fixture(scope="module")
def filled(helm4: Helm, pushgateway_arguments: list[str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a Prometheus with the chart's rules, after every event that an installation can have."""
    rules = {"groups": groups(helm4, AS_IN_THE_FILES)}
    with real_run(pushgateway_arguments, rules, KUBERNETES, tmp_path_factory.mktemp("real")) as url:
        yield url


@pytest.mark.parametrize("query", queries(), ids=lambda query: query.where)
@pytest.mark.parametrize(("namespace", "release"), [(".*", ".*"), ("fraud", "fraud-detection")], ids=["all", "one"])
def test_every_query_finds_something(filled: str, query: Query, namespace: str, release: str) -> None:
    found = ask(filled, "query", query=query.as_asked(namespace, release))["result"]

    assert [series for series in found if series["value"][1] != "NaN"], query.expression


@pytest.mark.parametrize("query", queries(), ids=lambda query: query.where)
def test_no_query_finds_anything_of_another_installation(filled: str, query: Query) -> None:
    found = ask(filled, "query", query=query.as_asked("fraud", "other"))["result"]

    assert [series for series in found if series["value"][1] not in {"NaN", "0"}] == [], query.expression


def exported() -> set[str]:
    """Return every name that the API and the jobs export, as queries write it."""
    metrics = Metrics()
    metrics.watch_volume(ROOT)
    metrics.watch_connections(Connections(1))
    parts = {"counter": ("_total",), "histogram": ("_bucket", "_sum", "_count"), "info": ("_info",), "gauge": ("",)}
    families = metrics.registry.collect()
    return {family.name + part for family in families for part in parts[family.type]} | set(METRICS)


def test_queries_name_only_exported_metrics(filled: str) -> None:
    known = exported() | set(KUBERNETES) | {"up"}

    for query in queries():
        assert metrics_of(filled, query.as_asked(".*", ".*")) <= known, query.where
    assert len(alerts(groups_in(filled))) == len(alerts(in_the_files()))
    for rule in alerts(groups_in(filled)):
        assert metrics_of(filled, rule["query"]) <= known, rule["name"]


def test_every_exported_metric_is_shown(filled: str) -> None:
    shown = {name for query in queries() for name in metrics_of(filled, query.as_asked(".*", ".*"))}

    families = {re.sub(r"_(bucket|sum|count)$", "", name) for name in exported()}
    missing = {family for family in families if not any(name.startswith(family) for name in shown)}
    assert missing == {"process_virtual_memory_bytes"}


def groups_in(url: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = ask(url, "rules")["groups"]
    return found


def test_prometheus_evaluates_every_rule(filled: str) -> None:
    rules = alerts(groups_in(filled))

    assert len(rules) == len(alerts(in_the_files()))
    assert {rule["name"]: rule.get("lastError") for rule in rules if rule["health"] != "ok"} == {}


def test_a_refused_model_raises_its_alert(filled: str) -> None:
    """The test damages only the file on disk; everything from there to the alert is real."""
    [alert] = [each for each in ask(filled, "alerts")["alerts"] if each["labels"]["alertname"] == "FraudModelRefused"]

    assert alert["state"] == "firing"
    assert alert["labels"]["reason"] == "digest"


RUN = Run(started=1_800_000_000, finished=1_800_000_012, succeeded=True)


def pushed(url: str) -> str:
    with urllib.request.urlopen(f"{url}/metrics", timeout=30) as answer:  # noqa: S310  our own address
        text: str = answer.read().decode()
    return text


def test_a_pushgateway_that_restarts_still_has_the_figures(pushgateway_arguments: list[str], tmp_path: Path) -> None:
    port = free_port()
    (tmp_path / "figures").mkdir()
    with pushgateway(pushgateway_arguments, tmp_path / "figures", port) as url:
        assert push_retrain(url, "promoted", RUN, rejections_in_a_row=2)

    with pushgateway(pushgateway_arguments, tmp_path / "figures", port) as url:
        text = pushed(url)

    assert 'fraud_retrain_rejections_in_a_row{instance="",job="fraud-retrain"} 2' in text
    assert 'fraud_retrain_outcome{instance="",job="fraud-retrain",outcome="promoted"} 1' in text


def test_a_pushgateway_keeps_no_feature_that_is_no_longer_warned(
    pushgateway_arguments: list[str], tmp_path: Path
) -> None:
    (tmp_path / "figures").mkdir()
    warned = FeatureChange(d=0.25, p=0.0, p_adjusted=0.0, psi=0.3, wasserstein_sigmas=0.5)
    reports = [
        DriftReport(
            "warn", ("features",), retrain=False, explanation=(), features=(FeatureDrift(name, warned, warned, None),)
        )
        for name in ("V14", "V4")
    ]
    found = []

    with pushgateway(pushgateway_arguments, tmp_path / "figures", free_port()) as url:
        for report in (*reports, DriftReport("ok", (), retrain=False, explanation=())):
            assert push_drift(url, report, RUN)
            found.append(re.findall(r'^fraud_drift_feature_d\{feature="(\w+)".* (\S+)$', pushed(url), re.MULTILINE))

    assert found == [[("V14", "0.25")], [("V4", "0.25")], []]
