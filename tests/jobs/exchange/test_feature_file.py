"""A feature list can be written from the columns of a file."""

import re
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from fraud_detection.features import Feature, load_features
from jobs.exchange.feature_file import draft_of, to_json
from jobs.exchange.table import BadTransactionFile


def written(folder: Path, *lines: str) -> Path:
    path = folder / "history.csv"
    path.write_text("\n".join(lines) + "\n")
    return path


def test_names_from_the_header_and_generous_bounds_from_the_values(tmp_path: Path) -> None:
    lines = ["ts,amount,balance,shop,constant,Class", "2026-01-01,1,-10,corner,5,0", "", "2026-01-02,101,10,corner,5,1"]

    features = draft_of(written(tmp_path, *lines), left_out=("shop",)).features

    assert [(each.name, each.minimum, each.maximum) for each in features.features] == [
        ("amount", 0, 1200),
        ("balance", -210, 210),
        ("constant", 0, 55),
    ]
    assert features.features[1].description == "seen from -10 to 10"


def test_what_is_written_is_a_features_file(tmp_path: Path) -> None:
    features = draft_of(written(tmp_path, "amount,age_days", "1,2", "0,-9e8")).features
    (tmp_path / "features.json").write_text(to_json(features))

    assert load_features(tmp_path / "features.json") == features
    assert features.features[1].minimum == -1e9


def test_reads_files_of_any_length(tmp_path: Path) -> None:
    features = draft_of(written(tmp_path, "amount", *map(str, range(25_000)))).features

    assert features.features[0].description == "seen from 0 to 24999"


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (
            ["Class,Time", "0,1"],
            "1 problem:\n- line 1: expected a column that can be a feature, got only Class, Time; add",
        ),
        (["amount,Class"], "is empty below its header; it holds no transactions$"),
        (
            ["amount;shop;Class", "1,5;corner;0"],
            "csv, line 1: expected names .*, got semicolons between the names; save",
        ),
        (
            ["amount\tClass", "1\t0"],
            "csv, line 1: expected names of columns, got tabs between the names; save the file",
        ),
        (["amount|Class", "1|0"], "csv, line 1: expected names of columns, got bars between the names"),
        (["amount Class", "1 0"], "csv, line 1: expected names of columns, got spaces between the names"),
        (
            ["12.5,2026-01-01,corner", "1,2026-01-01,mall"],
            "line 1: .*, got numbers; if this is the first transaction, add",
        ),
        (
            ["5,7,0", "6,8,1"],
            "csv, line 1: expected names of columns, got numbers; .* add a line with the names above, oth",
        ),
        (
            ["amount,class", "1,0", "2,1"],
            r"1: column class: .*; rename it Class if it says which transactions were fraud, or leave it out \S+ \S+$",
        ),
        (
            ["amount,TS", "1,x"],
            "line 1: column TS: .*; rename it ts if it says when a transaction took place, or leave",
        ),
        (
            ["amount,Class,class", "1,0,0"],
            "line 1: column class: 'class' is a column of every store; rename it, or leave",
        ),
        ([",".join(f"f{place}" for place in range(501)), ",".join("1" * 501)], "at most 500 features, got 501; leave"),
        (
            ["amount,n", "1,inf", "2,3"],
            r"line 2: column n: .* got 'inf' .wrong in 1 of 2 rows.; correct it, or",
        ),
        (["amount,n", "1,1e400", "2,3"], r"line 2: column n: expected a number from -1e\+09 to 1e\+09, got '1e400' "),
        (["amount,n", "1,inf", "2,-inf"], "line 2: column n: .* got 'inf' .wrong in 2 of 2 rows.; correct it"),
        (
            ["amount,n", "1,", "2,x", "3,4"],
            "line 3: column n: .* got 'x' .wrong in 1 of 3 rows., and an empty cell in 1",
        ),
        (["amount,n", "1,6e9", "2,7e9"], "line 2: column n: .* got '6e9' .wrong in 2 of 2 rows.; divide it"),
        (
            ["amount,n", "1,", "2,"],
            r"line 2: column n: .* got an empty cell in every row; leave it out .`--leave-out n`.$",
        ),
        (
            ["amount,n", '1,"12,5"', '2,"1.300,5"', "3,4"],
            "line 2: column n: .* got '12,5', a comma in a number, in 2 of 3 ",
        ),
        (
            ["amount,n", "1,12,5"],
            "line 2: expected 2 columns, got 3; if a comma belongs to a cell, write a point in its nu",
        ),
        (
            ["amount,Class", "1,0", "2,", "3,fraud"],
            "line 4: column Class: expected 0, 1 or nothing, got 'fraud' .* write 1",
        ),
        (
            ["amount,Class", "1,2", "2,0"],
            "line 2: column Class: expected 0, 1 or nothing, got '2' .wrong in 1 of 2 rows.",
        ),
        (
            ["amount,Time", "1,noon"],
            "line 2: column Time: expected a number of seconds, got 'noon' .*name the column ts if",
        ),
        (
            ["amount,ts", "1,yesterday", "2,"],
            "line 2: column ts: expected a time such as .*, got 'yesterday' .*in 1 of 2 rows",
        ),
        (["amount,transaction_id", "1,a b"], "line 2: column transaction_id: expected 1 to 128 .*, got 'a b' "),
        (["amount,Class,Class", "1,0,0"], "line 1: a column name appears twice .*: 'Class'; rename one"),
        ([",amount", "0,1"], "line 1: column 1 has no name .an index that pandas wrote[?].; .*`--leave-out ''`$"),
        (["amount,,", "1,,"], "line 1: column 2 has no name.*\n- line 1: column 3 has no name"),
        (["amount,two words", "1,x"], "line 1: column two words: expected a name of letters, digits and _ .*"),
        (["amount,two words", "1,x"], "line 2: column two words: .*`--leave-out 'two words'`"),
        (["amount,id", "1,2"], "line 1: column id: 'id' is a column of every store; rename it"),
        (["a,A,b,b", "1,2,3,4"], "2 problems:\n.*appears twice .case does not count.: 'a'.*\n.*appears twice .*: 'b'"),
        (["amount", "1", "nan"], "line 3: column amount: expected a number .* got 'nan' .wrong in 1 of 2 rows."),
        (
            ["amount,age", "1"],
            "1 problem:\n- line 2: expected 2 columns, got 1; correct it first, because reading ended there$",
        ),
        (["amount", "1,2,3"], "line 2: expected 1 column, got 3"),
        (["amount,age", ",1", "1,2"], r"line 2: column amount: .* got an empty cell in 1 of 2 rows; fill in"),
        (
            ["a,shop", "1,corner", "1,mall", "1,"],
            r"line 2: column shop: expected a number from -1e\+09 to 1e\+09, got texts with 2 different values, and "
            r"an empty cell in 1 of 3 rows; .*get_dummies\(table, columns=\['shop'\].*`--leave-out shop`",
        ),
        (["a,code", *(f"1,c{row}" for row in range(21))], "got texts with more than 20 different values; replace each"),
        (["a,is_new", "1,True", "1,false"], "line 2: column is_new: .* got true or false; write 1 and 0"),
        (["a,seen", "1,2026-01-01", "1,2026-01-02 10:15"], "got times; name the column ts"),
    ],
)
def test_names_what_is_no_feature_and_a_way_out(tmp_path: Path, lines: list[str], message: str) -> None:
    with pytest.raises(BadTransactionFile, match=message):
        draft_of(written(tmp_path, *lines))


def test_an_empty_file_is_called_empty(tmp_path: Path) -> None:
    (tmp_path / "history.csv").touch()

    with pytest.raises(BadTransactionFile, match=r"history\.csv: is empty; expected a header line"):
        draft_of(tmp_path / "history.csv")


def test_lists_every_problem_of_a_file_at_once(tmp_path: Path) -> None:
    lines = ["amount,shop,balance,id", "1,corner,7,3", ",mall,7,3", "1,mall,x,3"]

    with pytest.raises(BadTransactionFile) as raised:
        draft_of(written(tmp_path, *lines), left_out=("town",))

    problems = [problem.partition(":") for problem in str(raised.value).split("\n- ")]
    assert problems[0][2] == " 5 problems:"
    assert [(place, what.split(":")[0].strip()) for place, _, what in problems[1:]] == [
        ("line 1", "expected a column 'town' to leave out, got none of this name; correct --leave-out"),
        ("line 1", "column id"),
        ("line 3", "column amount"),
        ("line 2", "column shop"),
        ("line 4", "column balance"),
    ]


def test_parquet_columns_of_other_types_are_listed_at_once(tmp_path: Path) -> None:
    path = tmp_path / "history.parquet"
    day = pd.Timestamp("2026-01-01")
    columns = {"amount": [1.0, 3.0], "shop": ["corner", "mall"], "is_new": [True, False], "day": [day, day]}
    pq.write_table(pa.table({**columns, "items": [[1], [2]]}), path)

    with pytest.raises(BadTransactionFile) as raised:
        draft_of(path)

    assert draft_of(path, left_out=("shop", "is_new", "day", "items")).features.names == ("amount",)
    assert re.findall(r"column (\w+): .* got ([^;]*);", str(raised.value)) == [
        ("items", "lists or the like"),
        ("shop", "texts with 2 different values"),
        ("is_new", "true or false"),
        ("day", "times"),
    ]


def test_a_parquet_column_that_repeats_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "history.parquet"
    pq.write_table(pa.table([[1.0], [2.0], [3.0]], names=["a", "b", "a"]), path)

    with pytest.raises(
        BadTransactionFile, match=r"history\.parquet: 1 problem:\n- a column name appears twice .*: 'a'"
    ):
        draft_of(path)


def test_names_the_columns_that_look_like_the_truth(tmp_path: Path) -> None:
    lines = ["amount,flag,Label,always,share,Class", "5,0,7,1,0,0", "6,1,8,1,1,1", "7,1,9,1,0.5,0"]

    draft = draft_of(written(tmp_path, *lines))

    (warning,) = draft.warnings
    assert warning.startswith("flag, Label: holds only 0 and 1, or is named like a label.")
    assert draft.features.features[1] == Feature("flag", 0, 1, description="0 or 1")
    assert draft.features.features[4].maximum > 1  # a share is no encoded category


def test_a_column_that_says_what_class_says_looks_like_the_truth_whatever_its_name(tmp_path: Path) -> None:
    lines = [
        "amount,copy,opposite,coded,rare,Class",
        *("1,1,0,7,0,1", "2,1,0,7,1,1", "3,0,1,-3,0,0", "4,0,1,-3,0,0", "5,0,0,9,0,"),
    ]

    warnings = draft_of(written(tmp_path, *lines)).warnings

    assert [warning.partition(":")[0] for warning in warnings] == ["copy, opposite, coded", "rare"]
    assert "leave it out (`--leave-out copy --leave-out opposite --leave-out coded`)" in warnings[0]


def test_one_fraud_makes_no_other_column_look_like_the_truth(tmp_path: Path) -> None:
    lines = ["amount,copy,Class", "1,1,1", "2,0,0", "2,0,0"]

    (warning,) = draft_of(written(tmp_path, *lines)).warnings

    assert warning.startswith("copy: looks like the truth")


def test_warnings_come_with_the_problems(tmp_path: Path) -> None:
    lines = ["amount,shop,copy,is_new,time,Class", "1,x,1,0,5,1", "2,y,0,1,6,0", "3,y,0,1,7,0", "4,x,1,1,8,1"]

    with pytest.raises(BadTransactionFile) as raised:
        draft_of(written(tmp_path, *lines))

    problems, *warnings = str(raised.value).split("\nWarning: ")
    assert ": 1 problem:" in problems
    assert [warning.partition(":")[0] for warning in warnings] == ["copy", "is_new", "time"]
    assert "name it Time (seconds) or ts (a time)" in warnings[2]


def test_a_number_in_parquet_that_no_feature_may_have_is_named(tmp_path: Path) -> None:
    path = tmp_path / "history.parquet"
    columns = {
        "amount": [1.0, float("inf")],
        "large": [1e17, None],
        "shop": ["corner", "mall"],
        "nothing": [None, None],
    }
    pq.write_table(pa.table(columns), path)

    with pytest.raises(BadTransactionFile) as raised:
        draft_of(path)

    assert re.findall(r"column (\w+): .* got ([^;]*);", str(raised.value)) == [
        ("amount", "'inf' (wrong in 1 of 2 rows)"),
        ("large", "'1e+17' (wrong in 1 of 2 rows), and an empty cell in 1 of 2 rows"),
        ("nothing", "an empty cell in every row"),
        ("shop", "texts with 2 different values"),
    ]


def test_numbers_as_names_in_parquet_are_named(tmp_path: Path) -> None:
    path = tmp_path / "history.parquet"
    pq.write_table(pa.table([[1.0], [2.0]], names=["0", "1"]), path)

    with pytest.raises(
        BadTransactionFile, match=r"parquet: expected names of columns, got numbers; .* write the table"
    ):
        draft_of(path)
