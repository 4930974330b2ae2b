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
    lines = ["ts,amount,balance,shop,constant,Class", "x,1,-10,corner,5,0", "", "x,101,10,corner,5,1"]

    features = draft_of(written(tmp_path, *lines), left_out=("shop",)).features

    assert [(each.name, each.minimum, each.maximum) for each in features.features] == [
        ("amount", 0, 1200),
        ("balance", -210, 210),
        ("constant", 0, 55),
    ]
    assert features.features[1].description == "seen from -10 to 10"


def test_what_is_written_is_a_features_file(tmp_path: Path) -> None:
    features = draft_of(written(tmp_path, "amount,age_days", "1,2", "0,-1e300")).features
    (tmp_path / "features.json").write_text(to_json(features))

    assert load_features(tmp_path / "features.json") == features
    assert features.features[1].minimum == -1e9


def test_reads_files_of_any_length(tmp_path: Path) -> None:
    features = draft_of(written(tmp_path, "amount", *map(str, range(25_000)))).features

    assert features.features[0].description == "seen from 0 to 24999"


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["Class,Time"], "line 1: expected a header line that names the features"),
        (["amount,Class"], "is empty below its header; it holds no transactions$"),
        ([",amount", "0,1"], "line 1: column 1 has no name .an index that pandas wrote[?].; .*`--leave-out ''`$"),
        (["amount,,", "1,,"], "line 1: column 2 has no name.*\n- line 1: column 3 has no name"),
        (["amount,two words", "1,x"], "line 1: column two words: expected a name of letters, digits and _ .*"),
        (["amount,two words", "1,x"], "line 2: column two words: .*`--leave-out 'two words'`"),
        (["amount,id", "1,2"], "line 1: column id: 'id' is a column of every store; rename it"),
        (["a,A,b,b", "1,2,3,4"], "2 problems:\n.*appears twice .case does not count.: 'a'.*\n.*appears twice .*: 'b'"),
        (["amount", "1", "nan"], "line 3: column amount: expected a number, .* got something else in 1 of 2 cells"),
        (
            ["amount,age", "1"],
            "1 problem:\n- line 2: expected 2 columns, got 1; correct it first, because reading ended there$",
        ),
        (["amount,age", ",1", "1,2"], r"line 2: column amount: .* got an empty cell \(1 of 2 are empty\); fill in"),
        (
            ["a,shop", "1,corner", "1,mall", "1,"],
            r"line 2: column shop: expected a number, because a feature is one number, got texts with 2 different "
            r"values, and 1 of 3 cells are empty; .*get_dummies\(table, columns=\['shop'\].*`--leave-out shop`",
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
        ("line 1", "there is no column 'town' to leave out"),
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

    assert draft.perhaps_the_truth == ("flag", "Label")
    assert draft.features.features[1] == Feature("flag", 0, 1, description="0 or 1")
    assert draft.features.features[4].maximum > 1  # a share is no encoded category
