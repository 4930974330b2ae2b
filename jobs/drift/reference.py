"""Writes and reads reference_data.db: the sample of training rows in every version, which drift compares with."""

import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from pysqlite3 import dbapi2

from fraud_detection.features import FeatureList, Matrix
from fraud_detection.model.files import REFERENCE
from fraud_detection.model.read import ModelRefused, verify_file
from fraud_detection.model.write import replace_file
from fraud_detection.store.history import History

REFERENCE_ROWS = 10_000
_READ_SECONDS = 10.0


def reference_bytes(rows: History, features: FeatureList, seed: int) -> bytes:
    """Return an SQLite file with at most REFERENCE_ROWS of the rows, drawn with the seed, in order of time.

    Table `reference`: request_id, row_index (so that a transaction can be found and forgotten) and the features.
    """
    if len(rows) > REFERENCE_ROWS:
        drawn = np.random.default_rng(seed).choice(len(rows), REFERENCE_ROWS, replace=False)
        rows = rows.take(np.sort(drawn))
    keys = zip(rows.request_id.tolist(), rows.row_index.tolist(), strict=True)
    return _build(features, [(*key, *numbers) for key, numbers in zip(keys, rows.matrix.tolist(), strict=True)])


def read_reference(version_dir: Path, features: FeatureList) -> Matrix:
    """Return the reference of a version, shape (rows, features), after comparing the file with the manifest.

    Raises ModelRefused.
    """
    return np.array([row[2:] for row in _rows(version_dir, features)], dtype=np.float64).reshape(-1, len(features))


def forget_in_reference(
    models_dir: Path, version: str, features: FeatureList, keys: set[tuple[str, int | None]]
) -> int:
    """Rewrite a version's reference without some transactions, (request_id, row_index); return how many it held.

    A row_index of None stands for every row of the request. The caller holds the promoter's lock.

    Raises ModelRefused if the file cannot be read.
    """
    if not (models_dir / version / REFERENCE).exists():  # `collect` takes it out of old versions
        return 0
    rows = _read(models_dir / version / REFERENCE, features)
    kept = [row for row in rows if keys.isdisjoint({(row[0], row[1]), (row[0], None)})]
    if len(kept) < len(rows) or not _fits_manifest(models_dir / version):
        replace_file(models_dir, version, REFERENCE, _build(features, kept))
    return len(rows) - len(kept)


def _fits_manifest(version_dir: Path) -> bool:
    """Return whether the last rewrite reached the manifest; a killed one did not."""
    try:
        verify_file(version_dir, REFERENCE)
    except ModelRefused as error:
        if error.reason == "digest":
            return False
        raise
    return True


def _rows(version_dir: Path, features: FeatureList) -> list[tuple[Any, ...]]:
    return _read(verify_file(version_dir, REFERENCE), features)


def _read(path: Path, features: FeatureList) -> list[tuple[Any, ...]]:
    """Return the rows of a reference, which others may have written: bounded in rows and time."""
    columns = ", ".join(f'"{name}"' for name in features.names)
    if not path.is_file():  # SQLite would wait for a writer of a named pipe
        raise ModelRefused("missing", f"{path}: expected the file of a reference there")
    # immutable: the finished file is never written again, and this works on a read-only mount too
    connection = dbapi2.connect(f"{path.resolve().as_uri()}?immutable=1", uri=True)
    deadline = time.monotonic() + _READ_SECONDS
    connection.set_progress_handler(lambda: time.monotonic() > deadline, 100_000)
    try:
        rows: list[tuple[Any, ...]] = connection.execute(
            f"SELECT request_id, row_index, {columns} FROM reference ORDER BY rowid"  # noqa: S608  checked feature names
        ).fetchmany(REFERENCE_ROWS + 1)
    except dbapi2.DatabaseError as error:
        raise ModelRefused("unreadable", f"{path}: the reference cannot be read ({error})") from error
    finally:
        connection.close()
    if len(rows) > REFERENCE_ROWS:
        raise ModelRefused("unreadable", f"{path}: expected at most {REFERENCE_ROWS:,} rows in a reference")
    return rows


def _build(features: FeatureList, rows: list[tuple[Any, ...]]) -> bytes:
    columns = ", ".join(f'"{name}" REAL NOT NULL' for name in features.names)
    places = ", ".join("?" * (len(features) + 2))
    with tempfile.TemporaryDirectory(prefix="fraud-reference-") as folder:
        path = Path(folder) / REFERENCE
        connection = dbapi2.connect(str(path), isolation_level=None)
        try:
            connection.execute("BEGIN")
            connection.execute(
                f"CREATE TABLE reference (request_id TEXT NOT NULL, row_index INTEGER NOT NULL, {columns}) STRICT"
            )
            connection.executemany(f"INSERT INTO reference VALUES ({places})", rows)  # noqa: S608  only question marks
            connection.execute("COMMIT")
        finally:
            connection.close()
        return path.read_bytes()
