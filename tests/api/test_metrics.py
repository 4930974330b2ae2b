"""GET /metrics counts every answer once, under labels of a fixed set."""

import math
import re
import shutil
import time
from pathlib import Path

import flask
import pytest
from flask.testing import FlaskClient
from prometheus_client.parser import text_string_to_metric_families

from api.metrics import Metrics, blueprint

ROW = [0.5] * 29


@pytest.fixture
def scrape(client: FlaskClient, authorized: dict[str, str]) -> "Scrape":
    return Scrape(client, authorized)


class Scrape:
    """What GET /metrics says."""

    def __init__(self, client: FlaskClient, authorized: dict[str, str]) -> None:
        self._client = client
        self._authorized = authorized

    def __call__(self) -> dict[str, float]:
        answer = self._client.get("/metrics", headers=self._authorized)
        assert (answer.status_code, answer.mimetype) == (200, "text/plain")
        return {
            sample.name + "".join(f" {name}={value}" for name, value in sorted(sample.labels.items())): sample.value
            for family in text_string_to_metric_families(answer.text)
            for sample in family.samples
        }


def test_what_was_answered_is_counted(client: FlaskClient, authorized: dict[str, str], scrape: Scrape) -> None:
    sent = {"data": [ROW, [3.0] * 29, [*ROW[:-1], 100.0]]}

    scores = client.post("/predict", json=sent, headers=authorized).get_json()["fraud_probability"]

    figures = scrape()
    flagged = sum(score >= 0.4 for score in scores)
    assert flagged > 0
    assert figures["predictions_total decision=flagged"] == flagged
    assert figures["predictions_total decision=passed"] == 3 - flagged
    assert figures["fraud_probabilities_count"] == 3
    assert figures["fraud_probabilities_sum"] == pytest.approx(sum(scores))
    for bound in (0.01, 0.4, 1.0):
        at_most = sum(score <= bound for score in scores)
        assert figures[f"fraud_probabilities_bucket le={bound}"] == at_most
    assert figures["fraud_suspicious_rows_total"] == 2
    assert figures["fraud_rows_stored_total"] == 3
    assert figures["fraud_commit_seconds_count"] == 1
    assert figures["fraud_request_seconds_count handler=predict status=2xx"] == 1
    assert figures["fraud_auth_requests_total token_id=current"] == 2
    assert figures["fraud_storage_ok"] == 1


def test_it_is_known_when_the_metrics_were_last_read() -> None:
    figures = Metrics()
    app = flask.Flask("metrics")
    app.register_blueprint(blueprint(figures))
    before = time.monotonic()

    app.test_client().get("/metrics")

    assert figures.scraped_at >= before


def test_the_libraries_and_the_model_in_use_are_named(scrape: Scrape) -> None:
    names = "\n".join(scrape())

    assert re.search(r"^fraud_model_info digest=[0-9a-f]{64} trained_on=labels version=\S+$", names, re.MULTILINE)
    assert re.search(r"^fraud_sqlite_info version=3\.\d+\.\d+$", names, re.MULTILINE)
    assert re.search(r"^process_resident_memory_bytes$", names, re.MULTILINE)


def test_rejections_and_latencies_have_only_our_labels(
    client: FlaskClient, authorized: dict[str, str], scrape: Scrape
) -> None:
    for path in ("/<script>", "/a/b", "/predict"):
        client.get(path, headers=authorized)
    client.post("/predict", json={"data": []}, headers=authorized)

    figures = scrape()

    assert figures["fraud_request_seconds_count handler=other status=4xx"] == 2
    assert figures["fraud_request_seconds_count handler=predict status=4xx"] == 2
    assert figures["fraud_rejected_requests_total reason=not_found"] == 2
    assert not [name for name in figures if "script" in name]


def test_every_route_but_the_start_has_a_handler_of_its_own(client: FlaskClient, scrape: Scrape) -> None:
    routes = {route.rule.split("/")[1] for route in client.application.url_map.iter_rules() if route.rule != "/"}

    handlers = {match[1] for name in scrape() if (match := re.search(r"_seconds_count handler=(\S+) status=2xx", name))}

    assert handlers == routes | {"other"}
    assert {"predict", "labels", "transactions", "model", "metrics", "health", "docs", "openapi.json"} <= routes


def test_a_request_that_fails_is_counted_once(client: FlaskClient, authorized: dict[str, str], scrape: Scrape) -> None:
    client.post("/predict", json={"data": []}, headers=authorized)

    figures = scrape()

    assert figures["fraud_auth_requests_total token_id=current"] == 2  # with the request for the metrics
    assert figures["fraud_rejected_requests_total reason=invalid_transactions"] == 1
    assert figures["fraud_request_seconds_count handler=predict status=4xx"] == 1
    assert figures["predictions_total decision=passed"] == 0


def test_what_has_not_happened_yet_is_there_as_a_0(scrape: Scrape) -> None:
    figures = scrape()

    assert figures["fraud_model_refused_total reason=digest"] == 0
    assert figures["fraud_storage_errors_total reason=corrupt"] == 0
    assert figures["fraud_token_reload_failures_total token_id=current"] == 0
    assert figures["fraud_auth_requests_total token_id=previous"] == 0
    assert figures["fraud_log_lines_dropped_total"] == 0


def test_the_volume_of_the_database_is_measured(scrape: Scrape, tmp_path: Path) -> None:
    figures = scrape()

    total, _, free = shutil.disk_usage(tmp_path)
    assert figures["fraud_volume_size_bytes"] == total
    assert figures["fraud_volume_free_bytes"] == pytest.approx(free, rel=0.05)  # other programs write too


def test_a_volume_that_is_gone_takes_no_other_figure_with_it(tmp_path: Path) -> None:
    metrics = Metrics()
    metrics.watch_volume(tmp_path / "gone")

    assert math.isnan(metrics.registry.get_sample_value("fraud_volume_free_bytes") or 0)


def test_two_applications_count_apart(client: FlaskClient, lasting_client: FlaskClient, scrape: Scrape) -> None:
    before = scrape()["fraud_request_seconds_count handler=health status=2xx"]

    lasting_client.get("/health")

    assert scrape()["fraud_request_seconds_count handler=health status=2xx"] == before
