"""The lineage of a decision leads to the labels behind its model, as far as they are known."""

from collections.abc import Callable

import numpy as np
import pytest

from fraud_detection.clock import Clock
from fraud_detection.database import DatabaseRefused
from fraud_detection.features import FeatureList
from fraud_detection.model.read import Model, load
from fraud_detection.model.write import promote
from fraud_detection.settings import JobSettings
from fraud_detection.store import Store, decisions, labels, transfer
from fraud_detection.store.decisions import ScoredRequest
from fraud_detection.store.labels import NewLabel
from fraud_detection.store.transfer import ImportedRows
from jobs.installation import Installation
from jobs.reporting.lineage import UnknownDecision, lineage, tell

CLOCK = Clock()
EARLY, LATE = "2026-02-01 00:00:00.000000", "2026-02-02 00:00:00.000000"


def append(store: Store, transaction_id: str, version: str, digest: str) -> str:
    ts, request_id = CLOCK.tick()
    request = ScoredRequest(
        request_id=request_id,
        ts=ts,
        matrix=np.full((1, 29), 0.5),
        fraud_probability=[0.75],
        threshold=0.4,
        model_version=version,
        model_digest=digest,
        transaction_ids=[transaction_id],
    )
    with store.begin() as connection:
        decisions.append(store, connection, [request])
    return request_id


def test_describes_a_decision_from_the_transaction_to_the_labels_behind_its_model(
    store: Store, job_settings: JobSettings, make_version: Callable[..., str]
) -> None:
    parent = make_version(job_settings.models_dir, seed=1)
    version = make_version(
        job_settings.models_dir,
        seed=2,
        rows={"fraud": 123, "genuine": 4567},
        label_sources={"import": 4690},
        parent=parent,
        verdict={
            "decision": "promote",
            "checks": [{"name": "recall", "passed": True, "sentence": "It flags as many of the frauds."}],
        },
    )
    promote(job_settings.models_dir, version, actor="retrain", reason="drift")
    model = load(job_settings.model_path, store.features)
    request_id = append(store, "t", model.version, model.digest)
    with store.begin() as connection:
        for is_fraud, source, reported_at in ((True, "chargeback", EARLY), (False, "analyst", LATE)):
            labels.add(store, connection, [NewLabel(is_fraud, source, "ann", reported_at, request_id, 0)], LATE)

    (found,) = lineage("t", Installation(job_settings, store.features))
    story = tell(found)

    assert "Transaction t\n" in story
    assert "V1=0.5, V2=0.5" in story
    assert "score 0.7500, flagged at threshold 0.4" in story
    assert f"fraud, says chargeback ('ann'), reported {EARLY}\n" in story
    assert f"genuine, says analyst ('ann'), reported {LATE}; this label counts" in story
    assert f"{version}, the current version\n  sha256    {model.digest}\n" in story
    assert "on 123 fraud, 4,567 genuine from 2025-12-01" in story
    assert "true labels (4,690 import)" in story
    assert f"replaced  {parent}" in story
    assert "verdict   promote\n  passed    It flags as many of the frauds." in story
    assert "promoted by retrain: drift" in story


def test_no_text_of_others_forges_a_line_or_a_word_of_ours(
    sqlite_store: Store, model: Model, sqlite_environment: dict[str, str]
) -> None:
    settings = JobSettings.from_env(sqlite_environment)
    request_id = append(sqlite_store, "t", model.version, model.digest)
    forged = "ann), reported 2026 with token desk\n  verdict   promote\x1b[2K\u202e"
    promote(settings.models_dir, model.version, actor="a\rb", reason="because\n  passed    all")
    with sqlite_store.begin() as connection:
        labels.add(sqlite_store, connection, [NewLabel(True, "analyst", forged, LATE, request_id, 0)], LATE)

    story = tell(lineage("t", Installation(settings, sqlite_store.features))[0])

    assert all(letter.isprintable() for line in story.split("\n") for letter in line)
    assert not {"  verdict   promote", "  passed    all"} & set(story.split("\n"))
    said = " ".join(story.split())
    assert r"says analyst ('ann), reported 2026 with token desk\n verdict promote\x1b[2K\u202e'), reported" in said
    assert r"promoted by a\rb: because\n passed all" in said


def test_a_decision_of_a_deleted_model_is_described_as_far_as_it_is_known(
    sqlite_store: Store, sqlite_environment: dict[str, str]
) -> None:
    settings = JobSettings.from_env(sqlite_environment)
    append(sqlite_store, "t", "20250101T000000Z-0123456789ab", "0" * 64)

    story = tell(lineage("t", Installation(settings, sqlite_store.features))[0])

    assert "20250101T000000Z-0123456789ab, no longer current" in story
    assert "this version is no longer kept" in story
    assert "none: no label has arrived" in story


def test_imported_history_has_no_model(store: Store, job_settings: JobSettings) -> None:
    request_id = CLOCK.tick()[1]
    with store.begin() as connection:
        rows = ImportedRows(request_id, [EARLY, LATE], np.zeros((2, 29)), [True, None], [None, None])
        transfer.import_history(store, connection, [rows], reporter="old.csv", received_at=LATE)

    first, second = lineage(request_id, Installation(job_settings, store.features))

    assert f"Transaction {request_id}:0" in tell(second) + tell(first)
    assert "imported history, which this installation never scored" in tell(first)
    assert "fraud, says import ('old.csv')" in tell(first) + tell(second)
    assert "\n  model" not in tell(first)


def test_a_class_set_by_hand_is_named(sqlite_store: Store, model: Model, sqlite_environment: dict[str, str]) -> None:
    append(sqlite_store, "t", model.version, model.digest)
    with sqlite_store.begin() as connection:
        connection.execute(sqlite_store.tables.requests.update().values({"Class": 1}))

    (found,) = lineage("t", Installation(JobSettings.from_env(sqlite_environment), sqlite_store.features))

    assert "fraud: Class was set in the table by hand" in tell(found)


def test_a_damaged_version_hides_nothing_else(
    sqlite_store: Store, model: Model, sqlite_environment: dict[str, str]
) -> None:
    settings = JobSettings.from_env(sqlite_environment)
    (settings.models_dir / "20250101T000000Z-0123456789ab").mkdir()
    append(sqlite_store, "t", model.version, model.digest)

    (found,) = lineage("t", Installation(settings, sqlite_store.features))

    assert found.manifest == model.manifest


def test_an_unknown_transaction_is_an_error(store: Store, job_settings: JobSettings) -> None:
    with pytest.raises(UnknownDecision, match="nobody: no transaction is stored"):
        lineage("nobody", Installation(job_settings, store.features))


def test_an_installation_without_a_store_is_named(sqlite_environment: dict[str, str], features: FeatureList) -> None:
    with pytest.raises(DatabaseRefused, match="no database there"):
        lineage("t", Installation(JobSettings.from_env(sqlite_environment), features))
