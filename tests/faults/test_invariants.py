"""The control of every fault test: the checker finds each way in which a store can be wrong."""

import dataclasses
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pysqlite3
import pytest

from fraud_detection.clock import Clock
from fraud_detection.features import FeatureList
from fraud_detection.model.read import Model
from fraud_detection.store import Store, decisions
from fraud_detection.store.decisions import ScoredRequest
from tests.faults.invariants import Acknowledged, Expected, Sent, violations


@pytest.fixture
def expected(sqlite_store: Store, model: Model) -> Expected:
    """Three stored requests of two rows, as the client that sent them knows them."""
    expected, clock = Expected(), Clock()
    random = np.random.default_rng(0)
    for number in range(3):
        matrix = random.normal(size=(2, 29))
        ids = [f"request {number} row {row}" for row in range(2)]
        ts, request_id = clock.tick()
        scores = model.score(matrix).tolist()
        with sqlite_store.begin() as connection:
            decisions.append(
                sqlite_store,
                connection,
                [
                    ScoredRequest(
                        request_id, ts, matrix, scores, 0.4, model.version, model.digest, ids, f"key {number}", "sha"
                    )
                ],
            )
        sent = Sent(ids, matrix.tolist(), f"key {number}")
        expected.sent.append(sent)
        expected.acknowledged.append(Acknowledged(request_id, sent, scores))
    return expected


@pytest.fixture
def check(
    sqlite_store: Store, models_dir: Path, features: FeatureList, expected: Expected
) -> Callable[[str], list[str]]:
    """Damage the store with one SQL statement and check it."""

    def damage_and_check(sql: str) -> list[str]:
        sqlite_store.close()
        assert isinstance(sqlite_store.location, Path)
        database = pysqlite3.connect(sqlite_store.location)
        with database:
            database.executescript(sql)
        database.close()
        return violations(sqlite_store.location, models_dir, features, expected)

    return damage_and_check


def test_nothing_is_found_in_an_intact_store(check: Callable[[str], list[str]]) -> None:
    assert check("") == []


@pytest.mark.parametrize(
    ("sql", "finding"),
    [
        ("DELETE FROM requests WHERE id <= 2", "I1 .* not stored as sent"),
        ("DELETE FROM requests WHERE id = 6", "I3 .* not stored whole: 1 of 2"),
        ("UPDATE requests SET V7 = V7 + 1e-9 WHERE id = 6", "I2 .* other rows than were sent"),
        ("UPDATE requests SET transaction_id = 'mine' WHERE id <= 2", "I2 .* no client sent it"),
        ("UPDATE requests SET fraud_probability = 0.123 WHERE id = 6", "I6 .* 0.123 is stored"),
        ("UPDATE requests SET fraud_probability = 0.123 WHERE id = 6", "I1 .* other scores"),
        ("UPDATE requests SET model_digest = 'unknown' WHERE id = 6", "I4 .* never promoted"),
        ("UPDATE requests SET V1 = 9e999 WHERE id = 6", "I4 .* out of range"),
        (
            "INSERT INTO labels (request_id, row_index, is_fraud, source, reporter, reported_at, received_at)"
            " VALUES ('nobody''s', 0, 1, 'analyst', 'me', 'today', 'today')",
            "I5 foreign_key_check",
        ),
        (
            "CREATE TEMP TABLE again AS SELECT * FROM requests WHERE id <= 2;"
            "UPDATE again SET id = id + 6, request_id = 'again';"
            "INSERT INTO requests SELECT * FROM again",
            "I3 key key 0 has two requests",
        ),
        (
            "PRAGMA writable_schema = ON; DELETE FROM sqlite_master WHERE name = 'ix_requests_ts'",
            "I5 integrity_check",
        ),
    ],
)
def test_each_kind_of_damage_is_found(check: Callable[[str], list[str]], sql: str, finding: str) -> None:
    found = check(sql)

    assert any(re.match(finding, line) for line in found), found


def test_an_acknowledgement_of_what_was_never_stored_is_found(
    check: Callable[[str], list[str]], expected: Expected
) -> None:
    expected.acknowledged.append(dataclasses.replace(expected.acknowledged[0], request_id="lost"))

    assert check("") == ["I1 request lost was acknowledged, its rows are not stored as sent"]
