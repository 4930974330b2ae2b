"""A cell is read alike in every kind of file and by every command."""

import contextlib
import csv
import sqlite3
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from fraud_detection.exit_codes import ExpectedError
from fraud_detection.features import Feature, FeatureList
from fraud_detection.settings import ClientSettings, JobSettings
from jobs.exchange.api_client import ApiAway, ApiClient
from jobs.exchange.feature_file import draft_of
from jobs.exchange.import_db import import_db
from jobs.exchange.import_file import import_file
from jobs.exchange.label_file import _read, label_file
from jobs.exchange.transaction_file import pages, read_layout
from jobs.installation import Installation

NOW = datetime(2026, 3, 1, tzinfo=UTC)
ONE = FeatureList((Feature("amount"),))


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder in which `table` writes one row as CSV, as Parquet and as an SQLite table; the store is there too."""
    return tmp_path_factory.mktemp("cells")


def table(folder: Path, columns: dict[str, str]) -> list[Path]:
    with (folder / "a.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file, quoting=csv.QUOTE_ALL).writerows([columns.keys(), columns.values()])
    pq.write_table(pa.table({name: [cell] for name, cell in columns.items()}), folder / "a.parquet")
    with contextlib.closing(sqlite3.connect(folder / "a.db")) as old, old:
        old.execute("DROP TABLE IF EXISTS requests")
        old.execute(f"CREATE TABLE requests ({', '.join(columns)})")
        old.execute(f"INSERT INTO requests VALUES ({', '.join('?' * len(columns))})", tuple(columns.values()))  # noqa: S608  only question marks
    return [folder / "a.csv", folder / "a.parquet", folder / "a.db"]


def imported(path: Path) -> tuple[float, int] | None:
    """The number and the truth that come into the store; None if the file is refused."""
    store = path.with_name("store.db")
    variables = {"TRAIN_DB": str(store), "MODEL_PATH": str(path.parent / "rf_model.pkl")}
    here = Installation(JobSettings.from_env(variables), ONE)
    try:
        if path.suffix == ".db":
            import_db(path, here, now=NOW, again=True)
        else:
            import_file(path, here, now=NOW, again=True)
    except ExpectedError:
        return None
    with contextlib.closing(sqlite3.connect(store)) as opened:
        number, truth = opened.execute('SELECT amount, "Class" FROM requests ORDER BY id DESC').fetchone()
    return number, -1 if truth is None else truth


@pytest.mark.parametrize(
    ("cell", "number"),
    [
        *(("2.5", 2.5), (" 7 ", 7.0), ("1e2", 100.0), ("+.5", 0.5), ("007", 7.0), ("1_000", 1000.0)),
        *((cell, None) for cell in ("", "seven", "1,5", "0x1F", "True", "nan", "-inf", "1e999", "7 EUR", "--7")),
    ],
)
def test_a_number_is_read_alike_in_every_file(files: Path, cell: str, number: float | None) -> None:
    found = [imported(path) for path in table(files, {"amount": cell, "Class": "0"})]

    assert found == [None if number is None else (number, 0)] * 3


@pytest.mark.parametrize(
    ("cell", "number"), [("2.5", 2.5), (" 7 ", 7.0), ("", None), ("nan", None), ("inf", None), ("x", None)]
)
def test_score_and_features_init_read_a_number_as_the_imports_do(files: Path, cell: str, number: float | None) -> None:
    for path in table(files, {"amount": cell, "Class": "0"})[:2]:
        if number is None:
            with pytest.raises(ExpectedError, match=r"(line 2|row 1): (column|feature) amount: expected a"):
                next(pages(path, ONE, read_layout(path, ONE, strict=False)))
            with pytest.raises(ExpectedError, match=r"(line 2|row 1): column amount: expected a number"):
                draft_of(path)
        else:
            assert next(pages(path, ONE, read_layout(path, ONE, strict=False))).matrix.tolist() == [[number]]
            assert draft_of(path).features.features[0].description == f"seen from {number:g} to {number:g}"


@pytest.mark.parametrize(
    ("cell", "is_fraud"),
    [
        *((cell, 1) for cell in ("1", "1.0", "true", "TRUE", " True ", "'1'", "1e0")),
        *((cell, 0) for cell in ("0", "0.0", "false", "0.000000000000000000e+00")),
        *((cell, -1) for cell in ("", " ")),
        *((cell, None) for cell in ("2", "yes", "0.5", "nan", "None", "-1", "10", "t")),
    ],
)
def test_a_truth_is_read_alike_in_every_file(files: Path, cell: str, is_fraud: int | None) -> None:
    found = [imported(path) for path in table(files, {"amount": "5", "Class": cell})]

    assert found == [None if is_fraud is None else (5.0, is_fraud)] * 3


@pytest.mark.parametrize(
    ("cell", "identifier"),
    [("a", "a"), (" a", "a"), ("a ", "a"), (" ", None), ("", None), ("100.0", "100.0"), ("a b", "refused")],
)
def test_an_id_is_read_alike_in_every_file(files: Path, cell: str, identifier: str | None) -> None:
    found: list[str | None] = []
    for path in table(files, {"amount": "5", "Class": "1", "transaction_id": cell}):
        found.append("refused")
        if imported(path) is not None:
            with contextlib.closing(sqlite3.connect(files / "store.db")) as opened:
                (found[-1],) = opened.execute("SELECT transaction_id FROM requests ORDER BY id DESC").fetchone()

    assert found == [identifier] * 3


@pytest.mark.parametrize(("cell", "is_right"), [("TRUE", True), ("0.0", True), ("2", False), ("t", False)])
def test_a_label_is_read_as_the_truth_of_a_transaction(files: Path, cell: str, is_right: bool) -> None:
    unreachable = ApiClient(ClientSettings(api_url="http://127.0.0.1:1", api_token="t"), attempts=1)
    for path in table(files, {"transaction_id": "a", "is_fraud": cell})[:2]:
        expected = (ApiAway, "does not answer") if is_right else (ExpectedError, "column is_fraud: expected 0, 1")
        with unreachable, pytest.raises(expected[0], match=expected[1]):
            label_file(path, unreachable, source="analyst")


@pytest.mark.parametrize(("cell", "is_right"), [("3", True), ("3.0", True), ("-1", False), ("0.5", False), ("", False)])
def test_the_row_of_a_label_is_a_whole_number(files: Path, cell: str, is_right: bool) -> None:
    unreachable = ApiClient(ClientSettings(api_url="http://127.0.0.1:1", api_token="t"), attempts=1)
    for path in table(files, {"request_id": "r", "row": cell, "is_fraud": "1"})[:2]:
        expected = (ApiAway, "does not answer") if is_right else (ExpectedError, "column row: expected the position")
        with unreachable, pytest.raises(expected[0], match=expected[1]):
            label_file(path, unreachable, source="analyst")


TYPED: dict[str, tuple[list[object], list[str | None]]] = {
    "float": ([100.0, 1.5, None], ["100.0", "1.5", None]),
    "short float": ([np.float32(144.05), np.float32(7)], ["144.05", "7.0"]),
    "integer": ([7, 2**62], ["7", str(2**62)]),
    "truth": ([True, False], ["True", "False"]),
    "text": (["'=1", "'-5", "'a'", "''@b", "100.0", "007"], ["'=1", "'-5", "'a'", "''@b", "100.0", "007"]),
}


@pytest.mark.parametrize(
    ("kind", "file"),
    [
        *((kind, file) for kind in TYPED for file in ("a.csv", "a.csv.gz", "a.parquet")),
        *((kind, "a.db") for kind in ("float", "integer", "text")),  # SQLite has no truths and no short floats
    ],
)
def test_an_id_of_any_type_is_the_same_in_every_file(files: Path, kind: str, file: str) -> None:
    cells, identifiers = TYPED[kind]
    frame = pd.DataFrame({"amount": 5.0, "Class": 1, "transaction_id": cells})
    path = files / file
    if file == "a.db":
        with contextlib.closing(sqlite3.connect(path)) as old, old:
            old.execute("DROP TABLE IF EXISTS requests")
            old.execute("CREATE TABLE requests (amount, Class, transaction_id)")
            old.executemany("INSERT INTO requests VALUES (5, 1, ?)", [(cell,) for cell in cells])
    elif file == "a.parquet":
        frame.to_parquet(path, index=False)
    else:
        frame.to_csv(path, index=False)

    assert imported(path) is not None
    with contextlib.closing(sqlite3.connect(files / "store.db")) as store:
        stored = store.execute("SELECT transaction_id FROM requests ORDER BY id DESC LIMIT ?", (len(cells),)).fetchall()
    assert [identifier for (identifier,) in reversed(stored)] == identifiers


@pytest.mark.parametrize("file", ["a.csv", "a.csv.gz", "a.parquet"])
def test_a_time_of_a_label_is_a_date_at_midnight_in_every_file(files: Path, file: str) -> None:
    frame = pd.DataFrame(
        {
            "transaction_id": ["a", "b"],
            "is_fraud": 1,
            "reported_at": pd.to_datetime(["2026-08-22", "2026-08-23"]),
            "source": "analyst",
        }
    )
    noon = frame.assign(reported_at=pd.to_datetime(["2026-08-22 00:00", "2026-08-22 12:00"]))
    path = files / file
    said = []
    for each in (frame, noon):
        each.to_parquet(path, index=False) if file == "a.parquet" else each.to_csv(path, index=False)
        said += [label["reported_at"] for _, label in _read(path, "analyst")[0]]

    assert said == ["2026-08-22", "2026-08-23", "2026-08-22", "2026-08-22T12:00:00.000000Z"]
