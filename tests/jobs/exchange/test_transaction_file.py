"""Transactions are read in every supported layout, and a bad cell is named by its place."""

import gzip
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from fraud_detection.features import Feature, FeatureList, default_features
from fraud_detection.model.manifest import AmountScaling
from jobs.exchange.table import CHUNK_ROWS, BadTransactionFile
from jobs.exchange.transaction_file import Page, amount_scaling_of, pages, read_layout

TWO = FeatureList((Feature("amount", minimum=0, maximum=100), Feature("age_days")))
PUBLIC_HEADER = ",".join(["Time", *(f"V{number}" for number in range(1, 29)), "Amount", "Class"])
COMPONENTS = ",".join(["0.5"] * 28)


def written(folder: Path, *lines: str, name: str = "history.csv") -> Path:
    path = folder / name
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def read(path: Path, features: FeatureList, scaling: AmountScaling | None = None, *, strict: bool = True) -> list[Page]:
    start = datetime(2026, 1, 1, tzinfo=UTC)
    return list(pages(path, features, read_layout(path, features, strict=strict), scaling=scaling, start=start))


def test_reads_the_public_layout_and_scales_its_amount(tmp_path: Path) -> None:
    path = written(tmp_path, PUBLIC_HEADER, f"0,{COMPONENTS},10,'0'", f'1e+01,{COMPONENTS},30,"1"')
    layout = read_layout(path, default_features())

    scaling = amount_scaling_of(path, layout)
    (page,) = read(path, default_features(), scaling)

    assert scaling == AmountScaling(20, 10)
    assert page.matrix[:, -1].tolist() == [-1, 1]
    assert page.matrix[:, 0].tolist() == [0.5, 0.5]
    assert page.is_fraud == [False, True]
    assert page.ts == ["2026-01-01 00:00:00.000000", "2026-01-01 00:00:10.000000"]
    assert page.transaction_ids == [None, None]


def test_reads_a_scaled_amount_as_it_is(tmp_path: Path) -> None:
    path = written(tmp_path, PUBLIC_HEADER.replace("Amount", "Amount_scaled"), f"0,{COMPONENTS},1.5,0")

    (page,) = read(path, default_features())

    assert page.matrix[0, -1] == 1.5


def test_an_amount_beyond_its_bounds_is_refused_with_what_an_importer_can_do(tmp_path: Path) -> None:
    scaled = written(tmp_path, PUBLIC_HEADER.replace("Amount", "Amount_scaled"), f"0,{COMPONENTS},5000,0")
    plain = written(tmp_path, PUBLIC_HEADER, f"0,{COMPONENTS},10,0", f"0,{COMPONENTS},9000,0", name="plain.csv")

    with pytest.raises(BadTransactionFile) as unscaled:
        read(scaled, default_features())
    with pytest.raises(BadTransactionFile) as too_large:
        read(plain, default_features(), AmountScaling(20, 10))

    assert str(unscaled.value).startswith(
        f"{scaled}, line 2: feature Amount_scaled: expected a finite number from -3.6 to 782.4. If it is in units of "
        "the currency, name the column Amount in place of Amount_scaled, and the import scales it. If the value is "
    )
    assert str(too_large.value).startswith(
        f"{plain}, line 3: column Amount: expected a finite number from -16 to 7844, which is Amount_scaled from -3.6 "
        "to 782.4. If the value is right, set FEATURES_FILE"
    )


def test_a_negative_amount_is_scaled_like_any_other(tmp_path: Path) -> None:
    refunds = written(tmp_path, PUBLIC_HEADER, f"0,{COMPONENTS},-16,0", f"0,{COMPONENTS},-0.5,0")
    beyond = written(tmp_path, PUBLIC_HEADER, f"0,{COMPONENTS},-16.5,0", name="beyond.csv")

    (page,) = read(refunds, default_features(), AmountScaling(20, 10))

    assert page.matrix[:, -1].tolist() == [-3.6, -2.05]
    with pytest.raises(BadTransactionFile, match="column Amount: expected a finite number from -16 to 7844"):
        read(beyond, default_features(), AmountScaling(20, 10))


def test_reads_an_installations_own_features_in_any_order(tmp_path: Path) -> None:
    path = written(
        tmp_path,
        '\ufeff"age_days", "transaction_id","amount","Class","ts"',
        "7,a,12.5,true,2026-08-22T10:15:30+02:00",
        "",
        "8,,13.5,,2026-08-22 10:15:31.5",
    )

    (page,) = read(path, TWO)

    assert page.matrix.tolist() == [[12.5, 7], [13.5, 8]]
    assert page.is_fraud == [True, None]
    assert page.transaction_ids == ["a", None]
    assert page.ts == ["2026-08-22 08:15:30.000000", "2026-08-22 10:15:31.500000"]
    assert page.lines == [2, 4]


def test_rows_without_a_time_are_a_second_apart(tmp_path: Path) -> None:
    path = written(tmp_path, "amount,age_days,Class", "1,2,0", "1,2,0")

    (page,) = read(path, TWO)

    assert page.ts == ["2026-01-01 00:00:00.000000", "2026-01-01 00:00:01.000000"]


def test_a_feature_called_time_is_no_time(tmp_path: Path) -> None:
    features = FeatureList((Feature("Time"),))
    path = written(tmp_path, "Time,Class", "86400,0")

    (page,) = read(path, features)

    assert page.matrix.tolist() == [[86400]]
    assert page.ts == ["2026-01-01 00:00:00.000000"]


def test_reads_gzip_a_page_at_a_time(tmp_path: Path) -> None:
    path = tmp_path / "history.csv.gz"
    rows = CHUNK_ROWS + 5
    with gzip.open(path, "wt", encoding="utf-8") as file:
        file.write("amount,age_days,Class\n" + "".join(f"{row % 100},{row},0\n" for row in range(rows)))

    read_pages = read(path, TWO)

    assert [len(page.lines) for page in read_pages] == [CHUNK_ROWS, 5]
    assert np.vstack([page.matrix for page in read_pages])[:, 1].tolist() == list(range(rows))
    assert read_pages[-1].lines[-1] == rows + 1
    assert read_pages[-1].bytes_read == path.stat().st_size


def test_a_file_to_be_scored_may_hold_other_columns_and_no_truth(tmp_path: Path) -> None:
    path = written(tmp_path, "amount,shop,age_days", "1,corner,2")

    (page,) = read(path, TWO, strict=False)

    assert page.is_fraud == [None]


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["amount;age_days;Class"], "line 1: expected a header line with commas .* amount is missing"),
        ([""], "line 1: expected a header"),
        (["amount,age_days,shop,Class,shop"], "line 1: a column name appears twice: 'shop'$"),
        (["amount,age_days,amount,Class"], "line 1: a column name appears twice: 'amount'$"),
        (
            ["amount,age_days,Class,,", "1,2,0,,"],
            "line 1: columns 4, 5 have no name .commas at the ends of lines[?]. .*`--ignore ''`$",
        ),
        (
            [",amount,age_days,Class"],
            "line 1: column 1 has no name .an index that pandas wrote[?]. .*`--ignore ''`",
        ),
        (["amount,age_days,Unnamed: 0,Class"], "would be dropped; to drop it, add `--ignore 'Unnamed: 0'`"),
        (["amount,age_days,Class,ts", "1,2,0,20230808120000Z"], "line 2: column ts: expected a time such as"),
        (["amount,age_days,Class,ts", "1,2,0,9999-12-31T23:00:00-02:00"], "line 2: column ts: expected a time such"),
        (["amount,age_days,class"], "line 1: expected a column Class .*, got class; rename it$"),
        (["amount,age_days"], "line 1: expected a column Class .* `fraudctl score`"),
        (["amount,age_days,shop,Class"], "line 1: column 'shop' is neither a feature nor Class, .*`--ignore shop`"),
        (["amount,age_days,Class"], "holds no transactions"),
        (["amount,age_days,Class", "1,2,0", "1,2"], "line 3: expected 3 columns, got 2"),
        (["amount,age_days,Class", "1,2,0", "1,x,0"], "line 3: column age_days: expected a number"),
        (["amount,age_days,Class", "1,,0"], "line 2: column age_days: expected a number"),
        (["amount,age_days,Class", "1,2,0", "101,2,0"], "line 3: feature amount: expected a finite number from 0"),
        (["amount,age_days,Class", "1,nan,0"], "line 2: feature age_days: expected a finite number"),
        (["amount,age_days,Class", "1,1e999,0"], "line 2: feature age_days: expected a finite number"),
        (["amount,age_days,Class", "1,2,2"], "line 2: column Class: expected 0, 1 or nothing"),
        (["amount,age_days,Class,ts", "1,2,0,yesterday"], "line 2: column ts: expected a time such as"),
        (["amount,age_days,Class,Time", "1,2,0,noon"], "line 2: column Time: expected a number of seconds"),
        (["amount,age_days,Class,Time", "1,2,0,1e30"], "line 2: column Time: expected a number of seconds"),
        (["amount,age_days,Class,transaction_id", "1,2,0,a b"], "line 2: column transaction_id: expected 1 to 128"),
        (["amount,age_days,Class", "1,2,0\0"], "line 2: column Class|cannot be read as CSV"),
    ],
)
def test_names_what_is_wrong_and_where(tmp_path: Path, lines: list[str], message: str) -> None:
    with pytest.raises(BadTransactionFile, match=message):
        read(written(tmp_path, *lines), TWO)


def test_a_column_is_dropped_only_on_request(tmp_path: Path) -> None:
    path = written(tmp_path, ",amount,age_days,shop,Class,,", "7,1,2,corner,0,,", "8,3,4,mall,1,,")

    layout = read_layout(path, TWO, ignored=("shop", ""))
    (page,) = pages(path, TWO, layout)

    assert layout.feature_places == (1, 2)
    assert page.matrix.tolist() == [[1, 2], [3, 4]]
    assert read_layout(path, TWO, strict=False) == layout


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.csv", b"amount,age_days,Class\n\xff\xfe,1,0\n", "is not UTF-8 text"),
        ("a.csv.gz", b"no gzip", "cannot be read as CSV"),
        # A fixed time in the gzip header: the current one would give the test another name in each process.
        ("a.csv.gz", gzip.compress(b"amount,age_days,Class\n" * 100, mtime=0)[:30], "cannot be read as CSV"),
        ("a.csv.gz", gzip.compress(b"", mtime=0)[:10] + b"\xff" * 20, "cannot be read as CSV .*invalid block type"),
    ],
)
def test_a_file_of_another_kind_is_refused(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(content)

    with pytest.raises(BadTransactionFile, match=message):
        read(tmp_path / name, TWO)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(BadTransactionFile, match=r"missing\.csv: cannot be read \(No such file"):
        read(tmp_path / "missing.csv", TWO)


def test_amounts_that_never_differ_teach_no_scaling(tmp_path: Path) -> None:
    path = written(tmp_path, PUBLIC_HEADER, f"0,{COMPONENTS},10,0", f"0,{COMPONENTS},nan,0", f"0,{COMPONENTS},x,0")

    with pytest.raises(BadTransactionFile, match="expected amounts that differ"):
        amount_scaling_of(path, read_layout(path, default_features()))


def test_unusual_lines_are_read_as_the_usual_ones_are(tmp_path: Path) -> None:
    rows = [f"{row % 100},{row / 7},{row},{row % 2}" for row in range(2500)]
    header = "amount,age_days,Time,Class"
    usual = read(written(tmp_path, header, *rows, name="usual.csv"), TWO)
    rows[700] = '"0", 100.0 ,700,"0"'
    rows[1200] = rows[1200][:-1] + "false"
    unusual = read(written(tmp_path, header, *rows, name="unusual.csv"), TWO)

    assert len(unusual) == len(usual) == 3
    for one, other in zip(usual, unusual, strict=True):
        assert np.array_equal(one.matrix, other.matrix)
        assert (one.lines, one.ts, one.is_fraud) == (other.lines, other.ts, other.is_fraud)


def test_blank_lines_count_as_lines_and_not_as_rows(tmp_path: Path) -> None:
    blank = [""] * CHUNK_ROWS
    path = written(tmp_path, "amount,age_days,Class", "1,2,0", "", "3,4,1", *blank, "5,6,0", "7,8,2")

    with pytest.raises(BadTransactionFile, match=rf"line {CHUNK_ROWS + 6}: column Class"):
        read(path, TWO)

    path.write_text(path.read_text().replace("7,8,2\n", ""))
    assert [page.lines for page in read(path, TWO)] == [[2, 4], [CHUNK_ROWS + 5]]


def test_classes_may_be_written_as_numpy_writes_numbers(tmp_path: Path) -> None:
    path = written(tmp_path, "amount,age_days,Class", "1,2,1.000000e+00", "1,2,0e0", "1,2,")

    (page,) = read(path, TWO)

    assert page.is_fraud == [True, False, None]


def test_parquet_says_row_and_column(tmp_path: Path) -> None:
    path = tmp_path / "history.parquet"
    columns = {"amount": [1.0, 101.0], "age_days": [1, None], "Class": [True, None]}
    pq.write_table(pa.table(columns), path)

    with pytest.raises(BadTransactionFile, match=r"history\.parquet, row 2: column age_days: expected a number"):
        read(path, TWO)

    pq.write_table(pa.table(columns | {"age_days": [1, 2]}), path)
    with pytest.raises(BadTransactionFile, match=r"row 2: feature amount: expected a finite number from 0"):
        read(path, TWO)

    pq.write_table(pa.table({"amount": [1.0]}), path)
    with pytest.raises(
        BadTransactionFile, match=r"history\.parquet: expected a column for every feature, age_days is m"
    ):
        read(path, TWO)
