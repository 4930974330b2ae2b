"""A forgotten transaction is erased from stores, references and files."""

import os
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
import sqlalchemy as sa

from fraud_detection.clock import Clock
from fraud_detection.features import Feature, FeatureList, load_features
from fraud_detection.lock import LockHeld, promoter
from fraud_detection.model.files import REFERENCE
from fraud_detection.model.read import Model, load
from fraud_detection.model.write import replace_file
from fraud_detection.settings import JobSettings
from fraud_detection.store import Store, decisions, history, labels, transfer
from fraud_detection.store.decisions import ScoredRequest
from fraud_detection.store.labels import NewLabel
from fraud_detection.store.transfer import ImportedRows
from jobs import forget as forgetting
from jobs.drift.reference import read_reference, reference_bytes
from jobs.forget import forget, tell
from jobs.installation import Installation
from jobs.upkeep.backup import UNPACKED, scratch_folder

CLOCK = Clock()
NOW = "2026-03-01 00:00:00.000000"
TODAY = datetime(2026, 3, 1, tzinfo=UTC)
SECRET = 0.123456789012345


def append(store: Store, transaction_ids: list[str | None]) -> str:
    ts, request_id = CLOCK.tick()
    rows = len(transaction_ids)
    request = ScoredRequest(
        request_id=request_id,
        ts=ts,
        matrix=np.full((rows, 29), SECRET),
        fraud_probability=[0.5] * rows,
        threshold=0.4,
        model_version="v",
        model_digest="0" * 64,
        transaction_ids=transaction_ids,
        idempotency_key=request_id,
        body_sha256="b",
    )
    with store.begin() as connection:
        decisions.append(store, connection, [request])
        labels.add(store, connection, [NewLabel(True, "analyst", "ann", NOW, request_id, 0)], NOW)
    return request_id


def with_reference(store: Store, models_dir: Path, version: str) -> str:
    """Give a tiny version the whole store as its reference."""
    with store.begin() as connection:
        rows = history.read(store, connection)
    replace_file(models_dir, version, REFERENCE, reference_bytes(rows, store.features, seed=0))
    return version


def test_erases_a_transaction_everywhere_and_leaves_the_others(
    store: Store, model: Model, job_settings: JobSettings, make_version: Callable[..., str]
) -> None:
    append(store, ["gone", "stays", None])
    older = with_reference(store, job_settings.models_dir, model.version)
    append(store, ["gone"])
    newer = with_reference(store, job_settings.models_dir, make_version(job_settings.models_dir, seed=1))

    done = forget("gone", Installation(job_settings, store.features))

    with store.begin() as connection:
        assert decisions.find(store, connection, "gone") == []
        assert len(decisions.find(store, connection, "stays")) == 1
    assert (done.rows, done.labels, done.idempotency_keys) == (2, 2, 2)
    assert done.references == {older: 1, newer: 2}
    assert done.unreadable == []
    for version in (older, newer):
        assert len(read_reference(job_settings.models_dir / version, store.features)) == 2
    assert load(job_settings.model_path, store.features).digest == model.digest


def test_a_row_that_was_scored_without_an_id_is_erased_as_well(
    store: Store, model: Model, job_settings: JobSettings
) -> None:
    request_id = append(store, [None, None])
    other = append(store, [None])
    version = with_reference(store, job_settings.models_dir, model.version)

    one = forget(f"{request_id}:1", Installation(job_settings, store.features))
    with store.begin() as connection:
        left = decisions.rows_of(store, connection, request_id)
    rest = forget(request_id, Installation(job_settings, store.features))

    with store.begin() as connection:
        assert decisions.rows_of(store, connection, request_id) == []
        assert decisions.rows_of(store, connection, other) == [(other, 0)]
    assert left == [(request_id, 0)]
    assert (one.rows, one.labels, one.idempotency_keys, one.references) == (1, 0, 1, {version: 1})
    assert (rest.rows, rest.labels, rest.references) == (1, 1, {version: 1})


def test_a_row_whose_retention_is_over_is_found_in_references_by_its_request_id(
    store: Store, model: Model, job_settings: JobSettings
) -> None:
    here = Installation(job_settings, store.features)
    request_id = append(store, ["gone", "gone", "gone"])
    version = with_reference(store, job_settings.models_dir, model.version)
    with store.begin() as connection:
        transfer.clear(store, connection)

    by_client = forget("gone", here)
    by_row = forget(f"{request_id}:1", here)
    by_request = forget(request_id, here)

    assert (by_client.references, by_row.references, by_request.references) == ({}, {version: 1}, {version: 2})
    assert "as REQUEST_ID:ROW, to delete it there" in tell("gone", by_client, job_settings, now=TODAY, nights=7)
    assert "as REQUEST_ID:ROW" not in tell(request_id, by_request, job_settings, now=TODAY, nights=7)
    assert len(read_reference(job_settings.models_dir / version, store.features)) == 0


def test_nothing_of_it_remains_in_the_files(
    sqlite_store: Store, model: Model, sqlite_environment: dict[str, str]
) -> None:
    settings = JobSettings.from_env(sqlite_environment)
    request_id = append(sqlite_store, ["gone"])
    with_reference(sqlite_store, settings.models_dir, model.version)
    sqlite_store.close()

    forget("gone", Installation(settings, sqlite_store.features))

    files = [path for path in (*settings.latest_db.parent.iterdir(), *settings.models_dir.rglob("*")) if path.is_file()]
    assert settings.latest_db in files
    assert REFERENCE in {path.name for path in files}
    assert not [path for path in files if request_id.encode() in path.read_bytes()]


def test_nothing_of_it_remains_in_a_store_that_was_copied(
    sqlite_store: Store, sqlite_environment: dict[str, str], tmp_path: Path
) -> None:
    name = "the-transaction-to-forget"
    others = [f"other-{number}" for number in range(60)]
    append(sqlite_store, [*others[:3], name, *others[3:]])  # on the page that becomes the root of the others
    copy = tmp_path / "copied" / "requests.db"
    copy.parent.mkdir()
    transfer.copy_to(sqlite_store, copy)
    settings = JobSettings.from_env({**sqlite_environment, "LATEST_DB": str(copy), "TRAIN_DB": str(copy)})
    assert name.encode() in copy.read_bytes()

    assert forget(name, Installation(settings, sqlite_store.features)).rows == 1

    assert [path for path in copy.parent.iterdir() if name.encode() in path.read_bytes()] == []


def test_the_unpacked_backup_of_a_killed_restore_is_deleted(
    sqlite_store: Store, sqlite_environment: dict[str, str]
) -> None:
    here = Installation(JobSettings.from_env(sqlite_environment), sqlite_store.features)
    killed = here.models_dir / f"{UNPACKED}killed"
    killed.mkdir(parents=True)
    (killed / "requests.db").write_text("the transaction")
    with scratch_folder(here.models_dir, UNPACKED) as in_use:
        for folder in (killed, in_use):
            os.utime(folder, (0, time.time() - 120))

        forget("anything", here)

        assert in_use.exists()
    assert not killed.exists()


def test_repeating_it_empties_the_log_that_a_reader_held(
    sqlite_store: Store, sqlite_environment: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(forgetting, "_WAIT_FOR_READERS_MS", 0)
    here = Installation(JobSettings.from_env(sqlite_environment), sqlite_store.features)
    append(sqlite_store, ["the-transaction-to-forget"])
    assert isinstance(sqlite_store.location, Path)
    log = sqlite_store.location.with_name("requests.db-wal")
    reader = Store.open(sqlite_store.location, sqlite_store.features, read_only=True)
    with reader.begin() as connection:
        reader.count_rows(connection)
        assert forget("the-transaction-to-forget", here).still_in_log == [str(sqlite_store.location)]
    reader.close()
    assert b"the-transaction-to-forget" in log.read_bytes()

    assert forget("the-transaction-to-forget", here).still_in_log == []

    assert b"the-transaction-to-forget" not in log.read_bytes()


def test_many_rows_are_erased_in_several_transactions(
    sqlite_store: Store, sqlite_environment: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(forgetting, "_ROWS_AT_ONCE", 2)
    for _ in range(5):
        append(sqlite_store, ["gone"])
    commits: list[sa.Connection] = []
    count = commits.append
    sa.event.listen(sa.Engine, "commit", count)

    done = forget("gone", Installation(JobSettings.from_env(sqlite_environment), sqlite_store.features))

    sa.event.remove(sa.Engine, "commit", count)
    assert done.rows == 5
    assert len(commits) == 5  # one searches, three erase, and one finds nothing more


def test_finds_it_in_imported_history_too(
    sqlite_store: Store, sqlite_environment: dict[str, str], tmp_path: Path
) -> None:
    settings = JobSettings.from_env({**sqlite_environment, "TRAIN_DB": str(tmp_path / "history.db")})
    train_store = Store.create_or_migrate(tmp_path / "history.db", sqlite_store.features)
    with train_store.begin() as connection:
        rows = ImportedRows(CLOCK.tick()[1], [NOW], np.zeros((1, 29)), [False], ["gone"])
        transfer.import_history(train_store, connection, [rows], reporter="old.csv", received_at=NOW)

    done = forget("gone", Installation(settings, sqlite_store.features))

    with train_store.begin() as connection:
        assert train_store.count_rows(connection) == 0
    train_store.close()
    assert (done.rows, done.labels) == (1, 1)


def test_a_version_of_other_features_is_searched_by_its_own(
    sqlite_store: Store, sqlite_environment: dict[str, str], make_version: Callable[..., str], tmp_path: Path
) -> None:
    settings = JobSettings.from_env(sqlite_environment)
    one = FeatureList((Feature("amount"),))
    version = make_version(settings.models_dir, seed=2, of=one)
    other = Store.create_or_migrate(tmp_path / "other.db", one)
    with other.begin() as connection:
        rows = ImportedRows(CLOCK.tick()[1], [NOW], np.full((1, 1), 7.5), [False], [None])
        transfer.import_history(other, connection, [rows], reporter="old.csv", received_at=NOW)
    with_reference(other, settings.models_dir, version)
    other.close()
    append(sqlite_store, ["gone"])

    forget("gone", Installation(settings, load_features(None)))

    assert read_reference(settings.models_dir / version, one).tolist() == [[7.5]]


def test_says_what_it_did_and_what_it_could_not_reach(
    sqlite_store: Store, model: Model, sqlite_environment: dict[str, str]
) -> None:
    settings = JobSettings.from_env(sqlite_environment)
    append(sqlite_store, ["gone"])
    with_reference(sqlite_store, settings.models_dir, model.version)
    damaged = settings.models_dir / "20250101T000000Z-0123456789ab"
    damaged.mkdir()
    reader = Store.open(settings.latest_db, sqlite_store.features, read_only=True)
    with reader.begin() as connection:
        reader.count_rows(connection)

        story = tell(
            "gone", forget("gone", Installation(settings, sqlite_store.features)), settings, now=TODAY, nights=7
        )

    reader.close()
    assert "gone: erased 1 stored row with features and scores, 1 label and 1 idempotency key." in story
    assert f"Erased 1 row from the reference of {model.version}." in story
    assert f"NOT searched: the reference of {damaged.name}" in story
    assert "still holds old pages because another process is reading" in story
    assert "Out of reach: backups made until 2026-03-01." in story
    assert "is deleted on 2026-03-08" in story


def test_says_that_there_was_nothing(store: Store, job_settings: JobSettings) -> None:
    story = tell(
        "nobody", forget("nobody", Installation(job_settings, store.features)), job_settings, now=TODAY, nights=7
    )

    assert story.startswith("nobody: nothing is stored under this id.")
    assert ("VACUUM" in story) == (job_settings.database_url is not None)
    assert ("NOT searched: unused parts of a database" in story) == (job_settings.database_url is None)


def test_waits_for_no_retraining(sqlite_store: Store, sqlite_environment: dict[str, str]) -> None:
    settings = JobSettings.from_env(sqlite_environment)

    with promoter(settings.models_dir), pytest.raises(LockHeld):
        forget("gone", Installation(settings, sqlite_store.features))
