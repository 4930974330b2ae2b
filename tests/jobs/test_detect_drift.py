"""The drift job compares the newest rows of the current model, and writes every outcome."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
import sqlalchemy as sa

from fraud_detection.clock import timestamp
from fraud_detection.features import Feature, FeatureList, Matrix
from fraud_detection.model.files import CURRENT, JOURNAL, MANIFEST, PICKLE, REFERENCE
from fraud_detection.model.manifest import AmountScaling, Holdout, holdout_of
from fraud_detection.model.read import Model, load
from fraud_detection.model.write import promote, replace_file
from fraud_detection.settings import JobSettings
from fraud_detection.store import Store, decisions, transfer
from fraud_detection.store.decisions import ScoredRequest
from fraud_detection.store.history import History
from fraud_detection.store.transfer import ImportedRows
from jobs.detect_drift import detect_drift, tell
from jobs.drift.reference import reference_bytes
from jobs.drift.report import DriftReport
from jobs.installation import Installation
from jobs.training import due
from jobs.training.read_history import read_history
from jobs.training.selection import select

NOW = datetime(2030, 3, 1, 12, tzinfo=UTC)
ANOTHER = "0" * 64  # digest of another model


def rows(seed: int, count: int, shift: float = 0.0) -> Matrix:
    """Make up transactions like those of the reference, except for V1 if there is a shift."""
    matrix = np.random.default_rng(seed).normal(size=(count, 29)).clip(-3, 3)
    matrix[:, 0] += shift
    return matrix


@dataclass
class WatchedInstallation:
    """A store and a folder of models, with the steps that the tests share."""

    store: Store
    models_dir: Path
    environment: dict[str, str]
    make_version: Callable[..., str]

    def settings(self, **variables: str) -> JobSettings:
        return JobSettings.from_env({**self.environment, **variables})

    def version(self, reference: Matrix, **manifest_fields: object) -> str:
        """Make a version that has a reference, as trained ones have."""
        version = self.make_version(self.models_dir, **manifest_fields)
        count = len(reference)
        texts = np.array([f"r{number}" for number in range(count)], dtype=np.str_)
        sample = History(
            request_id=texts, row_index=np.zeros(count, np.int64), ts=texts, matrix=reference,
            fraud_probability=np.zeros(count), is_flagged=np.zeros(count, np.bool_), model_digest=texts,
            is_fraud=np.zeros(count, np.int8), label_source=texts, schema_version=np.full(count, 5),
        )  # fmt: skip
        content = reference_bytes(sample, self.store.features, seed=1)
        replace_file(self.models_dir, version, REFERENCE, content)
        return version

    def serve(self, **manifest_fields: object) -> Model:
        """Promote a model with a reference of 3,000 rows."""
        version = self.version(rows(0, 3000), **{"seed": 7, "holdout": None, **manifest_fields})
        promote(self.models_dir, version, actor="test", reason="has a reference")
        return load(self.models_dir / PICKLE, self.store.features)

    def verify(self, served: Model, *, hours_ago: float) -> None:
        """Write into the journal that the model was seen to serve."""
        moment = NOW - timedelta(hours=hours_ago)
        line = {"at": moment.isoformat(), "event": "verified", "version": served.version, "digest": served.digest}
        with (self.models_dir / JOURNAL).open("a") as journal:
            journal.write(json.dumps(line) + "\n")

    def remember(
        self, served: Model, matrix: Matrix, *, hours_ago: float, digest: str = "", threshold: float = 0.4
    ) -> None:
        """Store what the model scored, as the API does, with 100 rows per request and a second between requests."""
        requests = []
        for number, start in enumerate(range(0, len(matrix), 100)):
            part = matrix[start : start + 100]
            requests.append(
                ScoredRequest(
                    request_id=f"{hours_ago}-{number}",
                    ts=timestamp(NOW - timedelta(hours=hours_ago) + timedelta(seconds=number)),
                    matrix=part,
                    fraud_probability=served.score(part).tolist(),
                    threshold=threshold,
                    model_version=served.version,
                    model_digest=digest or served.digest,
                    transaction_ids=[None] * len(part),
                )
            )
        with self.store.begin() as connection:
            decisions.append(self.store, connection, requests)

    def judge(self, *, days_ago: float, labels: str = "some") -> None:
        """Write into the journal that a retraining judged a model."""
        line = {"at": (NOW - timedelta(days=days_ago)).isoformat(), "event": "judged", "verdict": {"labels": labels}}
        with (self.models_dir / JOURNAL).open("a") as journal:
            journal.write(json.dumps(line) + "\n")

    def label(self) -> None:
        """Import 600 labelled transactions from before the two weeks that drift looks at."""
        moments = [timestamp(NOW - timedelta(days=60) + timedelta(hours=number)) for number in range(600)]
        truths = [number % 4 == 0 for number in range(600)]
        history = ImportedRows("history", moments, rows(5, 600), truths, [None] * 600)
        with self.store.begin() as connection:
            transfer.import_history(self.store, connection, [history], reporter="test", received_at=timestamp(NOW))

    def told(self, **variables: str) -> str:
        """Return the paragraph of a run."""
        settings = self.settings(**variables)
        return tell(detect_drift(settings, NOW), Installation.of(settings), NOW)

    def detect(self, **variables: str) -> DriftReport:
        return detect_drift(self.settings(**variables), NOW)


@pytest.fixture
def installation(
    sqlite_store: Store, models_dir: Path, sqlite_environment: dict[str, str], make_version: Callable[..., str]
) -> WatchedInstallation:
    return WatchedInstallation(sqlite_store, models_dir, sqlite_environment, make_version)


@pytest.fixture
def installation_on_each(
    store: Store, models_dir: Path, environment: dict[str, str], make_version: Callable[..., str]
) -> WatchedInstallation:
    """The same on each database in turn."""
    return WatchedInstallation(store, models_dir, environment, make_version)


def written(installation: WatchedInstallation) -> dict[str, object]:
    document = json.loads(installation.settings().drift_result.read_text())
    assert isinstance(document, dict)
    return document


def test_writes_what_it_found_and_the_same_again(installation_on_each: WatchedInstallation) -> None:
    installation = installation_on_each
    served = installation.serve()
    installation.remember(served, rows(1, 700, shift=1), hours_ago=20)
    installation.remember(served, rows(2, 700, shift=1), hours_ago=10)
    path = installation.settings().drift_result

    report = installation.detect()
    first = path.read_bytes()
    installation.detect()

    assert (report.state, report.reasons, report.retrain) == ("drift", ("features",), True)
    assert report.warned == ("V1",)
    assert path.read_bytes() == first
    assert written(installation)["drift"] is True
    assert written(installation)["provenance"] == {
        "model_version": served.version, "reference_digest": served.digest, "served_digest": served.digest,
        "seed": None,
    }  # fmt: skip


@pytest.mark.parametrize(("stored_by", "state"), [(4, "ok"), (5, "drift")])
def test_rows_of_before_are_judged_by_the_wide_bounds_of_before(
    installation: WatchedInstallation, stored_by: int, state: str
) -> None:
    unscaled = rows(1, 1200)
    unscaled[::100, 28] = 5000.0
    installation.remember(installation.serve(), unscaled, hours_ago=20)
    with installation.store.begin() as connection:
        requests = installation.store.tables.requests
        connection.execute(sa.update(requests).values(schema_version=stored_by))

    report = installation.detect()

    assert (report.state, "data_quality" in report.reasons) == (state, state == "drift"), report.explanation


def test_windows_are_the_newest_rows_cut_in_two_by_time(installation: WatchedInstallation) -> None:
    served = installation.serve()
    installation.remember(served, rows(2, 500, shift=3), hours_ago=40)
    installation.remember(served, rows(3, 600), hours_ago=20)
    installation.remember(served, rows(4, 600, shift=3), hours_ago=10)

    report = installation.detect(DRIFT_WINDOW_ROWS="600")

    assert report.older is not None
    assert report.newer is not None
    assert (report.older.rows, report.newer.rows) == (600, 600)
    assert report.older.start == timestamp(NOW - timedelta(hours=20))
    assert report.newer.start == timestamp(NOW - timedelta(hours=10))
    assert report.state == "warn"


def test_rows_that_a_wrong_clock_dated_ahead_are_in_no_window(installation: WatchedInstallation) -> None:
    served = installation.serve(holdout=holdout_of(np.full(1000, 0.5), 0.4))
    installation.remember(served, rows(1, 1000), hours_ago=2)
    before = installation.detect()
    installation.remember(served, rows(2, 1000, shift=5.0), hours_ago=-24 * 365)

    after = installation.detect()

    assert after == before


def test_an_odd_row_is_left_out_so_that_both_halves_are_equal(installation: WatchedInstallation) -> None:
    installation.remember(installation.serve(), rows(1, 1001), hours_ago=20)

    report = installation.detect()

    assert report.older is not None
    assert report.newer is not None
    assert (report.older.rows, report.newer.rows) == (500, 500)


@pytest.mark.parametrize("days_ago", [None, 15], ids=["none", "two weeks old"])
def test_without_rows_of_the_last_days_there_is_no_evidence(
    installation: WatchedInstallation, days_ago: int | None
) -> None:
    served = installation.serve()
    if days_ago:
        installation.remember(served, rows(1, 1200, shift=3), hours_ago=24 * days_ago)

    report = installation.detect()

    assert (report.state, report.retrain) == ("insufficient_data", False)
    assert written(installation)["drift"] is False
    assert written(installation)["newer"] == {"rows": 0, "scored_rows": 0, "start": None, "end": None}


def test_the_alert_rate_counts_every_decision_of_the_model_in_the_period(installation: WatchedInstallation) -> None:
    served = installation.serve(holdout=Holdout(1_000_000, 10, 0.4, [125_000] * 8))
    installation.remember(served, rows(1, 1000), hours_ago=13 * 24)  # beyond the windows, within the period
    installation.remember(served, rows(2, 1000), hours_ago=10, digest=ANOTHER)
    installation.remember(served, rows(3, 1100), hours_ago=5)

    report = installation.detect(DRIFT_WINDOW_ROWS="550")

    assert report.alert_rate is not None
    flagged = sum(int((served.score(rows(seed, count)) >= 0.4).sum()) for seed, count in [(1, 1000), (3, 1100)])
    assert (report.alert_rate.rows, report.alert_rate.alerts) == (2100, flagged)
    assert "alert_rate" in report.reasons


def test_only_scores_of_the_current_model_are_compared(installation: WatchedInstallation) -> None:
    served = installation.serve(holdout=holdout_of(np.full(1000, 0.5), 0.4))
    installation.remember(served, rows(1, 600), hours_ago=10, digest=ANOTHER)
    installation.remember(served, rows(2, 600), hours_ago=5)

    report = installation.detect()

    assert report.older is not None
    assert report.newer is not None
    assert (report.older.scored_rows, report.newer.scored_rows) == (0, 600)
    assert report.score_psi_older is None
    assert report.score_psi_newer is not None


@pytest.mark.parametrize(("now", "stored"), [("0.3", 0.4), ("0.4", 0.3)])
def test_a_threshold_that_differs_from_the_manifest_is_said_and_no_alarm(
    installation: WatchedInstallation, now: str, stored: float
) -> None:
    served = installation.serve(holdout=Holdout(1_000_000, 10, 0.4, [0] * 8))
    installation.remember(served, rows(1, 1200), hours_ago=10, threshold=stored)

    report = installation.detect(FRAUD_THRESHOLD=now)

    assert report.state == "ok"
    assert any("FRAUD_THRESHOLD has changed" in note for note in report.notes)


def test_a_model_trained_on_synthetic_data_is_a_warning_and_no_first_reference(
    installation: WatchedInstallation,
) -> None:
    served = installation.serve(trained_on="synthetic")
    installation.remember(served, rows(1, 1200, shift=2), hours_ago=10)

    report = installation.detect()

    assert (report.state, report.reasons[0], report.retrain) == ("warn", "baseline_reference", False)
    assert report.d_since_first is None
    assert (
        " No retraining is due: no model that learned from real transactions serves yet, but nothing can be "
        "trained yet. No true label counts yet, among 1,200 stored transactions. "
    ) in installation.told()


@pytest.mark.parametrize(
    ("days_ago", "next_step"),
    [
        (8, "The next retraining is due: drift was reported."),
        (
            6,
            "No retraining is due: drift was reported, but the cooldown after the last judgement "
            "(RETRAIN_COOLDOWN_DAYS) ends at 2030-03-02 12:00 UTC, and the regular retraining is due on 2030-03-25.",
        ),
    ],
)
def test_the_paragraph_says_of_drift_what_the_next_retraining_does(
    installation: WatchedInstallation, days_ago: float, next_step: str
) -> None:
    served = installation.serve()
    installation.remember(served, rows(1, 1400, shift=1), hours_ago=10)
    installation.judge(days_ago=days_ago)
    installation.label()

    assert installation.told().endswith(f" {next_step}")


def test_drift_makes_no_retraining_due_while_no_label_is_new(installation: WatchedInstallation) -> None:
    installation.remember(installation.serve(), rows(1, 1400, shift=1), hours_ago=10)
    installation.label()
    here = Installation.of(installation.settings())
    selection = select(read_history(here)[0], here.served_model().manifest, here.settings, NOW)
    installation.judge(days_ago=8, labels=selection.fingerprint())

    assert installation.told().endswith(
        " No retraining is due: drift was reported, but nothing can be trained yet. No label is new since the last "
        "judgement on 2030-02-21. Label newer transactions, or import history."
    )


def test_the_history_is_read_once_and_without_features_to_say_what_is_next(
    installation: WatchedInstallation, monkeypatch: pytest.MonkeyPatch
) -> None:
    reads: list[tuple[int, int]] = []

    def read(here: Installation, **options: bool) -> tuple[History, AmountScaling | None]:
        history, scaling = read_history(here, **options)
        reads.append(history.matrix.shape)
        return history, scaling

    monkeypatch.setattr(due, "read_history", read)
    installation.remember(installation.serve(), rows(1, 1400), hours_ago=10)
    installation.judge(days_ago=31)
    installation.label()

    assert installation.told().endswith("The next retraining is due: the last judgement is 31 days old.")
    assert reads == [(2000, 0)]


def test_a_calm_report_does_not_hide_that_a_retraining_is_due(installation: WatchedInstallation) -> None:
    installation.remember(installation.serve(), rows(1, 1400), hours_ago=10)
    installation.judge(days_ago=31)
    installation.label()

    assert installation.told() == (
        "Transactions look like the reference of the current model. No action is needed. "
        "The next retraining is due: the last judgement is 31 days old."
    )


def test_the_oldest_reference_of_real_transactions_is_the_first(installation: WatchedInstallation) -> None:
    installation.version(rows(8, 1000, shift=9), seed=1, trained_on="synthetic")
    collected = installation.version(rows(8, 1000, shift=9), seed=2)
    (installation.models_dir / collected / REFERENCE).unlink()
    installation.version(rows(9, 1000, shift=2), seed=3)
    installation.remember(installation.serve(), rows(1, 1200), hours_ago=10)

    report = installation.detect()

    assert report.d_since_first == pytest.approx(0.68, abs=0.05)
    assert report.d_max is not None
    assert report.d_max < 0.1


@pytest.mark.parametrize(
    ("digest", "hours_after", "state"),
    [(ANOTHER, 1, "error"), ("", 1, "ok"), (ANOTHER, 0, "ok")],
    ids=["another model", "this model", "another model, while this one was taken up"],
)
def test_what_does_not_serve_is_an_error(
    installation: WatchedInstallation, digest: str, hours_after: float, state: str
) -> None:
    served = installation.serve()
    installation.verify(served, hours_ago=10)
    installation.remember(served, rows(1, 1200), hours_ago=20)
    installation.remember(served, rows(2, 300), hours_ago=10 - hours_after, digest=digest)

    report = installation.detect()

    assert report.state == state
    assert report.provenance is not None
    assert report.provenance.served_digest == digest or served.digest
    assert ("restart the API" in " ".join(report.explanation)) == (state == "error")


def test_a_fault_that_was_repaired_is_over(installation: WatchedInstallation) -> None:
    served = installation.serve()
    installation.verify(served, hours_ago=10)
    installation.remember(served, rows(1, 1000), hours_ago=8, digest=ANOTHER)
    installation.remember(served, rows(2, 200), hours_ago=5)

    assert installation.detect().state == "ok"


def test_a_promotion_that_was_not_verified_yet_expects_nothing_of_the_rows(installation: WatchedInstallation) -> None:
    served = installation.serve()
    installation.verify(served, hours_ago=30)
    for version in (installation.version(rows(0, 3000), seed=8), served.version):
        promote(installation.models_dir, version, actor="test", reason="there and back")
    installation.remember(served, rows(1, 1200), hours_ago=5, digest=ANOTHER)

    assert installation.detect().state == "ok"


def _remove_model(installation: WatchedInstallation) -> None:
    installation.settings().model_path.unlink()


def _break_manifest(installation: WatchedInstallation) -> None:
    (installation.models_dir / CURRENT / MANIFEST).write_text("{")


def _break_reference(installation: WatchedInstallation) -> None:
    (installation.models_dir / CURRENT / REFERENCE).write_bytes(b"no database")


def _empty_reference(installation: WatchedInstallation) -> None:
    version = installation.version(rows(0, 0), seed=9)
    promote(installation.models_dir, version, actor="test", reason="empty")


def _remove_reference(installation: WatchedInstallation) -> None:
    version = installation.make_version(installation.models_dir, seed=9)
    promote(installation.models_dir, version, actor="test", reason="never had one")


def _remove_database(installation: WatchedInstallation) -> None:
    installation.settings().latest_db.unlink()


def _break_journal(installation: WatchedInstallation) -> None:
    (installation.models_dir / JOURNAL).unlink()
    (installation.models_dir / JOURNAL).mkdir()


def _break_database(installation: WatchedInstallation) -> None:
    installation.store.close()  # otherwise the WAL still holds every page, and repairs the file
    installation.settings().latest_db.write_bytes(b"no database" * 1000)


def _remove_table(installation: WatchedInstallation) -> None:
    with installation.store.begin() as connection:
        connection.execute(sa.schema.DropTable(installation.store.tables.labels))
        connection.execute(sa.schema.DropTable(installation.store.tables.requests))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (_remove_model, "no model there"),
        (_break_manifest, "manifest.json is not one of ours"),
        (_break_reference, "reference_data.db is not the file that the manifest describes"),
        (_empty_reference, "expected reference rows of 29 features"),
        (_remove_reference, "does not list reference_data.db"),
        (_remove_database, "a database was here and is gone"),
        (_break_database, "requests.db"),
        (_break_journal, "promotions.jsonl: expected a file, got a "),
        (_remove_table, "the database cannot be read (OperationalError)"),
    ],
)
def test_what_cannot_be_read_is_an_error_that_is_written_too(
    installation: WatchedInstallation, damage: Callable[[WatchedInstallation], None], message: str
) -> None:
    installation.remember(installation.serve(), rows(1, 1200), hours_ago=5)
    damage(installation)

    report = installation.detect()

    assert (report.state, report.retrain) == ("error", False)
    assert message in report.explanation[0]
    assert (written(installation)["state"], written(installation)["drift"]) == ("error", False)


def test_a_model_of_another_feature_list_is_an_error(installation: WatchedInstallation, tmp_path: Path) -> None:
    installation.serve()
    other = tmp_path / "features.json"
    other.write_text(json.dumps({"features": [{"name": "amount"}]}))

    report = installation.detect(FEATURES_FILE=str(other))

    assert report.state == "error"
    assert "belongs to another feature list" in report.explanation[0]


def test_a_database_of_another_feature_list_is_an_error(installation: WatchedInstallation, tmp_path: Path) -> None:
    served = installation.serve()
    other = tmp_path / "other.db"
    Store.create_or_migrate(other, FeatureList((Feature("amount"),))).close()

    report = installation.detect(LATEST_DB=str(other))

    assert report.state == "error"
    assert "belongs to another feature list" in report.explanation[0]
    assert report.provenance is not None
    assert report.provenance.reference_digest == served.digest


def test_an_unreachable_postgresql_is_an_error_without_its_password(installation: WatchedInstallation) -> None:
    installation.serve()

    report = installation.detect(DATABASE_URL="postgresql://somebody:open-sesame@127.0.0.1:1/requests")

    assert report.state == "error"
    assert "open-sesame" not in json.dumps(written(installation))


@pytest.mark.parametrize(
    ("variables", "code", "said"),
    [
        ({}, 0, "Drift could not be judged yet."),
        ({"LATEST_DB": "/nowhere/requests.db"}, 3, "no database there"),
        ({"DRIFT_MIN_ROWS": "many"}, 2, "DRIFT_MIN_ROWS"),
        ({"FEATURES_FILE": "/nowhere/features.json"}, 2, "/nowhere/features.json"),
    ],
    ids=["compared", "no database", "no number", "no feature list"],
)
def test_the_job_says_what_happened_and_ends_with_its_code(
    installation: WatchedInstallation, variables: dict[str, str], code: int, said: str
) -> None:
    installation.serve()

    done = subprocess.run(
        [sys.executable, "-m", "jobs.detect_drift"],
        env={**os.environ, **installation.environment, **variables}, capture_output=True, text=True, check=False,
    )  # fmt: skip

    assert done.returncode == code
    assert said in done.stderr
