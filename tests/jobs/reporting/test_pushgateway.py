"""Jobs push their figures under published names, and a missing Pushgateway stops no job."""

import dataclasses
import re
import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest

from fraud_detection.features import Feature, FeatureList
from fraud_detection.model.manifest import Holdout
from jobs.drift.compare import Decisions, Reference, Window, compare
from jobs.drift.report import DriftReport, unable_to_compare
from jobs.evaluation.measures import Evaluation, evaluate
from jobs.reporting import pushgateway as pushing
from jobs.reporting.pushgateway import METRICS, Run, push_drift, push_retrain
from jobs.training.outcome import RETRAIN_OUTCOMES, RetrainFigures
from tests.support.waiting import PATIENCE_SECONDS

RUN = Run(started=1_800_000_000.0, finished=1_800_000_012.5, succeeded=True)
FAILED_RUN = Run(started=1_800_000_000.0, finished=1_800_000_012.5, succeeded=False)


@dataclass
class Gateway:
    """A server that keeps what the jobs push to it."""

    url: str
    pushes: list[tuple[str, str, dict[str, float]]] = field(default_factory=list)  # method, path, series
    status: int = 200


@pytest.fixture
def gateway(monkeypatch: pytest.MonkeyPatch) -> Iterator[Gateway]:
    monkeypatch.setattr(pushing, "TIMEOUT_SECONDS", PATIENCE_SECONDS)  # 2 seconds may be too few on a busy machine

    class Handler(BaseHTTPRequestHandler):
        def _take(self) -> None:
            text = self.rfile.read(int(self.headers["Content-Length"])).decode()
            lines = [line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#")]
            taken.pushes.append((self.command, self.path, {name: float(value) for name, value in lines}))
            self.send_response(taken.status)
            self.end_headers()

        do_PUT = do_POST = _take  # noqa: N815  the names that http.server looks for

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    taken = Gateway(f"http://127.0.0.1:{server.server_port}")
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield taken
    server.shutdown()
    thread.join()
    server.server_close()


def report(*, is_baseline: bool = False, holdout: Holdout | None = None) -> DriftReport:
    random = np.random.default_rng(0)

    def window(shift: float) -> Window:
        return Window(random.normal([0, shift], size=(800, 2)), random.beta(1, 9, size=800), "a", "b", np.full(800, 5))

    return compare(
        Reference(random.normal(size=(4000, 2)), holdout, is_baseline),
        window(0),
        window(1),
        features=FeatureList((Feature("f0"), Feature("f1"))),
        decisions=Decisions(800, 16, (0.4,)),
        min_rows=500,
        first_reference=random.normal(size=(4000, 2)),
    )


HOLDOUT = Holdout(rows=8000, alerts=80, threshold=0.4, score_bands=[1000] * 8)


def test_a_drift_report_becomes_series(gateway: Gateway) -> None:
    found = report(holdout=HOLDOUT)

    assert push_drift(gateway.url, found, RUN)

    [(method, path, series)] = gateway.pushes
    assert (method, path) == ("PUT", "/metrics/job/fraud-drift")
    assert [series[f'fraud_drift_state{{state="{state}"}}'] for state in ("ok", "warn", "drift")] == [0, 1, 0]
    assert [series[f'fraud_drift_reason{{reason="{reason}"}}'] for reason in ("features", "data_quality")] == [1, 0]
    assert series["fraud_drift_features_warned"] == 1
    assert series["fraud_drift_d_max"] == pytest.approx(found.d_max)
    assert series["fraud_drift_d_since_first"] == pytest.approx(found.d_since_first)
    assert series["fraud_drift_alert_rate_ratio"] == 2
    assert series["fraud_drift_score_psi"] == pytest.approx(found.score_psi)
    assert series["fraud_job_duration_seconds"] == 12.5
    assert series["fraud_job_last_success_timestamp_seconds"] == RUN.finished


def test_each_warned_feature_has_a_series_and_no_other(gateway: Gateway) -> None:
    found = report()

    push_drift(gateway.url, found, RUN)

    [(_, _, series)] = gateway.pushes
    by_feature = {name: value for name, value in series.items() if name.startswith("fraud_drift_feature_d")}
    assert by_feature == {'fraud_drift_feature_d{feature="f1"}': pytest.approx(found.d_max)}


def test_of_many_warned_features_those_that_differ_most_have_a_series(gateway: Gateway) -> None:
    [warned] = [each for each in report().features if each.is_warned]
    by_distance = [
        dataclasses.replace(warned, name=f"f{place}", newer=dataclasses.replace(warned.newer, d=0.5 + place / 100))
        for place in range(30)
    ]

    push_drift(gateway.url, dataclasses.replace(report(), features=tuple(by_distance)), RUN)

    [(_, _, series)] = gateway.pushes
    assert {name for name in series if "feature_d" in name} == {
        f'fraud_drift_feature_d{{feature="f{place}"}}' for place in range(10, 30)
    }


def test_what_is_not_known_has_no_series(gateway: Gateway) -> None:
    push_drift(gateway.url, report(holdout=None), RUN)

    assert not {name for name in gateway.pushes[0][2] if "alert_rate_ratio" in name or "psi" in name}


def test_a_failed_comparison_keeps_the_last_figures(gateway: Gateway) -> None:
    assert push_drift(gateway.url, unable_to_compare("no model"), FAILED_RUN)

    [(method, path, series)] = gateway.pushes
    assert (method, path) == ("POST", "/metrics/job/fraud-drift")
    assert series['fraud_drift_state{state="error"}'] == 1
    assert series["fraud_job_succeeded"] == 0
    assert series["fraud_job_last_attempt_timestamp_seconds"] == RUN.finished
    assert "fraud_drift_d_max" not in series
    assert "fraud_job_last_success_timestamp_seconds" not in series


def evaluation(seed: int, *, is_fraud_rate: float = 0.1) -> Evaluation:
    random = np.random.default_rng(seed)
    is_fraud = random.random(500) < is_fraud_rate
    scores = np.clip(random.normal(0.2 + 0.3 * is_fraud, 0.15), 0, 1)
    return evaluate(scores, is_fraud, threshold=0.4, days=5, seed=1)


def test_a_judgement_becomes_series_of_both_models(gateway: Gateway) -> None:
    figures = RetrainFigures("true", evaluation(1), evaluation(2), {"import": 300, "chargeback": 100})

    assert push_retrain(
        gateway.url, "promoted", RUN, figures=figures, label_coverage={"under_7_days": 0.25}, rejections_in_a_row=3
    )

    [(method, path, series)] = gateway.pushes
    assert (method, path) == ("PUT", "/metrics/job/fraud-retrain")
    assert series['model_accuracy{label_source="true"}'] == figures.challenger.accuracy
    assert series["fraud_trivial_accuracy"] == figures.challenger.trivial_accuracy
    assert series["fraud_holdout_frauds"] == figures.challenger.frauds
    for model, each in (("challenger", figures.challenger), ("champion", figures.champion)):
        assert each is not None
        for name in ("average_precision", "precision", "recall", "alerts_per_day", "precision_at_reviews"):
            assert series[f'fraud_{name}{{model="{model}"}}'] == pytest.approx(getattr(each, name))
    assert series['fraud_model_label_ratio{source="chargeback"}'] == 0.25
    assert series['fraud_label_coverage_ratio{age="under_7_days"}'] == 0.25
    assert series["fraud_retrain_rejections_in_a_row"] == 3
    assert [outcome for outcome in RETRAIN_OUTCOMES if series[f'fraud_retrain_outcome{{outcome="{outcome}"}}']] == [
        "promoted"
    ]


def test_without_a_champion_or_frauds_those_series_are_absent(gateway: Gateway) -> None:
    push_retrain(
        gateway.url, "promoted", RUN, figures=RetrainFigures("derived", evaluation(1, is_fraud_rate=0), None, {})
    )  # fmt: skip

    series = gateway.pushes[0][2]
    assert 'model_accuracy{label_source="derived"}' in series
    assert not {name for name in series if "champion" in name or "recall" in name or "average_precision" in name}


@pytest.mark.parametrize(("outcome", "run"), [("held_frauds", RUN), ("failed", FAILED_RUN)])
def test_a_run_that_judged_nothing_keeps_the_last_judgement(gateway: Gateway, outcome: str, run: Run) -> None:
    push_retrain(gateway.url, outcome, run)  # type: ignore[arg-type]  # one of the outcomes

    [(method, _, series)] = gateway.pushes
    assert method == "POST"
    assert series[f'fraud_retrain_outcome{{outcome="{outcome}"}}'] == 1
    assert "fraud_trivial_accuracy" not in series


def test_a_restored_run_keeps_the_time_of_the_last_success(gateway: Gateway) -> None:
    push_retrain(gateway.url, "restored", FAILED_RUN, figures=RetrainFigures("true", evaluation(1), None, {}))

    [(method, _, series)] = gateway.pushes
    assert method == "POST"
    assert "fraud_trivial_accuracy" in series
    assert "fraud_job_last_success_timestamp_seconds" not in series


def test_only_names_with_a_published_meaning_are_pushed(gateway: Gateway) -> None:
    push_drift(gateway.url, report(holdout=HOLDOUT), RUN)
    push_retrain(
        gateway.url, "rejected", RUN, label_coverage={"under_7_days": 1}, rejections_in_a_row=0,
        figures=RetrainFigures("true", evaluation(1), evaluation(2), {"import": 1}),
    )  # fmt: skip

    pushed = {re.split(r"[{ ]", name)[0] for _, _, series in gateway.pushes for name in series}
    assert pushed == set(METRICS)


def test_without_a_gateway_nothing_is_pushed() -> None:
    assert not push_drift(None, report(), RUN)


def test_a_refusal_of_the_gateway_is_only_logged(gateway: Gateway, caplog: pytest.LogCaptureFixture) -> None:
    gateway.status = 500

    assert not push_drift(gateway.url, report(), RUN)

    assert "did not take the numbers of fraud-drift" in caplog.text


def test_a_gateway_that_is_away_or_silent_is_only_logged(caplog: pytest.LogCaptureFixture) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        assert not push_drift(url, report(), RUN)
    assert not push_drift(url, report(), RUN)

    assert len(caplog.records) == 2
