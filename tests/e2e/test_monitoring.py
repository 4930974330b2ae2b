"""Prometheus scrapes what the chart offers with the token from the Secret, and evaluates every rule."""

from typing import Any

import pytest

from tests.e2e.cluster import Cluster, wait_for
from tests.e2e.release import NAME, Release
from tests.support.alert_rules import in_the_files, names

pytestmark = pytest.mark.prometheus


def test_prometheus_scrapes_the_api_with_the_token_of_the_secret(cluster: Cluster, release: Release) -> None:
    query = f'up{{namespace="{release.namespace.name}", service="{NAME}-api"}} == 1'
    found = wait_for("the API's target", lambda: cluster.series(query))

    assert [series["metric"]["job"] for series in found] == [f"{NAME}-api"]
    assert cluster.series(f'predictions_total{{namespace="{release.namespace.name}"}}')


def test_what_a_job_pushes_arrives(cluster: Cluster, release: Release) -> None:
    ended = release.namespace.wait_for_job(release.start_job("detect-drift", "look"))
    pushed = f'fraud_job_succeeded{{namespace="{release.namespace.name}", job="fraud-drift"}} == 1'

    assert ended.succeeded, ended.log
    assert wait_for("the job's figures", lambda: cluster.series(pushed))


def test_every_rule_is_loaded_and_evaluated(cluster: Cluster, release: Release) -> None:
    namespace = release.namespace.name

    def evaluated() -> list[dict[str, Any]] | None:
        groups = cluster.prometheus("rules")["groups"]
        rules = [rule for group in groups if f"/{namespace}-{NAME}-" in group["file"] for rule in group["rules"]]
        return rules if rules and all(rule["health"] != "unknown" for rule in rules) else None

    rules = wait_for("the rules", evaluated)

    assert {rule["name"] for rule in rules} == names(in_the_files())
    assert {rule["name"]: rule.get("lastError") for rule in rules if rule["health"] != "ok"} == {}
