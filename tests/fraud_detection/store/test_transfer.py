"""An import arrives whole or not at all, and a copy overwrites nothing."""

from pathlib import Path

import numpy as np
import psycopg
import pytest
import sqlalchemy as sa

from fraud_detection.clock import Clock
from fraud_detection.store import Store, decisions, history, transfer
from fraud_detection.store.transfer import ImportedRows

CLOCK = Clock()
RECEIVED_AT = "2026-02-02 00:00:00.000000"


def page(is_fraud: list[bool | None], *, transaction_ids: list[str | None] | None = None) -> ImportedRows:
    random = np.random.default_rng(len(is_fraud))
    return ImportedRows(
        request_id=CLOCK.tick()[1],
        ts=[f"2013-09-01 00:00:{index:02d}.000000" for index in range(len(is_fraud))],
        matrix=random.normal(size=(len(is_fraud), 29)) * 1e-7,
        is_fraud=is_fraud,
        transaction_ids=transaction_ids or [None] * len(is_fraud),
    )


def test_imported_history_is_unscored_and_labelled_by_the_import(store: Store) -> None:
    rows = page([True, False, None], transaction_ids=["a", None, "c"])

    with store.begin() as connection:
        imported = transfer.import_history(store, connection, [rows], reporter="old.csv", received_at=RECEIVED_AT)

    with store.begin() as connection:
        stored = history.read(store, connection)
        (decision,) = decisions.find(store, connection, "a")
    assert imported == 3
    assert (stored.matrix == rows.matrix).all()
    assert np.isnan(stored.fraud_probability).all()
    assert stored.is_fraud.tolist() == [1, 0, -1]
    assert stored.label_source.tolist() == ["import", "import", ""]
    assert [(label.source, label.reporter, label.is_fraud) for label in decision.labels] == [
        ("import", "old.csv", True)
    ]


def test_an_import_that_breaks_off_leaves_nothing(store: Store) -> None:
    rows = page([True, False])

    with pytest.raises((sa.exc.IntegrityError, psycopg.errors.UniqueViolation)), store.begin() as connection:
        transfer.import_history(
            store, connection, [page([False]), rows, rows], reporter="old.csv", received_at=RECEIVED_AT
        )

    with store.begin() as connection:
        assert store.count_rows(connection) == 0


def test_a_copy_refuses_to_overwrite_and_postgresql_has_no_file(store: Store, tmp_path: Path) -> None:
    target = tmp_path / "copy.db"
    if isinstance(store.location, str):
        with pytest.raises(TypeError, match="pg_dump"):
            transfer.copy_to(store, target)
        return

    transfer.copy_to(store, target)

    assert target.stat().st_mode & 0o777 == 0o600
    with pytest.raises(FileExistsError):
        transfer.copy_to(store, target)
