"""Failures of storage are distinguished from errors of a statement."""

from pathlib import Path

import pytest
import sqlalchemy as sa

from fraud_detection.database import DatabaseRefused
from fraud_detection.database.engine import open_engine
from fraud_detection.database.trouble import trouble
from fraud_detection.store import Store


def test_trouble_is_what_storage_fails_at_and_not_what_a_statement_does_wrong(store: Store) -> None:
    with store.engine.connect() as connection, pytest.raises(sa.exc.DBAPIError) as wrong:
        connection.execute(sa.text("INSERT INTO schema_meta (key, value) VALUES ('twice', ''), ('twice', '')"))

    assert trouble(wrong.value) is None
    assert trouble(ValueError("no error of a database")) is None
    assert trouble(DatabaseRefused("unreachable", "gone")) == "failed"
    assert trouble(DatabaseRefused("corrupt", "damaged")) == "corrupt"


def test_a_refused_connection_is_trouble(tmp_path: Path) -> None:
    engine = open_engine(f"postgresql+psycopg://tester@/postgres?host={tmp_path}")
    with pytest.raises(sa.exc.OperationalError) as lost:
        engine.connect()

    assert trouble(lost.value) == "failed"
