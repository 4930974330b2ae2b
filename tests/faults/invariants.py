"""Check what must hold of a store after every fault (I1 to I6), with SQL and the model and none of our queries."""

import math
import sqlite3
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pysqlite3

from fraud_detection.features import FeatureList
from fraud_detection.model.read import journal, read_version


@dataclass(frozen=True)
class Sent:
    """A request that was sent, perhaps several times under its idempotency key."""

    transaction_ids: list[str]
    """One a row; no two requests share one."""
    rows: list[list[float]]
    idempotency_key: str | None


@dataclass(frozen=True)
class Acknowledged:
    """A request that was answered 200."""

    request_id: str
    sent: Sent
    scores: list[float]


@dataclass(frozen=True)
class StoredRow:
    """A row of the table `requests`."""

    request_id: str
    row_index: int
    transaction_id: str | None
    model_digest: str
    score: float
    features: list[float]


@dataclass
class Expected:
    """What the clients know: everything that they sent and every answer."""

    sent: list[Sent] = field(default_factory=list)
    acknowledged: list[Acknowledged] = field(default_factory=list)


def violations(database: Path, models_dir: Path, features: FeatureList, expected: Expected) -> list[str]:
    """Return every broken invariant as one sentence that starts with its number; [] if all of them hold.

    Open only a database that no server uses, or a copy.
    """
    connection = pysqlite3.connect(database)
    try:
        found = _integrity(connection)
        rows = _rows(connection, features)
    finally:
        connection.close()
    requests: dict[str, list[StoredRow]] = defaultdict(list)
    for row in rows:
        requests[row.request_id].append(row)
    return [
        *found,
        *_acknowledged_is_stored(requests, expected.acknowledged),
        *_stored_was_sent(requests, expected.sent),
        *_scores_replay(rows, models_dir, features),
    ]


def _integrity(connection: sqlite3.Connection) -> list[str]:
    answers = [row[0] for row in connection.execute("PRAGMA integrity_check")]
    orphans = connection.execute("PRAGMA foreign_key_check").fetchall()
    return [f"I5 integrity_check: {answer}" for answer in answers if answer != "ok"] + [
        f"I5 foreign_key_check: {orphan}" for orphan in orphans
    ]


def _rows(connection: sqlite3.Connection, features: FeatureList) -> list[StoredRow]:
    columns = ", ".join(f'"{name}"' for name in features.names)
    query = (
        "SELECT request_id, row_index, transaction_id, model_digest, fraud_probability, "  # noqa: S608  our own names
        f"{columns} FROM requests ORDER BY request_id, row_index"
    )
    return [
        StoredRow(request_id, row_index, transaction_id, digest, score, numbers)
        for request_id, row_index, transaction_id, digest, score, *numbers in connection.execute(query)
    ]


def _acknowledged_is_stored(
    requests: Mapping[str, Sequence[StoredRow]], acknowledged: Sequence[Acknowledged]
) -> list[str]:
    found = []
    for answer in acknowledged:
        rows = requests.get(answer.request_id, [])
        if [row.features for row in rows] != answer.sent.rows:
            found.append(f"I1 request {answer.request_id} was acknowledged, its rows are not stored as sent")
        elif [row.score for row in rows] != answer.scores:
            found.append(f"I1 request {answer.request_id} was answered other scores than are stored")
    return found


def _stored_was_sent(requests: Mapping[str, Sequence[StoredRow]], sent: Sequence[Sent]) -> list[str]:
    by_first_id = {request.transaction_ids[0]: request for request in sent}
    by_key: dict[str, str] = {}
    found = []
    for request_id, rows in requests.items():
        request = by_first_id.get(rows[0].transaction_id or "")
        if request is None:
            found.append(f"I2 request {request_id} is stored, but no client sent it")
            continue
        if [row.row_index for row in rows] != list(range(len(request.rows))):
            found.append(f"I3 request {request_id} is not stored whole: {len(rows)} of {len(request.rows)} rows")
        elif [(row.transaction_id, row.features) for row in rows] != list(
            zip(request.transaction_ids, request.rows, strict=True)
        ):
            found.append(f"I2 request {request_id} is stored with other rows than were sent")
        key = request.idempotency_key
        if key is not None and by_key.setdefault(key, request_id) != request_id:
            found.append(f"I3 key {key} has two requests, {by_key[key]} and {request_id}")
    return found


def _scores_replay(rows: Sequence[StoredRow], models_dir: Path, features: FeatureList) -> list[str]:
    promoted = {entry["digest"]: entry["version"] for entry in journal(models_dir) if entry["event"] == "promoted"}
    by_digest: dict[str, list[StoredRow]] = defaultdict(list)
    found = []
    for row in rows:
        if row.model_digest not in promoted:
            found.append(f"I4 request {row.request_id} names a model that was never promoted")
        elif not all(map(math.isfinite, (*row.features, row.score))) or not 0 <= row.score <= 1:
            found.append(f"I4 request {row.request_id} row {row.row_index} holds numbers out of range")
        else:
            by_digest[row.model_digest].append(row)
    for digest, scored in by_digest.items():
        model = read_version(models_dir / promoted[digest], features)
        replayed = model.score(np.array([row.features for row in scored]))
        found += [
            f"I6 request {row.request_id} row {row.row_index} scores {score} today, {row.score} is stored"
            for row, score in zip(scored, replayed.tolist(), strict=True)
            if score != row.score
        ]
    return found
