"""The retraining job trains, judges, registers and promotes, or says why it does not."""

import json
import os
import re
import threading
from collections.abc import Callable, Iterator
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
from mlflow import MlflowClient
from numpy.typing import NDArray

from fraud_detection.clock import timestamp
from fraud_detection.lock import promoter
from fraud_detection.model import read
from fraud_detection.model.files import CURRENT, JOURNAL, ONNX, PICKLE
from fraud_detection.model.read import current_version, load
from fraud_detection.model.write import promote
from fraud_detection.settings import ClientSettings
from jobs import retrain as retrain_module
from jobs.drift.reference import read_reference
from jobs.reporting import pushgateway
from jobs.retrain import main, retrain
from jobs.rollout import running_api
from jobs.rollout.promotion import tracking_of
from jobs.rollout.running_api import RunningApi
from jobs.training import challenger, usable
from tests.support.bad_models import BAD_STATES, Spoil, in_a_loop, leading
from tests.support.installation import FEATURES, NOW, SmallInstallation, made_up
from tests.support.kubernetes_api import Cluster, Pods
from tests.support.mlflow_store import mlflow_client
from tests.support.waiting import PATIENCE_SECONDS

pytestmark = pytest.mark.long_file

EXPERIMENT_ID = "1"  # MLflow's own default experiment is 0


@pytest.fixture
def client_of_mlflow(tmp_path: Path) -> MlflowClient:
    return mlflow_client(tmp_path / "data")


def description(client: MlflowClient) -> str:
    """Return the description of the newest run in MLflow's UI."""
    run, *_ = client.search_runs([EXPERIMENT_ID])
    return str(run.data.tags["mlflow.note.content"])


def test_the_first_real_model_is_trained_judged_registered_and_served(
    installation: SmallInstallation, client_of_mlflow: MlflowClient
) -> None:
    matrix, is_fraud = made_up(1000, seed=1)
    installation.import_labelled(matrix, is_fraud, age_days=100)

    done = retrain(installation.settings, now=NOW)

    assert (done.outcome, done.exit_code) == ("promoted", 0)
    model = load(installation.settings.model_path, FEATURES)
    assert model.version == done.version
    manifest = model.manifest
    assert (manifest.trained_on, manifest.parent, manifest.created) == ("labels", None, timestamp(NOW))
    assert manifest.rows == {"fraud": 70, "genuine": 630}
    assert manifest.label_sources == {"import": 700}
    assert manifest.holdout is not None
    assert manifest.holdout.rows == 300
    assert manifest.verdict is not None
    assert manifest.verdict["decision"] == "promote"
    assert done.figures is not None
    assert manifest.verdict["measured"] == done.figures.challenger.summary
    assert read_reference(installation.models_dir / model.version, FEATURES).shape == (700, 3)
    assert installation.events() == ["promoted", "verified"]

    registered = client_of_mlflow.get_model_version_by_alias("fraud-api", "champion")
    assert registered.tags["digest"] == model.digest
    run = client_of_mlflow.get_run(str(registered.run_id))
    assert {"accuracy", "average_precision", "precision", "recall", "validation_recall"} <= run.data.metrics.keys()
    assert run.data.params["class_weight"] == "balanced"
    assert description(client_of_mlflow) == done.paragraph
    artifacts = Path(run.info.artifact_uri.removeprefix("file://"))
    assert (artifacts / "model" / ONNX).read_bytes() == (installation.models_dir / model.version / ONNX).read_bytes()
    assert sorted(path.name for path in (artifacts / "plots").iterdir()) == [
        "confusion_matrix.png",
        "feature_importances.png",
        "precision_recall.png",
        "scores.png",
    ]
    assert json.loads((artifacts / "confusion_matrix.json").read_text())["true_positives"] > 0


def test_the_paragraph_of_a_promotion_says_to_an_analyst_what_happened(installation: SmallInstallation) -> None:
    installation.import_labelled(*made_up(1000, seed=1), age_days=100)

    done = retrain(installation.settings, now=NOW)

    assert "A new model learned from 700 transactions (70 frauds) from 20" in done.paragraph
    assert "judged on 300 later transactions with 30 frauds. The new model flags 9" in done.paragraph
    assert f"The new model is now current as {done.version}, the first model of this installation. " in done.paragraph
    assert "when the cooldown ends (RETRAIN_COOLDOWN_DAYS)." in done.paragraph
    assert done.paragraph.endswith(f" {running_api.NOT_ASKED}")


def test_it_works_the_same_on_both_databases(
    installation: SmallInstallation, location: str | Path, client_of_mlflow: MlflowClient
) -> None:
    if isinstance(location, str):
        installation.variables["DATABASE_URL"] = location
    installation.import_labelled(*made_up(1000, seed=1), age_days=100)

    done = retrain(installation.settings, now=NOW)

    assert done.outcome == "promoted"
    assert client_of_mlflow.get_model_version_by_alias("fraud-api", "champion").tags["version"] == done.version


def test_imported_history_and_live_labels_train_together(trained: SmallInstallation, tmp_path: Path) -> None:
    trained.variables["TRAIN_DB"] = trained.environment["LATEST_DB"]
    trained.variables["LATEST_DB"] = str(tmp_path / "data" / "live.db")
    matrix, is_fraud = made_up(1000, seed=2)
    trained.score(matrix, age_days=35, truths=is_fraud)

    done = retrain(trained.settings, force=True, now=NOW)

    assert done.outcome == "promoted"
    assert trained.served().label_sources == {"import": 1000, "chargeback": 400}
    assert f"in place of {trained.served().parent}. " in done.paragraph
    measured = r"model flags [\d.]+% of these frauds \(recall\), and [\d.]+% of what it flags is fraud \(precision\)\."
    assert re.search(f"The new {measured} The current {measured}", done.paragraph)


def test_drift_compares_with_all_transactions_of_the_window_and_not_with_the_labelled_ones(
    trained: SmallInstallation,
) -> None:
    """People label what looks like fraud, and a reference of these alone would make normal traffic look like drift."""
    matrix, is_fraud = made_up(1000, seed=2)
    trained.score(matrix, age_days=35)
    trained.score(matrix, age_days=34, truths=is_fraud)

    retrain(trained.settings, force=True, now=NOW)

    manifest = trained.served()
    assert sum(manifest.rows.values()) == 1400
    assert len(read_reference(trained.models_dir / CURRENT, FEATURES)) == 2400
    assert manifest.holdout is not None
    assert manifest.holdout.rows == 600


# -- due -------------------------------------------------------------------------------------------------------------


def test_without_drift_and_before_a_month_is_over_nothing_is_done(trained: SmallInstallation) -> None:
    before = trained.events()

    done = retrain(trained.settings, now=NOW + timedelta(days=29))

    assert (done.outcome, done.exit_code) == ("skipped", 0)
    assert "No retraining is due: no drift was reported" in done.paragraph
    assert trained.events() == before


def test_a_month_after_the_last_judgement_it_trains(trained: SmallInstallation) -> None:
    matrix, is_fraud = made_up(1000, seed=2)
    trained.score(matrix, age_days=35, truths=is_fraud)

    assert retrain(trained.settings, now=NOW + timedelta(days=31)).outcome == "promoted"


def test_drift_is_answered_after_the_cooldown_and_once(trained: SmallInstallation) -> None:
    matrix, is_fraud = made_up(1000, seed=2)
    trained.score(matrix, age_days=35, truths=poisoned(is_fraud))
    trained.report_drift()

    resting = retrain(trained.settings, now=NOW + timedelta(days=6))
    answered = retrain(trained.settings, now=NOW + timedelta(days=8))
    again = retrain(trained.settings, now=NOW + timedelta(days=16))

    assert (resting.outcome, answered.outcome, again.outcome) == ("skipped", "rejected", "skipped")
    assert "the cooldown after the last judgement (RETRAIN_COOLDOWN_DAYS) ends at" in resting.paragraph
    assert "the last judgement answered the drift" in again.paragraph


def test_a_drift_result_that_cannot_be_read_makes_nothing_due(
    trained: SmallInstallation, caplog: pytest.LogCaptureFixture
) -> None:
    trained.settings.drift_result.write_text("{")

    assert retrain(trained.settings, now=NOW + timedelta(days=8)).outcome == "skipped"
    assert "drift_result.json is not valid" in caplog.text


def test_a_forced_training_that_gives_the_very_model_that_serves_promotes_nothing(trained: SmallInstallation) -> None:
    done = retrain(trained.settings, force=True, now=NOW)

    assert done.outcome == "skipped"
    assert "Training produced the current model again" in done.paragraph
    assert trained.events() == ["promoted", "verified"]


def test_when_no_label_is_new_nothing_is_trained_again(trained: SmallInstallation) -> None:
    matrix, is_fraud = made_up(1000, seed=2)
    trained.score(matrix, age_days=35, truths=poisoned(is_fraud))
    assert retrain(trained.settings, force=True, now=NOW).outcome == "rejected"

    done = retrain(trained.settings, now=NOW + timedelta(days=31))

    assert done.outcome == "skipped"
    assert "No label is new since the last judgement on " in done.paragraph
    assert retrain(trained.settings, force=True, now=NOW).outcome == "rejected"


# -- held and rejected -----------------------------------------------------------------------------------------------


def unchanged(installation: SmallInstallation) -> Callable[[], bool]:
    """Return a function that says whether a version, the link or the journal has changed since now."""

    def state() -> list[tuple[str, bytes]]:
        return [(path.name, path.read_bytes()) for path in sorted(installation.models_dir.rglob("*")) if path.is_file()]

    before = state()
    return lambda: state() == before


def poisoned(is_fraud: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return labels that are wrong in the older part, which trains, and right in the newer one, which judges."""
    wrong = is_fraud.copy()
    wrong[:400] = np.roll(is_fraud[:400], 5)
    return wrong


def test_a_worse_model_is_rejected_with_its_numbers_and_the_old_one_stays(
    trained: SmallInstallation, client_of_mlflow: MlflowClient
) -> None:
    champion = trained.served().digest
    matrix, is_fraud = made_up(1000, seed=2)
    trained.score(matrix, age_days=35, truths=poisoned(is_fraud))

    done = retrain(trained.settings, force=True, now=NOW)

    assert (done.outcome, done.exit_code) == ("rejected", 0)
    assert "The new model was not good enough: Average precision changes by -" in done.paragraph
    assert "keeps serving. No action is needed. Drift can start the next retraining from " in done.paragraph
    assert re.search(r"The current model flags [\d.]+% of these frauds \(recall\), and [\d.]+% of ", done.paragraph)
    assert trained.served().digest == champion
    assert trained.events() == ["promoted", "verified", "judged"]
    (run, _) = client_of_mlflow.search_runs([EXPERIMENT_ID])
    assert run.data.tags["decision"] == "reject"
    assert description(client_of_mlflow) == done.paragraph
    assert run.data.metrics["average_precision"] < run.data.metrics["champion_average_precision"]
    assert client_of_mlflow.get_model_version_by_alias("fraud-api", "champion").tags["digest"] == champion
    assert len(client_of_mlflow.search_model_versions("name = 'fraud-api'")) == 1


def test_a_first_real_model_replaces_the_synthetic_baseline(
    installation: SmallInstallation, make_version: Callable[..., str]
) -> None:
    """By the rules for real models, a baseline that raises few alerts would reject every better model."""
    baseline = make_version(installation.models_dir, of=FEATURES, trained_on="synthetic", training_window=None)
    promote(installation.models_dir, baseline, actor="bootstrap", reason="the first one")
    installation.import_labelled(*made_up(1000, seed=1), age_days=100)

    done = retrain(installation.settings, now=NOW)

    assert done.outcome == "promoted"
    assert done.verdict is not None
    assert "replaces_baseline" in [check.name for check in done.verdict.checks]
    assert installation.served().parent == baseline
    # the promotion of the baseline was not verified, so this run did it first
    assert installation.events() == ["promoted", "verified", "promoted", "verified"]


def test_with_no_true_label_nothing_is_trained(trained: SmallInstallation) -> None:
    trained.variables["LATEST_DB"] = trained.variables["TRAIN_DB"] = str(trained.folder / "data" / "empty.db")
    matrix, _ = made_up(300, seed=2)
    trained.score(matrix, age_days=35)
    is_unchanged = unchanged(trained)

    done = retrain(trained.settings, force=True, now=NOW)

    assert (done.outcome, done.exit_code, done.version) == ("held_derived", 0, None)
    assert "POST /labels" in done.paragraph
    assert "keeps serving" in done.paragraph
    assert is_unchanged()
    assert done.label_coverage == {"30_to_90_days": 0.0}


def test_what_is_missing_is_said_and_the_next_day_it_is_tried_again(trained: SmallInstallation) -> None:
    trained.variables["GATE_MIN_FRAUDS"] = "80"
    matrix, is_fraud = made_up(100, seed=2)
    trained.score(matrix, age_days=35, truths=is_fraud)

    first, second = (retrain(trained.settings, now=NOW + timedelta(days=days)) for days in (31, 32))

    assert first.outcome == second.outcome == "held_frauds"
    assert "These hold 33 of 110 known frauds; 80 are needed" in first.paragraph


# -- derived labels --------------------------------------------------------------------------------------------------


@pytest.fixture
def decided(trained: SmallInstallation) -> SmallInstallation:
    """Only decisions of the current model, under the override."""
    trained.variables["LATEST_DB"] = trained.variables["TRAIN_DB"] = str(trained.folder / "data" / "decisions.db")
    trained.variables["ALLOW_DERIVED_LABELS"] = "true"
    matrix, _ = made_up(1000, seed=2)
    trained.score(matrix, age_days=35)
    return trained


def test_under_the_override_decisions_train_and_that_is_written_everywhere(
    decided: SmallInstallation, client_of_mlflow: MlflowClient
) -> None:
    done = retrain(decided.settings, force=True, now=NOW)

    assert done.outcome == "promoted"
    manifest = decided.served()
    assert manifest.trained_on == "derived"
    assert manifest.label_sources == {"derived": 700}
    assert manifest.verdict is not None
    assert manifest.verdict["label_source"] == "derived"
    promoted = next(entry for entry in reversed(read.journal(decided.models_dir)) if entry["event"] == "promoted")
    assert promoted["verdict"]["label_source"] == "derived"
    registered = client_of_mlflow.get_model_version_by_alias("fraud-api", "champion")
    run = client_of_mlflow.get_run(str(registered.run_id))
    assert (run.data.params["allow_derived_labels"], run.data.tags["trained_on"]) == ("True", "derived")
    assert done.figures is not None
    assert done.figures.label_source == "derived"
    assert "It was never judged against the truth" in done.paragraph


def test_a_model_that_flags_far_more_than_the_one_whose_decisions_it_learned_is_rejected(
    decided: SmallInstallation,
) -> None:
    """Derived labels can be checked only by the share of alerts."""
    store = decided.store()
    with store.begin() as connection:  # older decisions were made at a threshold that flagged three times as many
        connection.exec_driver_sql(
            "UPDATE requests SET is_flagged = 1 WHERE id < 700 AND fraud_probability > 0.001 AND id % 2 = 0"
        )
    store.close()

    done = retrain(decided.settings, force=True, now=NOW)

    assert done.outcome == "rejected"
    assert "times that of the current model; between 0.5 and 2.0 is allowed" in done.paragraph


# -- what can go wrong -----------------------------------------------------------------------------------------------


def test_while_another_job_holds_the_lock_nothing_is_done(trained: SmallInstallation) -> None:
    with promoter(trained.models_dir):
        done = retrain(trained.settings, force=True, now=NOW)

    assert (done.outcome, done.exit_code) == ("skipped", 0)
    assert "another job is changing the models" in done.paragraph


def test_nothing_is_promoted_that_mlflow_does_not_know(
    trained: SmallInstallation, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    trained.variables["MLFLOW_TRACKING_URI"] = "http://127.0.0.1:9"
    matrix, is_fraud = made_up(1000, seed=2)
    trained.score(matrix, age_days=35, truths=is_fraud)
    is_unchanged = unchanged(trained)

    done = retrain(trained.settings, force=True, now=NOW)

    assert (done.outcome, done.exit_code) == ("failed", 1)
    assert "Nothing was promoted, because MLflow could not record it." in done.paragraph
    assert is_unchanged()


def break_features(installation: SmallInstallation) -> None:
    (installation.folder / "features.json").write_text('{"features": []}')


def change_features(installation: SmallInstallation) -> None:
    (installation.folder / "features.json").write_text('{"features": [{"name": "age"}]}')


def remove_store(installation: SmallInstallation) -> None:
    installation.variables["LATEST_DB"] = installation.variables["TRAIN_DB"] = str(installation.folder / "none.db")


def damage_store(installation: SmallInstallation) -> None:
    installation.settings.latest_db.write_bytes(b"no database" * 1000)


def lose_postgresql(installation: SmallInstallation) -> None:
    installation.variables["DATABASE_URL"] = "postgresql://nobody@127.0.0.1:9/none?connect_timeout=1"


def damage_model(installation: SmallInstallation) -> None:
    path = installation.models_dir / CURRENT / ONNX
    path.write_bytes(path.read_bytes()[:-1])


def lose_the_pickle(installation: SmallInstallation) -> None:
    (installation.models_dir / CURRENT / PICKLE).unlink()


def leave_a_bare_pickle(installation: SmallInstallation) -> None:
    (installation.models_dir / CURRENT).unlink()
    (installation.models_dir / PICKLE).unlink()
    (installation.models_dir / PICKLE).write_bytes(b"a pickle of the classic set-up")


@pytest.mark.parametrize(
    ("damage", "exit_code", "message"),
    [
        (break_features, 2, "expected 1 to 500 features"),
        (change_features, 3, "belongs to another feature list"),
        (remove_store, 3, "no database there"),
        (damage_store, 3, "is damaged or not an SQLite database"),
        (lose_postgresql, 1, "PostgreSQL: cannot be reached"),
        (damage_model, 3, "model.onnx is not the file that the manifest describes"),
        (lose_the_pickle, 3, "no model there"),
        (leave_a_bare_pickle, 3, "fraudctl models adopt"),
    ],
)
def test_what_cannot_be_used_fails_with_its_exit_code_and_changes_nothing(
    trained: SmallInstallation, damage: Callable[[SmallInstallation], None], exit_code: int, message: str
) -> None:
    damage(trained)
    is_unchanged = unchanged(trained)

    done = retrain(trained.settings, force=True, now=NOW)

    assert (done.outcome, done.exit_code) == ("failed", exit_code)
    assert message in done.paragraph
    assert is_unchanged()


@pytest.mark.parametrize("spoil", [spoil for spoil, _ in BAD_STATES.values()], ids=BAD_STATES.keys())
def test_a_champion_in_a_bad_state_ends_the_run_with_a_sentence(
    trained: SmallInstallation, caplog: pytest.LogCaptureFixture, spoil: Spoil
) -> None:
    version = current_version(trained.models_dir)
    assert version is not None
    spoil(trained.models_dir / version)

    done = retrain(trained.settings, force=True, now=NOW)

    assert (done.outcome, done.exit_code) in {("failed", 3), ("restored", 4)}
    assert all(record.exc_info is None for record in caplog.records)
    assert all(text.isprintable() for text in (done.paragraph, *caplog.messages))


@pytest.mark.parametrize(
    "make", [Path.mkdir, os.mkfifo, leading("/dev/zero"), in_a_loop], ids=["a folder", "a pipe", "a device", "a loop"]
)
def test_a_journal_that_is_no_file_ends_the_run_with_a_sentence(
    trained: SmallInstallation, caplog: pytest.LogCaptureFixture, make: Callable[[Path], object]
) -> None:
    path = trained.models_dir / JOURNAL
    path.unlink()
    make(path)

    done = retrain(trained.settings, force=True, now=NOW)

    assert (done.outcome, done.exit_code) == ("failed", 3)
    assert "promotions.jsonl: expected a file, got a" in done.paragraph
    assert all(record.exc_info is None for record in caplog.records)


def test_a_check_without_a_verdict_is_no_judgement_and_the_next_run_judges(
    trained: SmallInstallation,
    pushed: tuple[str, list[str]],
    client_of_mlflow: MlflowClient,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    trained.variables["PUSHGATEWAY_URL"] = pushed[0]
    matrix, is_fraud = made_up(1000, seed=2)
    trained.score(matrix, age_days=35, truths=is_fraud)
    is_unchanged = unchanged(trained)
    runs = len(client_of_mlflow.search_runs([EXPERIMENT_ID]))

    with monkeypatch.context() as hiccup:
        hiccup.setattr(challenger, "loads_in_fresh_process", usable.loads_in_fresh_process)
        hiccup.setattr(usable, "CHECK_SECONDS", 0.01)
        failed = retrain(trained.settings, now=NOW + timedelta(days=31))
    left_unchanged, runs_after = is_unchanged(), len(client_of_mlflow.search_runs([EXPERIMENT_ID]))
    again = retrain(trained.settings, now=NOW + timedelta(days=31))

    assert (failed.outcome, failed.exit_code, left_unchanged, runs_after) == ("failed", 1, True, runs)
    assert "gave no verdict: no answer within 0.01 seconds. The next run" in failed.paragraph
    assert 'fraud_retrain_outcome{outcome="failed"} 1.0' in pushed[1][0]
    assert "fraud_job_succeeded 0.0" in pushed[1][0]
    assert again.outcome == "promoted"


def test_an_unforeseen_error_fails_with_1_and_its_traceback_is_logged(
    trained: SmallInstallation, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def disk_full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("jobs.retrain.read_history", disk_full)

    done = retrain(trained.settings, force=True, now=NOW)

    assert (done.outcome, done.exit_code) == ("failed", 1)
    assert "OSError" in done.paragraph
    assert "No space left on device" in caplog.text


def test_a_damaged_old_version_does_not_hide_that_the_new_one_serves(
    trained: SmallInstallation, make_version: Callable[..., str], caplog: pytest.LogCaptureFixture
) -> None:
    oldest, *_ = [make_version(trained.models_dir, of=FEATURES, seed=seed) for seed in range(6)]
    BAD_STATES["a named pipe as manifest"][0](trained.models_dir / oldest)
    (trained.models_dir / ".partial-of-a-killed-job").symlink_to(trained.models_dir / oldest)
    matrix, is_fraud = made_up(1000, seed=2)
    trained.score(matrix, age_days=35, truths=is_fraud)

    done = retrain(trained.settings, force=True, now=NOW)

    assert done.outcome == "promoted"
    assert (
        f"a damaged version stays: {oldest}: manifest.json cannot be read (expected a file, got a named pipe)"
        in caplog.text
    )
    assert (trained.models_dir / oldest).exists()
    assert not (trained.models_dir / ".partial-of-a-killed-job").is_symlink()


# -- what the outside sees -------------------------------------------------------------------------------------------


@pytest.fixture
def pushed(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[str, list[str]]]:
    """A Pushgateway: its address, and the bodies that it received."""
    monkeypatch.setattr(pushgateway, "TIMEOUT_SECONDS", PATIENCE_SECONDS)  # 2 seconds may be too few on a busy machine
    bodies: list[str] = []

    class Gateway(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            bodies.append(self.rfile.read(int(self.headers["Content-Length"])).decode())
            self.send_response(200)
            self.end_headers()

        do_PUT = do_POST  # noqa: N815  http.server calls methods by these names

        def log_request(self, *_: object) -> None:
            return

    server = ThreadingHTTPServer(("127.0.0.1", 0), Gateway)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}", bodies
    server.shutdown()
    server.server_close()


def test_outcome_and_figures_are_pushed(installation: SmallInstallation, pushed: tuple[str, list[str]]) -> None:
    installation.variables["PUSHGATEWAY_URL"] = pushed[0]
    installation.import_labelled(*made_up(1000, seed=1), age_days=100)

    retrain(installation.settings, now=NOW)

    (body,) = pushed[1]
    assert 'fraud_retrain_outcome{outcome="promoted"} 1.0' in body
    assert 'model_accuracy{label_source="true"} 0.' in body
    assert 'fraud_model_label_ratio{source="import"} 1.0' in body
    assert 'fraud_label_coverage_ratio{age="over_90_days"} 1.0' in body


def test_refusals_in_a_row_are_pushed_also_by_runs_that_judge_nothing(
    trained: SmallInstallation, pushed: tuple[str, list[str]]
) -> None:
    trained.variables["PUSHGATEWAY_URL"] = pushed[0]
    matrix, is_fraud = made_up(1000, seed=2)
    trained.score(matrix, age_days=35, truths=poisoned(is_fraud))

    outcomes = [retrain(trained.settings, force=force, now=NOW).outcome for force in (True, True, False)]

    assert outcomes == ["rejected", "rejected", "skipped"]
    counted = [line for body in pushed[1] for line in body.splitlines() if line.startswith("fraud_retrain_rejections")]
    assert counted == [f"fraud_retrain_rejections_in_a_row {count}.0" for count in (1, 2, 2)]


def test_a_journal_that_cannot_be_read_does_not_hide_the_outcome(
    trained: SmallInstallation, pushed: tuple[str, list[str]]
) -> None:
    trained.variables["PUSHGATEWAY_URL"] = pushed[0]
    journal = trained.models_dir / JOURNAL
    journal.unlink()
    journal.mkdir()

    done = retrain(trained.settings, now=NOW)

    (body,) = pushed[1]
    assert done.outcome == "failed"
    assert 'fraud_retrain_outcome{outcome="failed"} 1.0' in body
    assert "fraud_retrain_rejections_in_a_row" not in body


def test_a_failure_is_pushed_too(trained: SmallInstallation, pushed: tuple[str, list[str]]) -> None:
    trained.variables["PUSHGATEWAY_URL"] = pushed[0]
    break_features(trained)

    retrain(trained.settings, now=NOW)

    (body,) = pushed[1]
    assert 'fraud_retrain_outcome{outcome="failed"} 1.0' in body
    assert "fraud_job_succeeded 0.0" in body


def test_the_command_reads_the_environment(trained: SmallInstallation, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in trained.environment.items():
        monkeypatch.setenv(name, value)

    assert main([]) == 0
    assert main(["--force"]) == 0
    assert trained.events() == ["promoted", "verified"]
    monkeypatch.setenv("GATE_MARGIN", "much")
    assert main([]) == 2


# -- a promotion that does not come to its end -----------------------------------------------------------------------


def test_a_promotion_that_was_never_verified_is_finished_first(trained: SmallInstallation) -> None:
    entries = (trained.models_dir / JOURNAL).read_text().splitlines()
    (trained.models_dir / JOURNAL).write_text(entries[0] + "\n")
    assert trained.events() == ["promoted"]

    retrain(trained.settings, now=NOW)

    assert trained.events() == ["promoted", "verified"]


def test_a_model_that_the_api_does_not_load_is_rolled_back(
    trained: SmallInstallation,
    api_that_stays: Callable[[str], ClientSettings],
    client_of_mlflow: MlflowClient,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(running_api, "SERVED_WITHIN_SECONDS", 0.0)
    champion = trained.served()
    api = RunningApi(api_that_stays(champion.digest))
    matrix, is_fraud = made_up(1000, seed=2)
    trained.score(matrix, age_days=35, truths=is_fraud)

    done = retrain(trained.settings, force=True, now=NOW, find_api=lambda: api)

    assert (done.outcome, done.exit_code) == ("restored", 4)
    assert "still serves" in done.paragraph
    assert trained.served().digest == champion.digest
    assert trained.events() == ["promoted", "verified", "promoted", "restored", "verified"]
    assert tracking_of(trained.here).champion() == champion.digest
    assert description(client_of_mlflow) == done.paragraph


def test_a_model_that_was_taken_back_is_tried_again_by_the_next_run(
    trained: SmallInstallation,
    api_that_stays: Callable[[str], ClientSettings],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(running_api, "SERVED_WITHIN_SECONDS", 0.0)
    away = RunningApi(api_that_stays("503"))
    matrix, is_fraud = made_up(1000, seed=2)
    trained.score(matrix, age_days=35, truths=is_fraud)
    later = NOW + timedelta(days=31)

    taken_back = retrain(trained.settings, now=later, find_api=lambda: away)
    again = retrain(trained.settings, now=later + timedelta(days=1))

    assert (taken_back.outcome, again.outcome) == ("restored", "promoted")


@pytest.mark.parametrize(
    ("refusal", "exit_code", "message"),
    [
        ((403, "forbidden"), 2, "give the service account a Role"),
        ((503, "etcd is away"), 1, "no usable answer about Deployment"),
    ],
)
def test_what_kubernetes_would_refuse_is_found_before_the_training(
    installation: SmallInstallation,
    cluster: Cluster,
    pods: Pods,
    monkeypatch: pytest.MonkeyPatch,
    *,
    refusal: tuple[int, str],
    exit_code: int,
    message: str,
) -> None:
    monkeypatch.setattr(running_api, "KUBERNETES_ANSWERS_WITHIN_SECONDS", 0.1)
    monkeypatch.setattr(retrain_module, "train", pytest.fail)
    installation.import_labelled(*made_up(1000, seed=1), age_days=100)
    cluster.refused = {"PATCH": refusal}
    api = running_api.running_api(installation.settings, installation.variables)

    done = retrain(installation.settings, now=NOW, find_api=lambda: api)

    assert (done.outcome, done.exit_code) == ("failed", exit_code)
    assert message in done.paragraph
    assert current_version(installation.models_dir) is None


def test_what_a_promotion_would_need_is_asked_for_only_if_a_model_can_be_trained(
    installation: SmallInstallation,
) -> None:
    named = {"API_URL": "http://127.0.0.1:9"}

    def find_api() -> RunningApi | None:
        return running_api.running_api(installation.settings, named)

    held = retrain(installation.settings, force=True, now=NOW, find_api=find_api)
    installation.import_labelled(*made_up(1000, seed=1), age_days=100)
    without_a_token = retrain(installation.settings, force=True, now=NOW, find_api=find_api)

    assert (held.outcome, held.exit_code) == ("held_derived", 0)
    assert "No transaction is stored yet." in held.paragraph
    assert "There is still no model; `fraudctl serve --first-time` creates a first one." in held.paragraph
    assert (without_a_token.outcome, without_a_token.exit_code) == ("failed", 2)
    assert "(`fraudctl serve --first-time` creates a token and a first model)" in without_a_token.paragraph


@pytest.mark.parametrize("missing", ["API_URL", "API_TOKEN", "KUBERNETES_SERVICE_HOST"])
def test_a_deployment_without_what_it_takes_to_restart_it_is_a_wrong_setting(
    installation: SmallInstallation,
    pods: Pods,
    monkeypatch: pytest.MonkeyPatch,
    pushed: tuple[str, list[str]],
    missing: str,
) -> None:
    installation.import_labelled(*made_up(1000, seed=1), age_days=100)
    installation.variables["PUSHGATEWAY_URL"] = pushed[0]
    for name, value in installation.environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv(missing)

    assert main(["--force"]) == 2
    (body,) = pushed[1]
    assert "fraud_job_succeeded 0.0" in body
    assert 'fraud_retrain_outcome{outcome="failed"} 1.0' in body
