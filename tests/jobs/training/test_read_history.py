"""Training reads imported history and live rows as one, without doubles."""

from pathlib import Path

import numpy as np
import pytest

from fraud_detection.contract import AMOUNT_SCALING
from fraud_detection.database import DatabaseRefused
from fraud_detection.features import FeatureList
from fraud_detection.model.manifest import AmountScaling
from fraud_detection.settings import JobSettings
from fraud_detection.store import Store, labels, transfer
from fraud_detection.store.labels import NewLabel
from fraud_detection.store.transfer import ImportedRows
from jobs.installation import Installation
from jobs.training.read_history import read_history

DAY = "2026-01-0{} 00:00:00.000000"


def fill(store: Store, request_id: str, days: list[int], truths: list[bool | None]) -> None:
    """Store a transaction a day; the first feature is the day."""
    matrix = np.zeros((len(days), 29))
    matrix[:, 0] = days
    rows = ImportedRows(request_id, [DAY.format(day) for day in days], matrix, truths, [None] * len(days))
    with store.begin() as connection:
        transfer.import_history(store, connection, [rows], reporter="test", received_at=DAY.format(9))


@pytest.fixture
def two_files(sqlite_environment: dict[str, str], tmp_path: Path) -> JobSettings:
    return JobSettings.from_env(sqlite_environment | {"TRAIN_DB": str(tmp_path / "history" / "train.db")})


def test_reads_the_one_store_of_an_installation(store: Store, job_settings: JobSettings, features: FeatureList) -> None:
    fill(store, "a", [1, 2], [True, None])

    history, scaling = read_history(Installation(job_settings, features))

    assert history.is_fraud.tolist() == [1, -1]
    assert scaling is None


def test_joins_imported_history_and_live_rows_in_order_of_time(two_files: JobSettings, features: FeatureList) -> None:
    for path, days in ((two_files.latest_db, [2, 5]), (two_files.train_db, [1, 3])):
        store = Store.create_or_migrate(path, features)
        fill(store, path.name, days, [None, True])
        store.close()

    history, _ = read_history(Installation(two_files, features))

    assert history.matrix[:, 0].tolist() == [1, 2, 3, 5]
    assert history.is_fraud.tolist() == [-1, -1, 1, 1]


def test_a_copy_of_the_live_store_adds_nothing_but_the_labels_it_knows(
    two_files: JobSettings, features: FeatureList
) -> None:
    for path, truths in ((two_files.latest_db, [None, False]), (two_files.train_db, [True, None])):
        store = Store.create_or_migrate(path, features)
        fill(store, "the same", [1, 2], truths)
        store.close()

    history, _ = read_history(Installation(two_files, features))

    assert len(history) == 2
    assert history.is_fraud.tolist() == [1, 0]


def test_a_file_that_is_not_there_yet_holds_nothing(two_files: JobSettings, features: FeatureList) -> None:
    store = Store.create_or_migrate(two_files.train_db, features)
    fill(store, "imported", [1], [False])
    with store.begin() as connection:
        store.set_meta(connection, AMOUNT_SCALING, '{"mean": 5.0, "standard_deviation": 2.0}')
    store.close()

    history, scaling = read_history(Installation(two_files, features))

    assert len(history) == 1
    assert scaling == AmountScaling(5.0, 2.0)


def test_without_any_store_there_is_nothing_to_read(two_files: JobSettings, features: FeatureList) -> None:
    with pytest.raises(DatabaseRefused, match="no database there") as refused:
        read_history(Installation(two_files, features))

    assert refused.value.reason == "missing"


def test_a_damaged_store_is_never_taken_for_an_absent_one(two_files: JobSettings, features: FeatureList) -> None:
    Store.create_or_migrate(two_files.train_db, features).close()
    two_files.latest_db.parent.mkdir(parents=True)
    two_files.latest_db.write_bytes(b"not a database at all, though long enough to look like one" * 100)

    with pytest.raises(DatabaseRefused) as refused:
        read_history(Installation(two_files, features))

    assert refused.value.reason == "corrupt"


def test_a_label_given_to_a_live_row_is_seen(store: Store, job_settings: JobSettings, features: FeatureList) -> None:
    fill(store, "a", [1], [None])
    label = NewLabel(
        is_fraud=True, source="chargeback", reporter="bank", reported_at=DAY.format(2), request_id="a", row_index=0
    )
    with store.begin() as connection:
        labels.add(store, connection, [label], received_at=DAY.format(3))

    history, _ = read_history(Installation(job_settings, features))

    assert (history.is_fraud.tolist(), history.label_source.tolist()) == ([1], ["chargeback"])
