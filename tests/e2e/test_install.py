"""After `helm install --wait` the API answers, checks tokens, and remembers."""

import json
import subprocess
from collections.abc import Callable

import pytest
import requests

from tests.e2e.release import NAME, TOKEN, Installed, Release
from tests.support.project import CHART

ROW = [0.0] * 29
READY_WITHIN_SECONDS = 180
"""What the chart promises, from the first pod on."""


def test_it_is_ready_without_a_training(installed: Installed, figure: Callable[[str], None]) -> None:
    with installed("new") as release:
        seconds = release.upgrade()  # nothing has changed, so it only waits for what is not ready yet
        jobs = release.namespace.cluster.batch.list_namespaced_job(release.namespace.name).items
        pod = release.pods()[0]
        ready_at = next(each for each in pod.status.conditions if each.type == "Ready").last_transition_time
        took = (ready_at - pod.metadata.creation_timestamp).total_seconds()
        figure(
            f"the first pod was ready {took:.0f} s after it was made; an upgrade without a change took {seconds:.1f} s"
        )

        assert took < READY_WITHIN_SECONDS
        assert jobs == []
        assert release.get("/model")["trained_on"] == "synthetic"
        assert release.helm("test", NAME).count("Phase:          Succeeded") == 2


def test_plain_manifests_are_ready_too(installed: Installed) -> None:
    with installed("plain") as release:
        release.helm("uninstall", NAME, "--wait")
        release.namespace.kubectl("delete", "persistentvolumeclaims", "--all")
        kubernetes = json.loads(release.namespace.kubectl("version", "--output=json").stdout)["serverVersion"]
        chart = (NAME, str(CHART), "--skip-tests", "--kube-version", kubernetes["gitVersion"])
        manifests = release.helm("template", *chart, "--values", "-", values=release.values)
        release.namespace.kubectl("apply", "--filename", "-", stdin=manifests)
        release.wait_until_rolled_out()

        assert release.get("/model")["trained_on"] == "synthetic"


def test_the_contract_holds_by_curl_and_by_sqlite3(release: Release) -> None:
    with release.api() as api:
        said = subprocess.run(
            ["curl", "-sS", "-w", "\n%{http_code}", f"{api.url}/predict", "-H", f"Authorization: Bearer {TOKEN}",
             "-H", "Content-Type: application/json", "-d", json.dumps({"data": [ROW]})],
            capture_output=True, text=True, check=True,
        ).stdout  # fmt: skip
    answer, status = said.rsplit("\n", 1)
    [score] = json.loads(answer)["fraud_probability"]
    latest = release.in_api("sqlite3", "/app/data/requests.db", "SELECT * FROM requests ORDER BY ts DESC LIMIT 1;")

    assert status == "200"
    assert 0 <= score <= 1
    assert json.loads(answer)["request_id"] in latest


@pytest.mark.parametrize("token", [None, "", "wrong", TOKEN[:-1]])
@pytest.mark.parametrize(("method", "path"), [("POST", "/predict"), ("POST", "/labels"), ("GET", "/metrics")])
def test_without_the_token_nothing_is_done(release: Release, method: str, path: str, token: str | None) -> None:
    before = release.sql("SELECT COUNT(*) FROM requests")
    with release.api() as api:
        answer = api.ask(method, path, token=token, json={"data": [ROW]})

    assert answer.status_code == 401
    assert set(answer.json()["error"]) == {"code", "message", "request_id"}
    assert release.sql("SELECT COUNT(*) FROM requests") == before


def test_the_metrics_count_what_was_scored(release: Release) -> None:
    with release.api() as api:
        before = _predictions(api.ask("GET", "/metrics"))
        api.predict([ROW, ROW, ROW], ["a", "b", "c"])
        after = _predictions(api.ask("GET", "/metrics"))
        figures = api.ask("GET", "/metrics").text

    assert after - before == 3
    assert "fraud_probabilities_bucket" in figures


def _predictions(answer: requests.Response) -> float:
    assert answer.status_code == 200
    lines = [line for line in answer.text.splitlines() if line.startswith("predictions_total{")]
    return sum(float(line.split()[-1]) for line in lines)


def test_the_development_release_has_a_scored_transaction(release: Release) -> None:
    in_development = ("--namespace", "fraud", "exec", f"deployment/{NAME}-api", "--")
    statement = "SELECT transaction_id FROM requests ORDER BY ts LIMIT 1"
    stored = release.namespace.cluster.kubectl(*in_development, "sqlite3", "/app/data/requests.db", statement).stdout

    assert stored == "first\n"
