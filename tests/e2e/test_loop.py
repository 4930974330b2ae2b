"""The front page as a test: a model that was trained on what was scored and labelled serves, and nothing is lost.

score → remember → label → watch drift → retrain → gate → roll out → verify, in a cluster, under constant load.
"""

import dataclasses
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from sklearn.metrics import average_precision_score

from tests.e2e.cluster import EndedJob
from tests.e2e.release import NAME, Installed, Release
from tests.e2e.traffic import LEAST_RATE, Seen, lost_or_altered, stored_rows, traffic
from tests.support.dashboards import KUBERNETES, Query, metrics_in, queries
from tests.support.sample import Sample, shifted

REGISTRY = """
SELECT digest.value FROM registered_model_aliases AS alias
JOIN model_version_tags AS digest ON digest.name = alias.name AND digest.version = alias.version
WHERE alias.alias = 'champion' AND digest.key = 'digest'
"""
"""The digest that MLflow's registry has for the champion, in MLflow's own tables."""


@pytest.fixture(scope="module")
def loop(installed: Installed) -> Iterator[Release]:
    """A release that runs the loop."""
    with installed("loop") as release:
        yield release


def test_with_the_models_own_decisions_for_labels_nothing_is_trained(loop: Release, sample: Sample) -> None:
    before = loop.deployment
    with loop.api() as api:
        model = api.get("/model")
        rows = sample.scaled(sample.calm, model["amount_scaling"])
        api.predict(rows, [f"unlabelled-{number}" for number in range(len(rows))])

    ended = loop.namespace.wait_for_job(loop.start_job("retrain", "derived-only"))

    assert ended.succeeded, ended.log
    assert "held_derived" in ended.log
    assert loop.get("/model") == model
    assert loop.deployment.metadata.generation == before.metadata.generation


def test_the_loop_closes_under_load(loop: Release, sample: Sample, figure: Callable[[str], None]) -> None:
    first_training, seen_first = _train_on_history(loop, sample)
    first = loop.get("/model")
    assert "promoted" in first_training.log, first_training.log
    assert first["trained_on"] == "labels"
    figure(f"first training and roll-out: job {first_training.seconds:.0f} s; {seen_first}")

    # the world changes, and the current model suffers
    change = _change_the_world(loop, sample, first["amount_scaling"])
    assert change.after < change.before - 0.1

    # drift is found, retraining answers it, and the new model serves
    generation = loop.deployment.metadata.generation
    with traffic(loop, change.rows, name="changed-load") as load:
        drift = loop.namespace.wait_for_job(loop.start_job("detect-drift", "drift"))
        found = json.loads(loop.in_api("cat", "/app/data/drift_result.json"))
        retraining = loop.namespace.wait_for_job(loop.start_job("retrain", "retraining"))
        loop.wait_until_rolled_out()
        seen = load.stop()
    assert drift.succeeded, drift.log
    assert (found["state"], found["drift"]) == ("drift", True), found
    assert "promoted" in retraining.log, retraining.log
    assert loop.deployment.metadata.generation == generation + 1
    jobs = f"drift job {drift.seconds:.0f} s, retrain job {retraining.seconds:.0f} s"
    figure(f"drift, retraining and roll-out: {jobs}; {seen}")

    # what serves is what was trained and what the registry has, and its reference moved with it
    served, current = loop.get("/model"), loop.current()
    files = current.manifest["files"]
    with loop.admin() as admin:
        registered = admin.run("sqlite3", "/app/data/mlflow.db", REGISTRY).strip()
    assert served["digest"] != first["digest"]
    assert served["digest"] == current.model_sha256 == files["model.onnx"]["sha256"] == registered
    assert current.reference_sha256 == files["reference_data.db"]["sha256"]
    assert seen.digests == [first["digest"][:12], served["digest"][:12]]

    # no client noticed
    for each, name in ((seen_first, "calm-load"), (seen, "changed-load")):
        stored = stored_rows(loop.sql, name)
        assert each.rate >= LEAST_RATE
        assert each.failed_with() == {}
        assert lost_or_altered(each.answers, stored) == []
        assert len(stored) == len(each.answers)

    # the new model is better
    improved, suffered = change.on_the_newest_half(loop)
    figure(
        f"average precision {change.before:.3f}, after the change {change.after:.3f}; on its newest half "
        f"{suffered:.3f}, and {improved:.3f} with the retrained model"
    )
    assert improved > suffered


def _train_on_history(loop: Release, sample: Sample) -> tuple[EndedJob, Seen]:
    """Import half, and let the first real model replace the synthetic one while a client scores."""
    calm = sample.scaled(sample.calm, loop.get("/model")["amount_scaling"])
    with loop.admin() as admin:
        admin.run("fraudctl", "import-csv", "/dev/stdin", stdin=sample.text(sample.history))
    with traffic(loop, calm, name="calm-load") as load:
        ended = loop.namespace.wait_for_job(loop.start_job("retrain", "first-training"))
        loop.wait_until_rolled_out()
        return ended, load.stop()


@dataclass(frozen=True)
class Change:
    """Shifted transactions, their truths, and their scores by the current model."""

    rows: list[list[float]]
    truths: list[int]
    scores: list[float]
    before: float
    """Average precision on the same transactions before they were shifted."""

    @property
    def after(self) -> float:
        """Average precision on the shifted ones."""
        return float(average_precision_score(self.truths, self.scores))

    def on_the_newest_half(self, loop: Release) -> tuple[float, float]:
        """Return the average precision of the present model, which never saw these, and of the previous one."""
        newest = slice(len(self.rows) // 2, None)
        with loop.api() as api:
            scores = api.predict(self.rows[newest], [f"again-{number}" for number in range(len(self.rows[newest]))])
        now, then = (average_precision_score(self.truths[newest], each) for each in (scores, self.scores[newest]))
        return float(now), float(then)


def _change_the_world(loop: Release, sample: Sample, scaling: dict[str, float]) -> Change:
    """Score and label transactions that are distributed as history is, and then changed ones."""
    unshifted, truths = sample.scaled(sample.changed, scaling), sample.truths(sample.changed)
    rows = shifted(unshifted)
    with loop.api() as api:
        calm_ids = [f"calm-{number}" for number in range(len(sample.lines[sample.calm]))]
        api.predict(sample.scaled(sample.calm, scaling), calm_ids)
        api.label(calm_ids, sample.truths(sample.calm))
        as_before = api.predict(unshifted, [f"as-before-{number}" for number in range(len(rows))])
        changed_ids = [f"changed-{number}" for number in range(len(rows))]
        scores = api.predict(rows, changed_ids)
        api.label(changed_ids, truths)
    return Change(rows, truths, scores, float(average_precision_score(truths, as_before)))


@pytest.mark.prometheus
def test_every_query_of_the_dashboards_finds_something(loop: Release, sample: Sample) -> None:
    """After a whole loop every query finds something, unless it needs kube-state-metrics or the kubelet."""
    rows = sample.scaled(sample.calm, loop.get("/model")["amount_scaling"])
    with traffic(loop, rows, name="watched-load"), loop.api() as api:
        assert api.ask("POST", "/predict", json={"data": [[1, 2]]}).status_code == 422
        silent = ours = [each for each in queries() if not _asks_kubernetes(loop, each)]
        deadline = time.monotonic() + 90
        while silent and time.monotonic() < deadline:
            time.sleep(1)
            silent = [each for each in queries() if not _answers(loop, each) and each in ours]

    assert [each.where for each in silent] == []
    assert len(ours) > 0.8 * len(queries())


def _answers(release: Release, query: Query) -> bool:
    """Say whether Prometheus finds something; a refusal fails the test."""
    return bool(release.namespace.cluster.series(query.as_asked(release.namespace.name, NAME)))


def _asks_kubernetes(release: Release, query: Query) -> bool:
    parsed: Any = release.namespace.cluster.prometheus("parse_query", query=query.as_asked("n", "r"))
    return bool(set(metrics_in(parsed)) & set(KUBERNETES))


def test_a_row_that_is_missing_altered_or_doubled_is_noticed(loop: Release, sample: Sample) -> None:
    """The control of the checks above."""
    rows = sample.scaled(sample.calm, loop.get("/model")["amount_scaling"])
    with traffic(loop, rows, name="control-load") as load:
        seen = load.stop()
    stored = dict(stored_rows(loop.sql, "control-load"))
    missing, altered, doubled = (answer["transaction_id"] for answer in seen.answers[:3])
    stored[altered] = [(stored[altered][0][0], stored[altered][0][1] + 0.01)]
    stored[doubled] = [*stored[doubled], *stored[doubled]]
    del stored[missing]

    assert lost_or_altered(seen.answers, stored) == [missing, altered, doubled]
    assert dataclasses.replace(seen, failures=[{"problem": "no"}]).failed_with() == {"no": 1}
