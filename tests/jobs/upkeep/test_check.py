"""The check finds every problem of an installation in one run."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from fraud_detection.features import FeatureList
from fraud_detection.model.files import JOURNAL, ONNX
from fraud_detection.model.read import Model
from fraud_detection.settings import JobSettings
from fraud_detection.store import Store
from fraud_detection.vanished import Mark
from jobs.installation import Installation
from jobs.upkeep.check import check


def test_an_intact_installation_has_no_problems(store: Store, model: Model, job_settings: JobSettings) -> None:
    where = "PostgreSQL" if job_settings.database_url else str(job_settings.latest_db)

    findings = check(Installation(job_settings, store.features))

    assert [(finding.what, finding.problems) for finding in findings] == [
        (f"{where} (0 rows)", []),
        (f"model {model.version}", []),
    ]


def test_history_that_was_never_imported_is_no_problem(
    sqlite_store: Store, model: Model, sqlite_environment: dict[str, str], tmp_path: Path
) -> None:
    settings = JobSettings.from_env({**sqlite_environment, "TRAIN_DB": str(tmp_path / "history.db")})

    assert [finding.problems for finding in check(Installation(settings, sqlite_store.features))] == [[], [], []]


def test_every_problem_is_found_in_one_run(
    sqlite_store: Store, model: Model, sqlite_environment: dict[str, str]
) -> None:
    settings = JobSettings.from_env(sqlite_environment)
    sqlite_store.close()
    settings.latest_db.write_bytes(b"damaged" * 1000)
    (settings.models_dir / model.version / ONNX).write_bytes(b"damaged")

    store, served = check(Installation(settings, sqlite_store.features))

    assert "is damaged or not an SQLite database" in store.problems[0]
    assert "model.onnx is not the file that the manifest describes" in served.problems[0]


def test_a_store_that_vanished_while_the_api_served_is_found(
    sqlite_store: Store, model: Model, sqlite_environment: dict[str, str]
) -> None:
    settings = JobSettings.from_env(sqlite_environment)
    Mark(settings.latest_db, settings.models_dir).leave("requests.db: was replaced")

    start, store, _ = check(Installation(settings, sqlite_store.features))

    assert start.problems[0].startswith("requests.db: was replaced (")
    assert "`fraudctl db restore`" in start.problems[0]
    assert store.problems == []


def test_a_store_that_vanished_and_is_missing_is_restored_first(
    sqlite_store: Store, model: Model, sqlite_environment: dict[str, str]
) -> None:
    """Every sentence that names `bootstrap`, which would accept an empty store, names `db restore` before it."""
    settings = JobSettings.from_env(sqlite_environment)
    sqlite_store.close()
    settings.latest_db.unlink()
    here = Installation(settings, sqlite_store.features)

    removed = check(here)[0]
    Mark(settings.latest_db, settings.models_dir).leave("requests.db: was removed")
    start, store, _ = check(here)

    assert removed.problems[0].startswith("a database was here and is gone; restore it (`fraudctl db restore`)")
    assert start.what == "start of the API"
    assert store.problems[0].startswith("no database there; restore a backup (`fraudctl db restore`), or accept")


@pytest.mark.parametrize("make", [os.mkfifo, Path.mkdir])
def test_what_would_stop_a_backup_or_a_promotion_is_found(
    sqlite_store: Store, model: Model, sqlite_environment: dict[str, str], make: Callable[[Path], object]
) -> None:
    settings = JobSettings.from_env(sqlite_environment)
    (settings.models_dir / JOURNAL).unlink(missing_ok=True)
    make(settings.models_dir / JOURNAL)
    (settings.models_dir / ".lock").unlink(missing_ok=True)
    (settings.models_dir / ".lock").mkdir()

    journal, lock = check(Installation(settings, sqlite_store.features))[-1].problems

    assert "promotions.jsonl: expected a file, got a " in journal
    assert lock.endswith(".lock: expected a file, got a folder; move it away, the next job makes the file")


def test_a_trigger_of_others_is_found(sqlite_store: Store, model: Model, sqlite_environment: dict[str, str]) -> None:
    settings = JobSettings.from_env(sqlite_environment)
    with sqlite_store.begin() as connection:
        connection.exec_driver_sql("CREATE TRIGGER thief AFTER INSERT ON requests BEGIN DELETE FROM labels; END")

    found = check(Installation(settings, sqlite_store.features))[0]

    assert 'trigger "thief" on "requests"' in found.problems[0]


def test_no_store_at_all_is_a_problem(sqlite_environment: dict[str, str], model: Model, features: FeatureList) -> None:
    settings = JobSettings.from_env(sqlite_environment)

    finding = check(Installation(settings, features))[0]

    assert finding.what == str(settings.latest_db)
    assert finding.problems == ["no database there; create one with `fraudctl bootstrap`"]
