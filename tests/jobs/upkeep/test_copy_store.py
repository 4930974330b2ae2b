"""A copied store holds every row bit for bit, on either database."""

from pathlib import Path

import numpy as np
import pytest
import sqlalchemy as sa

from fraud_detection.clock import Clock
from fraud_detection.features import FeatureList
from fraud_detection.lock import StoreInUse, in_use
from fraud_detection.store import Store, decisions, labels, transfer
from fraud_detection.store.decisions import ScoredRequest
from fraud_detection.store.labels import NewLabel
from fraud_detection.store.transfer import ImportedRows
from jobs.upkeep.copy_store import CopyFailed, copy_contents, copy_stores

CLOCK = Clock()
NOW = "2026-03-01 00:00:00.000000"


def append(store: Store, rows: int = 3) -> None:
    """Store a scored request with a key and a label, and imported history."""
    ts, request_id = CLOCK.tick()
    random = np.random.default_rng(rows)
    matrix = random.normal(size=(rows, 29)) * 10.0 ** random.integers(-300, 8, size=(rows, 29))
    matrix[0, 0] = -0.0
    request = ScoredRequest(
        request_id=request_id,
        ts=ts,
        matrix=matrix,
        fraud_probability=[0.1 + 0.2] * rows,
        threshold=0.4,
        model_version="v",
        model_digest="0" * 64,
        transaction_ids=["a\\b\tc"] + [None] * (rows - 1),
        idempotency_key=request_id,
        body_sha256="b",
    )
    history = ImportedRows(CLOCK.tick()[1], [NOW], random.normal(size=(1, 29)), [True], ["é"])
    with store.begin() as connection:
        decisions.append(store, connection, [request])
        labels.add(store, connection, [NewLabel(True, "analyst", "ann", NOW, request_id, 0)], NOW)
        transfer.import_history(store, connection, [history], reporter="old.csv", received_at=NOW)
        store.set_meta(connection, "amount_scaling", '{"mean": 1, "standard_deviation": 2}')


def contents(store: Store) -> dict[str, list[tuple[object, ...]]]:
    with store.begin() as connection:
        return {
            table: sorted(
                (row for page in transfer.contents(store, connection, table) for row in page),
                key=lambda row: str(row[:2]),
            )
            for table in ("requests", "labels", "idempotency", "schema_meta")
        }


def test_everything_arrives_bit_for_bit(sqlite_store: Store, location: str | Path, tmp_path: Path) -> None:
    append(sqlite_store)
    sqlite_store.close()
    target = tmp_path / "copy.db" if isinstance(location, Path) else location

    copied = copy_stores([sqlite_store.location], target, sqlite_store.features)

    arrived = Store.open(target, sqlite_store.features)
    assert copied == {"requests": 4, "labels": 2, "idempotency": 1}
    assert repr(contents(arrived)) == repr(contents(sqlite_store))
    append(arrived)  # its sequences continue where the copy ended
    arrived.close()


def test_comes_back_from_postgresql_as_it_went(store: Store, tmp_path: Path) -> None:
    append(store)

    copy_stores([store.location], tmp_path / "copy.db", store.features)

    arrived = Store.open(tmp_path / "copy.db", store.features)
    assert contents(arrived) == contents(store)
    arrived.close()


def test_two_files_become_one_store(sqlite_store: Store, tmp_path: Path) -> None:
    history = Store.create_or_migrate(tmp_path / "history.db", sqlite_store.features)
    for each in (sqlite_store, history):
        append(each)
        each.close()

    copied = copy_stores([sqlite_store.location, history.location], tmp_path / "both.db", sqlite_store.features)

    assert copied == {"requests": 8, "labels": 4, "idempotency": 2}


def test_stores_that_scale_amounts_differently_are_not_mixed(sqlite_store: Store, tmp_path: Path) -> None:
    history = Store.create_or_migrate(tmp_path / "history.db", sqlite_store.features)
    for each, mean in ((sqlite_store, 1), (history, 2)):
        append(each)
        with each.begin() as connection:
            each.set_meta(connection, "amount_scaling", f'{{"mean": {mean}, "standard_deviation": 2}}')
        each.close()

    with pytest.raises(CopyFailed, match="scale amounts differently"):
        copy_stores([sqlite_store.location, history.location], tmp_path / "both.db", sqlite_store.features)

    both = Store.open(tmp_path / "both.db", sqlite_store.features)
    with both.begin() as connection:
        assert both.count_rows(connection) == 0
    both.close()


def test_a_target_with_rows_is_replaced_only_on_request(
    sqlite_store: Store, location: str | Path, features: FeatureList, tmp_path: Path
) -> None:
    target = tmp_path / "copy.db" if isinstance(location, Path) else location
    append(sqlite_store)
    sqlite_store.close()
    before = Store.create_or_migrate(target, features)
    append(before, rows=9)
    before.close()

    with pytest.raises(CopyFailed, match="already holds 10 transactions; --replace"):
        copy_stores([sqlite_store.location], target, features)
    copied = copy_stores([sqlite_store.location], target, features, replace=True)

    assert copied["requests"] == 4
    assert repr(contents(before)) == repr(contents(sqlite_store))
    before.close()


@pytest.mark.parametrize("loss", ["DELETE FROM labels", 'UPDATE requests SET "V1" = "V1" + 1e-9'])
def test_what_did_not_arrive_whole_is_undone(sqlite_store: Store, tmp_path: Path, loss: str) -> None:
    append(sqlite_store)
    sqlite_store.close()
    target = Store.create_or_migrate(tmp_path / "copy.db", sqlite_store.features)
    with target.begin() as connection:  # a database that loses or changes what is written to it
        connection.execute(sa.text(f"CREATE TRIGGER t AFTER INSERT ON idempotency BEGIN {loss}; END"))

    with sqlite_store.begin() as reading, pytest.raises(CopyFailed, match="nothing was copied"):
        copy_contents([(sqlite_store, reading)], target)

    with target.begin() as connection:
        assert target.count_rows(connection) == 0
    target.close()


def test_a_store_in_use_is_not_copied(sqlite_store: Store, tmp_path: Path) -> None:
    with in_use(sqlite_store.location, tmp_path), pytest.raises(StoreInUse):
        copy_stores([sqlite_store.location], tmp_path / "copy.db", sqlite_store.features)
