"""Upgrades, a rollback, an uninstall and a new installation on old data keep what was stored."""

import json
import tarfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.cluster import wait_for
from tests.e2e.release import LABELS, NAME, SECRET, Installed, Release
from tests.support.project import CHART

ROW = [0.0] * 29
CHART_BEFORE = Path(__file__).with_name("chart_before.tar.xz")
KINDS = (
    "deployments,cronjobs,pods,services,configmaps,secrets,serviceaccounts,roles,rolebindings,networkpolicies,"
    "persistentvolumeclaims,servicemonitors,prometheusrules"
)

pytestmark = pytest.mark.prometheus  # whose objects are upgraded too


@pytest.fixture(scope="module")
def lived_in(installed: Installed) -> Iterator[Release]:
    """A release with a transaction."""
    with installed("releases") as release:
        with release.api() as api:
            api.predict([ROW], ["the-first"])
        yield release


def test_an_upgrade_without_a_change_changes_nothing(lived_in: Release) -> None:
    before = _versions(lived_in)

    lived_in.upgrade()

    assert len(before) > 20
    assert _versions(lived_in) == before


def test_new_values_are_rolled_out_and_rolled_back(lived_in: Release, figure: Callable[[str], None]) -> None:
    before, threshold = _versions(lived_in), lived_in.get("/model")["threshold"]

    seconds = lived_in.upgrade(config={"fraudThreshold": 0.7})
    lived_in.wait_until_rolled_out()  # Helm 3 waits for the new pod, but not until the old one has ended
    assert _versions(lived_in) != before
    assert lived_in.get("/model")["threshold"] == 0.7

    lived_in.helm("rollback", NAME, "--wait")
    lived_in.wait_until_rolled_out()
    assert lived_in.get("/model")["threshold"] == threshold != 0.7
    assert _the_first_is_there(lived_in)
    figure(f"upgrade with a new value: {seconds:.0f} s")


def test_what_was_stored_outlives_the_release(lived_in: Release) -> None:
    digest = lived_in.get("/model")["digest"]

    lived_in.helm("uninstall", NAME, "--wait")
    lived_in.namespace.kubectl("wait", "pods", "--selector", LABELS, "--for=delete", "--timeout=120s")
    left = lived_in.namespace.kubectl("get", KINDS, "--selector", LABELS, "--output=name").stdout.split()
    lived_in.upgrade()

    assert left == [f"persistentvolumeclaim/{NAME}-data"]
    assert _the_first_is_there(lived_in)
    assert lived_in.get("/model")["digest"] == digest
    assert lived_in.sql("PRAGMA integrity_check") == [["ok"]]


def test_an_upgrade_from_the_chart_before_keeps_scraping_with_a_secret_of_its_own(
    installed: Installed, tmp_path: Path
) -> None:
    with installed("upgrade", chart=_chart_before(tmp_path)) as before:
        cluster, namespace = before.namespace.cluster, before.namespace.name
        of_the_api = f'namespace="{namespace}", service="{NAME}-api"'
        wait_for("the API's target", lambda: cluster.series(f"up{{{of_the_api}}} == 1"))
        wait_for("its figures", lambda: cluster.series(f"predictions_total{{{of_the_api}}}"))
        figures = _names(cluster.series(f"count by (__name__) ({{{of_the_api}}})"))

        release = replace(before, chart=CHART)
        began = time.monotonic()
        release.upgrade()
        release.wait_until_rolled_out()
        assert _key_of_prometheus(release) == "api-token"
        new_pod = f'fraud_short_tokens{{{of_the_api}, pod="{release.api_pod()}"}}'
        wait_for("a scrape of the new pod", lambda: cluster.series(new_pod))
        assert figures <= _names(cluster.series(f"count by (__name__) ({{{of_the_api}}})"))
        assert cluster.series(f"min_over_time(up{{{of_the_api}}}[{time.monotonic() - began:.0f}s]) == 0") == []

        cluster.core.patch_namespaced_secret(
            SECRET, namespace, {"stringData": {"metrics-token": "a-token-for-the-metrics"}}
        )
        release.upgrade(auth={"metricsTokenKey": "metrics-token"})
        release.wait_until_rolled_out()
        assert _key_of_prometheus(release) == "metrics-token"
        scraped = f'fraud_auth_requests_total{{{of_the_api}, token_id="METRICS_TOKEN"}} > 0'
        wait_for("a scrape with the token of its own", lambda: cluster.series(scraped))
        with release.api() as api:
            assert api.ask("GET", "/transactions/x", token="a-token-for-the-metrics").status_code == 403


def _chart_before(folder: Path) -> Path:
    """Return the chart of the last version with one token: `git archive e7378e2 charts/fraud-detection | xz -9`."""
    with tarfile.open(CHART_BEFORE) as archive:
        archive.extractall(folder, filter="data")
    return folder / "charts" / "fraud-detection"


def _names(series: list[dict[str, Any]]) -> set[str]:
    return {each["metric"]["__name__"] for each in series}


def _key_of_prometheus(release: Release) -> str:
    path = "--output=jsonpath={.spec.endpoints[0].authorization.credentials.key}"
    return str(release.namespace.kubectl("get", "servicemonitor", f"{NAME}-api", path).stdout)


def _the_first_is_there(release: Release) -> bool:
    return release.sql("SELECT COUNT(*) FROM requests WHERE transaction_id = 'the-first'") == [["1"]]


def _versions(release: Release) -> dict[str, Any]:
    """Return the generation of every object or, if Kubernetes counts none, its content."""
    found = json.loads(release.namespace.kubectl("get", KINDS, "--selector", LABELS, "--output=json").stdout)["items"]
    return {
        f"{each['kind']}/{each['metadata']['name']}": each["metadata"].get("generation")
        or each.get("data")
        or each.get("rules")
        or each["metadata"]["uid"]
        for each in found
    }
