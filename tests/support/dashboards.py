"""Read the chart's dashboards, and list the queries that they send to Prometheus."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from tests.support.project import CHART

DASHBOARDS = {path.stem: json.loads(path.read_text()) for path in sorted(CHART.glob("files/dashboards/*.json"))}

# Metrics that neither the API nor the jobs export. Every other metric in a query must be exported by them.
_JOBS = ("detect-drift", "retrain", "backup")
KUBERNETES = {
    "kube_cronjob_created": [f'cronjob="fraud-detection-{job}"' for job in _JOBS],
    "kube_cronjob_spec_suspend": [f'cronjob="fraud-detection-{job}"' for job in _JOBS],
    "kube_cronjob_status_last_successful_time": [f'cronjob="fraud-detection-{job}"' for job in _JOBS],
    "kube_job_created": ['job_name="fraud-detection-retrain-29000000"'],
    "kube_job_failed": ['job_name="fraud-detection-retrain-29000000",condition="true"'],
    "kubelet_volume_stats_available_bytes": ['persistentvolumeclaim="fraud-detection-data"'],
    "kubelet_volume_stats_capacity_bytes": ['persistentvolumeclaim="fraud-detection-data"'],
}


@dataclass(frozen=True)
class Query:
    """One query of a dashboard."""

    where: str
    expression: str

    def as_asked(self, namespace: str, release: str) -> str:
        """Return what Grafana sends when these two are chosen."""
        text = self.expression.replace("$__rate_interval", "1m")
        return text.replace("$namespace", namespace).replace("$release", release)


def panels(dashboard: str) -> list[dict[str, Any]]:
    """Return the panels of a dashboard without its row headings."""
    return [panel for panel in DASHBOARDS[dashboard]["panels"] if panel["type"] != "row"]


def queries() -> list[Query]:
    """Return the queries of all panels and annotations."""
    found = [
        Query(f"{name}: {panel['title']} {target['refId']}", target["expr"])
        for name in DASHBOARDS
        for panel in panels(name)
        for target in panel["targets"]
    ]
    for name, dashboard in DASHBOARDS.items():
        for annotation in dashboard["annotations"]["list"]:
            if "expr" in annotation:
                found.append(Query(f"{name}: annotation {annotation['name']}", annotation["expr"]))
    return found


def metrics_in(node: object) -> Iterator[str]:
    """Yield the names of all metrics in an answer of Prometheus's `parse_query`."""
    if isinstance(node, list):
        for part in node:
            yield from metrics_in(part)
    elif isinstance(node, dict):
        if node.get("type") in {"vectorSelector", "matrixSelector"}:
            yield node["name"]
        for part in node.values():
            yield from metrics_in(part)
