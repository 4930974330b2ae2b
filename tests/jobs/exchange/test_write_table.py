"""Tables are written in order, with the same values in CSV and Parquet."""

import csv
import io
from collections.abc import Sequence
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from jobs.exchange.read_table import open_table
from jobs.exchange.write_table import TableWriter

COLUMNS = {"id": str, "row": int, "score": float}
ROWS: list[Sequence[object]] = [
    ("007", 1, 0.1 + 0.2),
    ("NA", 0, 5e-324),
    (None, None, None),
    ('b,"c"', 2**53 + 1, -0.0),
    ("two\nlines", 3, 1e22),
    ("é", 4, 100.0),
]


def test_csv_is_what_the_csv_module_writes() -> None:
    out, expected = io.StringIO(), io.StringIO()
    csv.writer(expected).writerows([list(COLUMNS), *ROWS])

    with TableWriter(out, COLUMNS) as table:
        for row in ROWS:
            table.add(row)

    assert out.getvalue() == expected.getvalue()


def test_parquet_holds_the_same_values_with_their_types() -> None:
    out = io.BytesIO()

    with TableWriter(out, COLUMNS) as table:
        for row in ROWS:
            table.add(row)

    read = pq.read_table(out)
    assert [str(kind) for kind in read.schema.types] == ["string", "int64", "double"]
    assert [tuple(row.values()) for row in read.to_pylist()] == ROWS


def test_more_rows_than_are_held_in_memory_arrive_in_order() -> None:
    out, text = io.BytesIO(), io.StringIO()
    rows = 25_001

    for stream in (out, text):
        with TableWriter(stream, {"x": int, "empty": str}) as table:
            for row in range(rows):
                table.add((row, None))

    read = pq.read_table(out)
    assert read["x"].to_pylist() == list(range(rows))
    assert read["empty"].null_count == rows
    assert len(text.getvalue().splitlines()) == rows + 1


@pytest.mark.parametrize("stream", [io.StringIO, io.BytesIO])
def test_a_table_without_rows_has_its_columns(stream: type[io.StringIO] | type[io.BytesIO]) -> None:
    out = stream()

    with TableWriter(out, COLUMNS):
        pass

    found = out.getvalue() if isinstance(out, io.StringIO) else ",".join(pq.read_schema(out).names)
    assert found.strip() == "id,row,score"


HOSTILE = [
    "=1+1",
    "+cmd",
    "-1+1",
    "@SUM(A1)",
    "\t=1",
    "\r=1",
    "'=1",
    "''@x",
    '=HYPERLINK("http://a","b")',
    "-inf",
    "+1_0",
]
HARMLESS = ["-5", "+4.5e-3", "'quoted'", "a=1", "1-2", "", "'", "-5."]


@pytest.mark.parametrize("hostile", [HOSTILE, HOSTILE[:4]], ids=["all", "those that pandas reads"])
def test_a_spreadsheet_runs_no_cell_and_the_file_is_read_back_equal(tmp_path: Path, hostile: list[str]) -> None:
    path = tmp_path / "table.csv"
    columns = {"id": str, "score": float, "request_id": str, "row": int}
    with path.open("w", newline="", encoding="utf-8") as file, TableWriter(file, columns) as table:
        for text in hostile + HARMLESS:
            table.add((text, -0.5, "r", 0))

    with path.open(newline="", encoding="utf-8") as file:
        _, *written = csv.reader(file)
    with open_table(path) as opened:
        (chunk,) = opened.chunks([1], [0])
    assert [row[0] for row in written] == [f"'{text}" for text in hostile] + HARMLESS
    assert {row[1] for row in written} == {"-0.5"}
    assert chunk.texts[0] == hostile + HARMLESS
    assert set(chunk.numbers[:, 0]) == {-0.5}


def test_parquet_holds_a_text_as_it_is() -> None:
    out = io.BytesIO()

    with TableWriter(out, {"id": str}) as table:
        table.add(("=1+1",))

    assert pq.read_table(out)["id"].to_pylist() == ["=1+1"]
