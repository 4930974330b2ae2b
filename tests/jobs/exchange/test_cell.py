"""A cell is read alike in every kind of file and by every command."""

import contextlib
import csv
import sqlite3
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from fraud_detection.exit_codes import ExpectedError
from fraud_detection.features import Feature, FeatureList
from fraud_detection.settings import ClientSettings, JobSettings
from jobs.exchange.api_client import ApiAway, ApiClient
from jobs.exchange.feature_file import feature_list_of
from jobs.exchange.import_db import import_db
from jobs.exchange.import_file import import_file
from jobs.exchange.label_file import label_file
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
                feature_list_of(path)
        else:
            assert next(pages(path, ONE, read_layout(path, ONE, strict=False))).matrix.tolist() == [[number]]
            assert feature_list_of(path).features[0].description == f"seen from {number:g} to {number:g}"


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
