"""A reference is a repeatable sample, from which forgotten rows are deleted."""

import contextlib
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from pysqlite3 import dbapi2

from fraud_detection.features import FeatureList
from fraud_detection.model.files import MANIFEST, ONNX, PICKLE, REFERENCE
from fraud_detection.model.read import ModelRefused, read_manifest, read_version
from fraud_detection.model.write import replace_file, write_version
from fraud_detection.store.history import History
from jobs.drift import reference
from jobs.drift.reference import REFERENCE_ROWS, forget_in_reference, read_reference, reference_bytes

MakeVersion = Callable[..., str]


def history(rows: int) -> History:
    random = np.random.default_rng(0)
    return History(
        request_id=np.array([f"r{number}" for number in range(rows)]),
        row_index=np.zeros(rows, dtype=np.int64),
        ts=np.array(["2026-01-01 00:00:00.000000"] * rows),
        matrix=random.normal(size=(rows, 29)),
        fraud_probability=np.full(rows, np.nan),
        is_flagged=np.zeros(rows, dtype=np.bool_),
        model_digest=np.array([""] * rows),
        is_fraud=np.zeros(rows, dtype=np.int8),
        label_source=np.array(["import"] * rows),
        schema_version=np.full(rows, 5),
    )


@pytest.fixture
def referenced(tmp_path: Path, make_version: MakeVersion, features: FeatureList) -> str:
    """A version with a reference of three rows, r0 to r2."""
    made = make_version(tmp_path / "made")
    files = {name: (tmp_path / "made" / made / name).read_bytes() for name in (ONNX, PICKLE)}
    files[REFERENCE] = reference_bytes(history(3), features, seed=0)
    return write_version(tmp_path, files, read_manifest(tmp_path / "made" / made))


def test_a_reference_is_read_as_it_was_written(tmp_path: Path, referenced: str, features: FeatureList) -> None:
    assert (read_reference(tmp_path / referenced, features) == history(3).matrix).all()


def test_a_large_one_is_a_sample_in_order_of_time_and_repeatable(features: FeatureList) -> None:
    rows = history(REFERENCE_ROWS + 500)

    assert reference_bytes(rows, features, seed=1) == reference_bytes(rows, features, seed=1)
    assert reference_bytes(rows, features, seed=1) != reference_bytes(rows, features, seed=2)


def test_forgetting_takes_the_row_out_and_keeps_the_version_whole(
    tmp_path: Path, referenced: str, features: FeatureList
) -> None:
    assert forget_in_reference(tmp_path, referenced, features, {("r1", 0), ("other", 0)}) == 1

    assert (read_reference(tmp_path / referenced, features) == history(3).matrix[[0, 2]]).all()
    assert b"r1" not in (tmp_path / referenced / REFERENCE).read_bytes()
    read_version(tmp_path / referenced, features)
    assert forget_in_reference(tmp_path, referenced, features, {("r1", 0)}) == 0


def test_forgetting_finishes_the_work_of_a_killed_run(tmp_path: Path, referenced: str, features: FeatureList) -> None:
    path = tmp_path / referenced / REFERENCE
    forget_in_reference(tmp_path, referenced, features, {("r1", 0)})
    manifest = (tmp_path / referenced / MANIFEST).read_text()
    path.write_bytes(reference_bytes(history(2000), features, seed=0))  # the file of a run whose manifest is not yet

    with pytest.raises(ModelRefused):
        read_reference(tmp_path / referenced, features)
    forget_in_reference(tmp_path, referenced, features, {("r1", 0)})

    assert (tmp_path / referenced / MANIFEST).read_text() != manifest
    assert len(read_reference(tmp_path / referenced, features)) == 1999


def test_a_version_without_a_reference_has_nothing_to_forget(
    tmp_path: Path, make_version: MakeVersion, features: FeatureList
) -> None:
    assert forget_in_reference(tmp_path, make_version(tmp_path), features, {("r1", 0)}) == 0


@pytest.mark.parametrize(
    ("rowid", "rows", "message"), [("-i", 2**40, "interrupted"), ("1", 20_000, "at most 10,000 rows")]
)
def test_a_reference_is_read_within_its_bounds(
    *,
    tmp_path: Path,
    referenced: str,
    features: FeatureList,
    monkeypatch: pytest.MonkeyPatch,
    rowid: str,
    rows: int,
    message: str,
) -> None:
    if message == "interrupted":
        monkeypatch.setattr(reference, "_READ_SECONDS", 0.1)
    columns = ", ".join(f"0.0 AS {name}" for name in features.names)
    counting = f"WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n LIMIT {rows})"  # noqa: S608  ours
    view = f"{counting} SELECT {rowid} AS rowid, 'r' AS request_id, i AS row_index, {columns} FROM n"  # noqa: S608  ours
    with contextlib.closing(dbapi2.connect(str(tmp_path / "hostile.db"))) as connection:
        connection.execute(f"CREATE VIEW reference AS {view}")
    replace_file(tmp_path, referenced, REFERENCE, (tmp_path / "hostile.db").read_bytes())

    with pytest.raises(ModelRefused, match=message):
        read_reference(tmp_path / referenced, features)


def test_a_named_pipe_as_reference_is_refused(tmp_path: Path, referenced: str, features: FeatureList) -> None:
    path = tmp_path / referenced / REFERENCE
    path.unlink()
    os.mkfifo(path)

    with pytest.raises(ModelRefused, match="expected a file, got a named pipe"):
        read_reference(tmp_path / referenced, features)
    with pytest.raises(ModelRefused, match="expected the file of a reference there"):
        forget_in_reference(tmp_path, referenced, features, {("r1", 0)})


def test_a_file_that_is_no_reference_is_refused(tmp_path: Path, referenced: str, features: FeatureList) -> None:
    replace_file(tmp_path, referenced, REFERENCE, b"not a database" * 100)

    with pytest.raises(ModelRefused, match="the reference cannot be read"):
        read_reference(tmp_path / referenced, features)
