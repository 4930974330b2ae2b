"""CSV and Parquet are read exactly: numbers as float() reads them, texts unchanged."""

import bz2
import contextlib
import csv
import decimal
import gzip
import io
import lzma
import random
import sqlite3
import struct
import tracemalloc
import zipfile
from collections.abc import Callable
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from jobs.exchange import parquet_table, table
from jobs.exchange.read_table import open_table
from jobs.exchange.table import CHUNK_ROWS, MAX_CELL, MAX_LINE, BadTransactionFile, Chunk

DOUBLES = 10_000


def read(path: Path, numbers: list[int], texts: list[int]) -> list[Chunk]:
    with open_table(path) as opened:
        return list(opened.chunks(numbers, texts))


def texts_of(path: Path, place: int = 0) -> list[str]:
    return [text for chunk in read(path, [], [place]) for text in chunk.texts[0]]


def numbers_of(path: Path, place: int = 0) -> np.ndarray[Any, np.dtype[np.float64]]:
    return np.concatenate([chunk.numbers[:, 0] for chunk in read(path, [place], [])])


def csv_file(folder: Path, *lines: str) -> Path:
    path = folder / "table.csv"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8", newline="")
    return path


def parquet_file(folder: Path, **columns: Any) -> Path:
    path = folder / "table.parquet"
    pq.write_table(pa.table(columns), path)
    return path


def random_doubles() -> list[float]:
    """Return doubles, half of any size and half of the size of a feature."""
    chance = random.Random(7)  # noqa: S311  the same numbers in every run
    any_bits = (struct.unpack("<d", struct.pack("<Q", chance.getrandbits(64)))[0] for _ in range(2 * DOUBLES))
    finite = [value for value in any_bits if np.isfinite(value)]
    return finite[: DOUBLES // 2] + [chance.gauss(0, 100) for _ in range(DOUBLES // 2)]


# -- CSV: as the csv module and float() read it ----------------------------------------------------------------------


def test_csv_numbers_are_those_of_float_to_the_last_bit(tmp_path: Path) -> None:
    written = [f"{value:.17g}" for value in random_doubles()]

    found = numbers_of(csv_file(tmp_path, "x,y", *(f"{text},0" for text in written)))

    assert len(found) == DOUBLES
    assert found.tobytes() == np.array([float(text) for text in written]).tobytes()


def test_csv_numbers_of_the_real_sample_are_those_of_float_to_the_last_bit(real_data: Path) -> None:
    with gzip.open(real_data, "rt", newline="") as text:
        header, *rows = csv.reader(text)

    found = read(real_data, list(range(len(header))), [])

    expected = np.array([[float(cell) for cell in row] for row in rows])
    assert np.vstack([chunk.numbers for chunk in found]).tobytes() == expected.tobytes()


@pytest.mark.parametrize(
    "text",
    [
        *("1e5", "007", "NA", "null", "None", "nan", "1.0", "True", "-", "#N/A", "0x1F", "1_000", "1e400"),
        *("1,5", 'say "no"', "é", "'0'", "2026-08-22", "trailing ", "a\tb", "\tleading", "two\nlines", "a\x1fb"),
    ],
)
def test_csv_texts_stay_as_they_are(tmp_path: Path, text: str) -> None:
    out = io.StringIO()
    csv.writer(out).writerows([["id", "x"], [text, 1], ["", 2], [text, 3]])
    path = tmp_path / "table.csv"
    path.write_text(out.getvalue(), encoding="utf-8", newline="")

    assert texts_of(path) == [text, "", text]


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("1_000", 1000),
        ("\uff11", 1),  # a full-width digit
        (" 1 ", 1),
        ('"1"', 1),
        ("1e999", np.inf),
        ("-inf", -np.inf),
        ("+.5", 0.5),
        ("-0", -0.0),
        ("123456789012345678901234567890", 123456789012345678901234567890.0),
    ],
)
def test_csv_takes_for_a_number_what_float_does(tmp_path: Path, text: str, number: float) -> None:
    assert repr(numbers_of(csv_file(tmp_path, "a,b", "1,0", f"{text},0")).tolist()[1]) == repr(float(number))


@pytest.mark.parametrize("text", ["", "x", "True", "true", "0x1p3", "1 000", "1,", "NA", "1\0", "--1", "1e"])
def test_csv_takes_nothing_else_for_a_number(tmp_path: Path, text: str) -> None:
    path = csv_file(tmp_path, "a,b", *[f'"{text}",0'] * 2)

    (chunk,) = read(path, [0], [])

    assert chunk.unreadable[:, 0].tolist() == [True, True]


@pytest.mark.parametrize("line", ["1", "1,2,3", "1,2,", "1,2,\x1f", "\x1f", '"1,2"', "1;2"])
@pytest.mark.parametrize("before", [1, CHUNK_ROWS, 6 * CHUNK_ROWS], ids=str)
def test_csv_lines_of_another_width_are_refused(tmp_path: Path, line: str, before: int) -> None:
    path = csv_file(tmp_path, "a,b", *["1,2"] * before, line, "1,2")

    with pytest.raises(BadTransactionFile, match=rf"line {before + 2}: expected 2 columns, got [13]"):
        read(path, [0], [1])


def test_csv_fields_in_quotes_may_end_in_a_later_block(tmp_path: Path) -> None:
    rows = [f'{row},"{row}"' for row in range(5 * CHUNK_ROWS + 10)]
    rows[5 * CHUNK_ROWS - 1] = '4999,"two\r\nlines\n\nand more"'
    path = csv_file(tmp_path, "a,b", *rows)

    chunks = read(path, [0], [1])

    assert np.concatenate([chunk.numbers[:, 0] for chunk in chunks]).tolist() == list(range(len(rows)))
    lines = [line for chunk in chunks for line in chunk.lines]
    assert lines[5 * CHUNK_ROWS - 2 : 5 * CHUNK_ROWS + 1] == [5000, 5004, 5005]
    assert texts_of(path, 1)[5 * CHUNK_ROWS - 1] == "two\r\nlines\n\nand more"


def _as_csv_reads_it(content: str) -> object:
    reader = csv.reader(io.StringIO(content, newline=""), skipinitialspace=True)
    header = next(reader, [])
    rows = []
    for row in reader:
        if row and len(row) != len(header):
            return f"line {reader.line_num}"
        if row:
            rows.append((reader.line_num, row))
    return rows


def test_csv_is_read_as_the_csv_module_reads_it_whatever_it_holds(tmp_path: Path) -> None:
    chance = random.Random(1)  # noqa: S311  the same files in every run
    path = tmp_path / "table.csv"
    ragged = 0
    for _ in range(1500):
        content = "a,b\n" + "".join(chance.choices(['"', ",", "\n", "\r", " ", "\t", "x", "1,2\n", '"3",4\r\n'], k=12))
        path.write_text(content, encoding="utf-8", newline="")
        expected = _as_csv_reads_it(content)
        try:
            found: object = [
                (line, list(row))
                for chunk in read(path, [], [0, 1])
                for line, *row in zip(chunk.lines, *chunk.texts, strict=True)
            ]
        except BadTransactionFile as error:
            ragged += 1
            found = str(error).split(", ")[1].split(":")[0]
        assert found == expected, content
    assert 100 < ragged < 1400  # both outcomes were tried


def zipped(name: str) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr(name, "a\n1\n")
    return file.getvalue()


def sqlite_bytes(folder: Path) -> bytes:
    with contextlib.closing(sqlite3.connect(folder / "t.db")) as connection:
        connection.execute("CREATE TABLE requests (a)")
    return (folder / "t.db").read_bytes()


@pytest.mark.parametrize("pack", [bytes, gzip.compress], ids=["plain", "in gzip"])
@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("naïve,b\n1,2\n".encode("utf-16"), "is UTF-16 text; save it as UTF-8, .*`iconv -f UTF-16 -t UTF-8`"),
        ("naïve,b\n1,2\n".encode("utf-16-be"), "is UTF-16 text; save it as UTF-8"),
        ("naïve,b\n1,2\n".encode("utf-32"), "is UTF-32 text; save it as UTF-8"),
        ("naïve,b\n1,2\n".encode("latin-1"), "is not UTF-8 text .*perhaps Latin-1 .*`iconv -f WINDOWS-1252"),
        (zipped("table.csv"), "is a ZIP archive; unpack it, and import what it holds"),
        (zipped("xl/workbook.xml"), r"is a spreadsheet; open it and save it as CSV \(UTF-8\)"),
        (b"\xef\xbb\xbf\xef\xbb\xbfa,b\n1,2\n", "begins with two byte order marks; save it as UTF-8 with one or none"),
        (bz2.compress(b"a,b\n1,2\n"), "is packed with bzip2; unpack it"),
        (lzma.compress(b"a,b\n1,2\n"), "is packed with xz; unpack it"),
    ],
    ids=["utf-16", "utf-16 without a mark", "utf-32", "latin-1", "zip", "xlsx", "two marks", "bzip2", "xz"],
)
def test_what_is_no_table_is_called_what_it_is(
    tmp_path: Path, content: bytes, message: str, pack: Callable[[bytes], bytes]
) -> None:
    (tmp_path / "table.csv").write_bytes(pack(content))

    with pytest.raises(BadTransactionFile, match=rf"table\.csv: {message}"):
        read(tmp_path / "table.csv", [0], [1])


def test_a_database_and_packed_parquet_are_called_what_they_are(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes(sqlite_bytes(tmp_path))
    (tmp_path / "b.parquet.gz").write_bytes(gzip.compress(parquet_file(tmp_path, x=[1]).read_bytes()))

    with pytest.raises(BadTransactionFile, match=r"is an SQLite database; .* with `fraudctl import-db`"):
        read(tmp_path / "a.csv", [0], [])
    with pytest.raises(BadTransactionFile, match="is a Parquet file inside gzip; unpack it"):
        read(tmp_path / "b.parquet.gz", [0], [])


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.parquet", b"a,b\n1,2\n", r"\(it begins otherwise\); if it is CSV, rename it to \.csv, or"),
        ("a.parquet", gzip.compress(b"a,b\n1,2\n"), r"or to \.csv\.gz if it is gzipped"),
        ("a.parquet", b"PAR1 cut off", "copy it once more, or write it as CSV"),
        (
            "a.csv.gz",
            gzip.compress(b"a,b\n1,2\n") + b"more",
            "expected gzipped CSV, not .* followed by other bytes; copy",
        ),
        (
            "a.csv.gz",
            gzip.compress(b"a,b\n1,2\n")[:-4],
            "expected gzipped CSV, not damaged, cut off or .*; copy it once",
        ),
        ("a.csv.gz", b"a,b\n1,2\n", r"or rename it to \.csv if it is not gzipped"),
    ],
    ids=["csv", "gzipped csv", "cut off parquet", "gzip and more", "cut off gzip", "no gzip"],
)
def test_a_file_that_is_not_what_its_name_says_names_the_next_step(
    tmp_path: Path, name: str, content: bytes, message: str
) -> None:
    (tmp_path / name).write_bytes(content)

    with pytest.raises(BadTransactionFile, match=rf"{name}: cannot be read as .*{message}"):
        read(tmp_path / name, [0], [])


def test_gzipped_files_one_after_the_other_are_one_table(tmp_path: Path) -> None:
    (tmp_path / "a.csv.gz").write_bytes(gzip.compress(b"a\n1\n2") + gzip.compress(b"5\n3\n"))

    assert numbers_of(tmp_path / "a.csv.gz").tolist() == [1, 25, 3]


def test_parquet_is_read_whatever_its_name(tmp_path: Path) -> None:
    path = parquet_file(tmp_path, x=[2.5]).rename(tmp_path / "table.csv")

    assert numbers_of(path).tolist() == [2.5]


def test_gzip_is_read_whatever_its_name(tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    path.write_bytes(gzip.compress(b"\xef\xbb\xbfa\r\n1\r\n"))

    assert numbers_of(path).tolist() == [1]


@pytest.mark.parametrize("name", ["table.csv.gz", "TABLE.CSV.GZ"])
def test_a_file_that_is_packed_by_its_name_alone_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"a\n1\n")

    with pytest.raises(BadTransactionFile, match=rf"{name}: cannot be read as CSV \(Not a gzipped file"):
        read(tmp_path / name, [0], [])


@pytest.mark.parametrize("before", [1, CHUNK_ROWS + 1], ids=str)
@pytest.mark.parametrize(
    ("row", "message"),
    [
        (f"1,{'x' * MAX_CELL}y", "column b: expected at most 4,096 characters, got 4,097"),
        (f'1,"{"x," * (MAX_CELL // 2)}y"', "column b: expected at most 4,096 characters, got 4,097"),
        (f"1,{'x' * MAX_LINE}", "expected a row of at most 1,048,576 characters"),
        ('1,"' + "x\n" * (MAX_LINE // 2), "expected a row of at most .*perhaps a quote that begins here has no end"),
        ('1,"\n"' + ',"\n"' * (MAX_LINE // 4), "expected a row of at most .* characters"),
    ],
    ids=["a cell", "a cell in quotes", "a line", "a cell of many lines", "a row of many lines"],
)
def test_a_row_is_read_only_so_far(tmp_path: Path, before: int, row: str, message: str) -> None:
    path = csv_file(tmp_path, "a,b", *["1,2"] * before, row, "1,2")

    with pytest.raises(BadTransactionFile, match=rf"table\.csv, line {before + 2}: {message}"):
        read(path, [0], [1])


def test_a_header_is_read_only_so_far(tmp_path: Path) -> None:
    with pytest.raises(BadTransactionFile, match="line 1: expected a row of at most"):
        read(csv_file(tmp_path, "x" * (MAX_LINE + 1)), [0], [])
    with pytest.raises(BadTransactionFile, match="line 1: column 2: expected at most 4,096 characters"):
        read(csv_file(tmp_path, "a," + "x" * (MAX_CELL + 1)), [0], [])


def test_a_line_without_end_takes_no_memory(tmp_path: Path) -> None:
    path = tmp_path / "table.csv.gz"
    path.write_bytes(gzip.compress(b"a,b\n1," + b"0" * 64 * MAX_LINE))
    tracemalloc.start()
    try:
        with pytest.raises(BadTransactionFile, match="line 2: expected a row of at most"):
            read(path, [0], [1])
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert peak < 32 * MAX_LINE


def test_the_longest_cells_and_lines_are_read(tmp_path: Path) -> None:
    cells = ["x" * MAX_CELL] * 20
    path = csv_file(
        tmp_path, ",".join(["n", *(f"c{place}" for place in range(20))]), *[",".join(["2.5", *cells])] * 150
    )

    chunks = read(path, [0], [20])

    assert np.concatenate([chunk.numbers[:, 0] for chunk in chunks]).tolist() == [2.5] * 150
    assert {text for chunk in chunks for text in chunk.texts[0]} == {cells[0]}
    assert len(chunks) == 2  # a block ends where it holds enough characters


@pytest.mark.parametrize("line", [b"\n", b"1,2\n", b'"1",2\n'])
def test_a_file_that_unpacks_to_far_more_than_its_size_is_refused(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, line: bytes
) -> None:
    path = tmp_path / "table.csv.gz"
    path.write_bytes(gzip.compress(b"a,b\n" + line * 100_000))
    monkeypatch.setattr(table, "UNPACKED_BYTES", 1000)

    with pytest.raises(BadTransactionFile, match=r"table\.csv\.gz: unpacks to more than 100 times its size"):
        read(path, [0], [1])


# -- Parquet ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("column", "numbers"),
    [
        (pa.array([0.1 + 0.2, 5e-324, -0.0]), [0.1 + 0.2, 5e-324, -0.0]),
        (pa.array([0.1, 2, 144.05, 1e-40, -0.0, 3e38], pa.float32()), [0.1, 2, 144.05, 1e-40, -0.0, 3e38]),
        (pa.array([np.float16(0.1), np.float16(-60000)], pa.float16()), [0.1, -60000]),
        (pa.array([144.05, 144.05], pa.float32()).dictionary_encode(), [144.05, 144.05]),
        (pa.array([1, -(2**62) - 1]), [1, float(-(2**62) - 1)]),
        (pa.array([2**64 - 1], pa.uint64()), [float(2**64 - 1)]),
        (pa.array([decimal.Decimal("0.1"), decimal.Decimal("12345678901234567.89")]), [0.1, 12345678901234567.89]),
        (pa.array([1.5, 2.5, 1.5]).dictionary_encode(), [1.5, 2.5, 1.5]),
        (pa.array(["0.1", " 1e5 ", "-0"]), [0.1, 1e5, -0.0]),
        (pa.array(["2.5", "7"], pa.large_string()).dictionary_encode(), [2.5, 7]),
    ],
    ids=[
        *("float64", "float32", "float16", "dictionary of float32", "int64", "uint64", "decimal"),
        *("dictionary", "string", "dictionary of strings"),
    ],
)
def test_parquet_numbers_are_the_nearest_float64(tmp_path: Path, column: Any, numbers: list[float]) -> None:
    assert repr(numbers_of(parquet_file(tmp_path, x=column)).tolist()) == repr([float(number) for number in numbers])


@pytest.mark.parametrize(
    ("column", "texts"),
    [
        (pa.array(["007", "NA", "", None, "1e5"]), ["007", "NA", "", "", "1e5"]),
        (pa.array(["a"], pa.large_string()), ["a"]),
        (pa.array(["a"], pa.string_view()), ["a"]),
        (pa.array(["a", "b", None, "a"]).dictionary_encode(), ["a", "b", "", "a"]),
        (pa.array([7, None, 2**62 + 1]), ["7", "", str(2**62 + 1)]),
        (pa.array([True, None, False]), ["True", "", "False"]),
        (pa.array([1.0, None, 1.5]), ["1.0", "", "1.5"]),
        (pa.array([7, None, 144.05], pa.float32()), ["7.0", "", "144.05"]),
        (pa.array([decimal.Decimal(7), None]), ["7", ""]),
        (pa.nulls(2), ["", ""]),
        (pa.array([date(2026, 8, 22), None]), ["2026-08-22", ""]),
        (pa.array([datetime(2026, 8, 22, 10, 15, 30, 5)]), ["2026-08-22 10:15:30.000005+00:00"]),  # noqa: DTZ001
        (
            pa.array([datetime(2026, 8, 22, 10, tzinfo=UTC)], pa.timestamp("s", "Europe/Berlin")),
            ["2026-08-22 10:00:00+00:00"],
        ),
        (
            pa.array([-1, None], pa.int64()).cast(pa.timestamp("ns")),
            ["1969-12-31 23:59:59.999999+00:00", ""],
        ),
        (
            pa.array([-(2**63), 2**63 - 1]).cast(pa.timestamp("ns")),
            ["1677-09-21 00:12:43.145224+00:00", "2262-04-11 23:47:16.854775+00:00"],
        ),
        (pa.array([date(1, 1, 1), date(9999, 12, 31)]), ["0001-01-01", "9999-12-31"]),
        (pa.array([date(2026, 8, 22)], pa.date64()), ["2026-08-22"]),
    ],
)
def test_parquet_texts_are_what_a_csv_file_would_hold(tmp_path: Path, column: Any, texts: list[str]) -> None:
    assert texts_of(parquet_file(tmp_path, x=column)) == texts


@pytest.mark.parametrize(
    ("count", "kind"),
    [
        (18446744073710, pa.timestamp("s")),  # as microseconds beyond int64, where it would wrap around to 1970
        (18446744073710, pa.timestamp("s", "UTC")),
        (18446744073709552, pa.timestamp("ms")),
        (2**61, pa.timestamp("us")),
        (2**31 - 1, pa.date32()),
    ],
    ids=str,
)
def test_parquet_times_beyond_the_calendar_are_refused_by_row_and_column(
    tmp_path: Path, count: int, kind: pa.DataType
) -> None:
    counts = pa.array([0, count], pa.int32() if kind == pa.date32() else pa.int64())
    path = parquet_file(tmp_path, when=counts.cast(kind))

    with pytest.raises(BadTransactionFile, match=r"row 2: column when: expected a text, a whole number or a time$"):
        read(path, [], [0])


@pytest.mark.parametrize(
    ("column", "kind", "message"),
    [
        (pa.array([True]), "number", "column x: expected numbers, the file holds bool"),
        (pa.array([[1.0]]), "number", "column x: expected numbers, the file holds list<"),
        (pa.array([{"y": 1}]), "text", "column x: expected text, whole numbers or times, the file holds struct<"),
        (pa.array([b"a"]), "text", "column x: expected text, whole numbers or times, the file holds binary"),
        (pa.array([1.0, np.inf]), "text", "row 2: column x: expected a text, a whole number or a time"),
        (pa.array([1.0, np.nan]), "text", "row 2: column x: expected a text, a whole number or a time"),
        (pa.array([2.0**53]), "text", "row 1: column x: expected a text, a whole number or a time"),
        (pa.array([2**61]).cast(pa.timestamp("us")), "text", "row 1: column x: expected a text, a whole number or a t"),
    ],
)
def test_parquet_columns_of_other_types_are_refused_by_name(
    tmp_path: Path, column: Any, kind: str, message: str
) -> None:
    path = parquet_file(tmp_path, x=column)

    with pytest.raises(BadTransactionFile, match=message):
        read(path, [0] if kind == "number" else [], [0] if kind == "text" else [])


def test_a_parquet_column_that_repeats_is_refused_if_it_is_requested(tmp_path: Path) -> None:
    path = tmp_path / "table.parquet"
    pq.write_table(pa.table([[1], [2], [3], ["b"]], names=["a", "x", "a", "y"]), path)

    assert numbers_of(path, 1).tolist() == [2]
    for place in (0, 2):
        with pytest.raises(BadTransactionFile, match=r"table\.parquet: a column name appears twice: 'a'$"):
            read(path, [1, place], [])
        with pytest.raises(BadTransactionFile, match=r"table\.parquet: a column name appears twice: 'a'$"):
            read(path, [], [3, place])


def test_parquet_cells_without_a_number_are_marked(tmp_path: Path) -> None:
    path = parquet_file(tmp_path, x=[1.0, None, np.nan])

    (chunk,) = read(path, [0], [])

    assert chunk.unreadable[:, 0].tolist() == [False, True, False]  # NaN is a number that no feature takes


def test_single_precision_is_read_alike_from_csv_and_parquet(tmp_path: Path) -> None:
    chance = np.random.default_rng(3)
    frame = pd.DataFrame(
        {"x": [*chance.normal(0, 100, 5000), *np.float32(10.0) ** chance.integers(-44, 39, 999), None]}
    )
    single = frame.astype("float32")
    single.to_csv(tmp_path / "table.csv", index=False, na_rep="nan")
    single.to_parquet(tmp_path / "table.parquet", index=False)

    in_csv, in_parquet = (numbers_of(tmp_path / name) for name in ("table.csv", "table.parquet"))
    assert in_csv.tobytes() == in_parquet.tobytes()


def test_parquet_comes_in_chunks_across_row_groups(tmp_path: Path) -> None:
    rows = 2 * CHUNK_ROWS + 5
    path = tmp_path / "named_otherwise"
    pq.write_table(pa.table({"x": np.arange(rows), "nested": [[1]] * rows}), path, row_group_size=700)

    chunks = read(path, [0], [])

    assert max(len(chunk.lines) for chunk in chunks) <= CHUNK_ROWS
    assert [line for chunk in chunks for line in chunk.lines] == list(range(1, rows + 1))
    assert np.concatenate([chunk.numbers[:, 0] for chunk in chunks]).tolist() == list(range(rows))
    assert chunks[-1].bytes_read == path.stat().st_size


@pytest.mark.parametrize("name", ["table.parquet", "TABLE.PARQUET"])
@pytest.mark.parametrize("content", [b"", b"a,b\n1,2\n", b"PAR1", b"PAR1" + b"\0" * 50 + b"PAR1"])
def test_a_broken_parquet_file_is_refused(tmp_path: Path, content: bytes, name: str) -> None:
    (tmp_path / name).write_bytes(content)

    with pytest.raises(BadTransactionFile, match=rf"{name}: cannot be read as Parquet \("):
        read(tmp_path / name, [0], [])


def test_a_damaged_page_is_found_when_its_writer_added_a_checksum(tmp_path: Path) -> None:
    path = tmp_path / "table.parquet"
    pq.write_table(pa.table({"x": np.random.default_rng(1).normal(size=5000)}), path, write_page_checksum=True)
    content = bytearray(path.read_bytes())
    content[2000] ^= 1
    path.write_bytes(content)

    with pytest.raises(BadTransactionFile, match=r"cannot be read as Parquet .*CRC"):
        read(path, [0], [])


def test_a_text_of_parquet_is_read_only_so_far(tmp_path: Path) -> None:
    path = parquet_file(tmp_path, x=["a", "x" * MAX_CELL], y=["a", "x" * 2_000_000])

    assert texts_of(path)[1] == "x" * MAX_CELL
    with pytest.raises(
        BadTransactionFile, match=r"table\.parquet: column y: expected at most 4,096 characters, got 2,000,000"
    ):
        read(path, [], [0, 1])


def test_the_columns_of_a_row_group_are_bounded_together(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    texts = [f"{number:0>50000}" for number in range(8)]
    path = parquet_file(tmp_path, x=texts, y=texts, z=texts)
    monkeypatch.setattr(parquet_table, "_MAX_COLUMN", 1 << 20)
    monkeypatch.setattr(parquet_table, "_MAX_GROUP", 1 << 20)

    with pytest.raises(BadTransactionFile, match=r"row group 1: 3 columns: expected at most 1 MiB, got 1; write small"):
        read(path, [0, 1], [2])
    with pytest.raises(BadTransactionFile, match=r"column x: expected at most 4,096 characters, got 50,000"):
        read(path, [0], [1])  # columns that are not read do not count


def test_the_texts_of_a_row_group_are_bounded_because_they_take_several_times_their_size(tmp_path: Path) -> None:
    chance = np.random.default_rng(1)
    texts = [chance.bytes(500_000).hex() for _ in range(28)]
    path = parquet_file(tmp_path, x=texts, y=texts, z=texts, n=[1.0] * 28)

    with pytest.raises(
        BadTransactionFile, match=r"row group 1: 3 columns of text: expected at most 80 MiB, got 80; write smaller"
    ):
        read(path, [3], [0, 1, 2])
    with pytest.raises(BadTransactionFile, match="column x: expected at most 4,096 characters"):
        read(path, [3], [0, 1])


def test_parquet_loads_one_row_group_at_a_time(tmp_path: Path) -> None:
    path = tmp_path / "table.parquet"
    pq.write_table(pa.table({"x": ["a", *(f"{number:0>1000000}" for number in range(20))]}), path, row_group_size=1)

    before = pa.total_allocated_bytes()
    with open_table(path) as opened:
        chunks = opened.chunks([], [0])
        assert next(chunks).texts == [["a"]]
        assert pa.total_allocated_bytes() - before < 5_000_000
        with pytest.raises(BadTransactionFile, match=r"expected at most 4,096 characters, got 1,000,000"):
            next(chunks)


def test_parquet_that_unpacks_to_far_more_than_its_size_is_refused(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    path = parquet_file(tmp_path, x=np.zeros(300_000), y=np.random.default_rng(1).normal(size=300_000))
    monkeypatch.setattr(parquet_table, "_MAX_COLUMN", 1 << 20)

    with pytest.raises(
        BadTransactionFile, match=r"row group 1: column y: expected at most 1 MiB, got \d+; write smaller"
    ):
        read(path, [0, 1], [])
    monkeypatch.setattr(table, "UNPACKED_BYTES", 1000)
    monkeypatch.setattr(parquet_table, "_TIMES", 100)
    path = parquet_file(tmp_path, x=np.zeros(300_000))
    with pytest.raises(BadTransactionFile, match=r"table\.parquet: unpacks to more than 100 times its size"):
        read(path, [0], [])
