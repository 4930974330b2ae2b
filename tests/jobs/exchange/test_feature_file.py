"""A feature list can be written from the columns of a file."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from fraud_detection.features import BadFeatureList, load_features
from jobs.exchange.feature_file import feature_list_of, to_json
from jobs.exchange.table import BadTransactionFile


def written(folder: Path, *lines: str) -> Path:
    path = folder / "history.csv"
    path.write_text("\n".join(lines) + "\n")
    return path


def test_names_from_the_header_and_generous_bounds_from_the_values(tmp_path: Path) -> None:
    lines = ["ts,amount,balance,shop,constant,Class", "x,1,-10,corner,5,0", "", "x,101,10,corner,5,1"]

    features = feature_list_of(written(tmp_path, *lines), left_out=("shop",))

    assert [(each.name, each.minimum, each.maximum) for each in features.features] == [
        ("amount", 0, 1200),
        ("balance", -210, 210),
        ("constant", 0, 55),
    ]
    assert features.features[1].description == "seen from -10 to 10"


def test_what_is_written_is_a_features_file(tmp_path: Path) -> None:
    features = feature_list_of(written(tmp_path, "amount,age_days", "1,2", "0,-1e300"))
    (tmp_path / "features.json").write_text(to_json(features))

    assert load_features(tmp_path / "features.json") == features
    assert features.features[1].minimum == -1e9


def test_reads_files_of_any_length(tmp_path: Path) -> None:
    features = feature_list_of(written(tmp_path, "amount", *map(str, range(25_000))))

    assert features.features[0].description == "seen from 0 to 24999"


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["Class,Time"], "line 1: expected a header line that names the features"),
        (["amount,Class"], "holds no transactions"),
        (
            ["amount,shop", "1,corner"],
            "line 2: column shop: expected a number, because a feature is one number; .*`--leave-out shop`",
        ),
        ([",amount", "0,1"], "line 1: column 1 has no name .an index that pandas wrote[?].; .*`--leave-out ''`$"),
        (["amount,,", "1,,"], "line 1: column 2 has no name"),
        (["amount,two words", "1,x"], "line 2: column two words: .*`--leave-out 'two words'`"),
        (["amount", "1", "nan"], "line 3: column amount: expected a number"),
        (["amount,age", "1"], "line 2: expected 2 columns, got 1"),
    ],
)
def test_names_what_is_no_feature(tmp_path: Path, lines: list[str], message: str) -> None:
    with pytest.raises(BadTransactionFile, match=message):
        feature_list_of(written(tmp_path, *lines))


def test_a_parquet_column_of_text_may_be_left_out(tmp_path: Path) -> None:
    path = tmp_path / "history.parquet"
    pq.write_table(pa.table({"amount": [1.0, 3.0], "shop": ["corner", "mall"]}), path)

    assert feature_list_of(path, left_out=("shop",)).names == ("amount",)
    expected = (
        "row 1: column shop: expected a number, because a feature is one number; "
        r"encode it as numbers, or leave it out \(`--leave-out shop`\)$"
    )
    with pytest.raises(BadTransactionFile, match=expected):
        feature_list_of(path)


def test_a_parquet_column_that_repeats_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "history.parquet"
    pq.write_table(pa.table([[1.0], [2.0], [3.0]], names=["a", "b", "a"]), path)

    with pytest.raises(BadTransactionFile, match=r"history\.parquet: a column name appears twice: 'a'$"):
        feature_list_of(path)


def test_a_name_that_cannot_be_a_column_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadFeatureList, match=r"letters, digits and _ .* 'amount in euro'"):
        feature_list_of(written(tmp_path, "amount in euro", "1"))
