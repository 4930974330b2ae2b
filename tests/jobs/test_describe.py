"""`python -m jobs.describe` writes the statistics of a labelled file."""

import gzip
from pathlib import Path

import numpy as np
import pytest

from fraud_detection.features import Feature, FeatureList
from fraud_detection.model.manifest import AmountScaling
from jobs.describe import main, read_labelled
from jobs.exchange.table import BadTransactionFile
from jobs.synthetic.statistics import PUBLIC_SCALING, PUBLIC_STATISTICS, read_statistics

SCALING = AmountScaling(mean=10, standard_deviation=2)


def test_reads_the_public_layout_and_scales_the_amount(tmp_path: Path) -> None:
    path = tmp_path / "cards.csv.gz"
    path.write_bytes(gzip.compress(b'"Time","V1","Amount","Class"\n0,1.5,12,"0"\n1,-2,8,"1"\n'))

    transactions = read_labelled(path, FeatureList((Feature("V1"), Feature("Amount_scaled"))), SCALING)

    assert transactions.matrix.tolist() == [[1.5, 1.0], [-2.0, -1.0]]
    assert transactions.is_fraud.tolist() == [False, True]


def test_an_amount_that_is_scaled_already_is_taken_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "cards.csv"
    path.write_text("Amount_scaled,Amount,Class\n0.5,12,0\n")

    transactions = read_labelled(path, FeatureList((Feature("Amount_scaled"),)), SCALING)

    assert transactions.matrix.tolist() == [[0.5]]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("V1,Class\nx,1\n", "line 2: column V1: expected a number"),
        ("V2,Class\n1,0\n", "V1 is missing"),
    ],
)
def test_a_file_that_is_no_labelled_table_is_refused(tmp_path: Path, content: str, message: str) -> None:
    path = tmp_path / "cards.csv"
    path.write_text(content)

    with pytest.raises(BadTransactionFile, match=message):
        read_labelled(path, FeatureList((Feature("V1"),)), SCALING)


def test_the_committed_table_is_what_the_command_makes_of_the_public_sample(real_data: Path, tmp_path: Path) -> None:
    code = main([str(real_data), "--fraud-share", "0.00173", "--out", str(tmp_path / "table.json")])

    assert code == 0
    assert read_statistics(tmp_path / "table.json") == read_statistics(PUBLIC_STATISTICS)
    assert read_statistics(PUBLIC_STATISTICS).amount_scaling == PUBLIC_SCALING


def test_unlabelled_rows_are_left_out(tmp_path: Path) -> None:
    (tmp_path / "cards.csv").write_text("V1,Class\n1,0\n2,\n3,1\n")

    transactions = read_labelled(tmp_path / "cards.csv", FeatureList((Feature("V1"),)), SCALING)

    assert transactions.matrix.tolist() == [[1.0], [3.0]]


def test_other_features_are_described_by_their_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    random = np.random.default_rng(1)
    rows = [f"{random.normal()},{number % 2}" for number in range(200)]
    (tmp_path / "mine.csv").write_text("\n".join(["loan,Class", *rows]))
    (tmp_path / "features.json").write_text('{"features": [{"name": "loan"}]}')
    monkeypatch.setenv("FEATURES_FILE", str(tmp_path / "features.json"))

    code = main(
        [
            str(tmp_path / "mine.csv"),
            "--out",
            str(tmp_path / "table.json"),
        ]
    )

    assert code == 0
    table = read_statistics(tmp_path / "table.json")
    assert list(table.fraud.quantiles) == ["loan"]
    assert (table.fraud_share, table.amount_scaling) == (0.5, None)


def test_what_cannot_be_described_ends_with_3_and_writes_nothing(tmp_path: Path) -> None:
    (tmp_path / "few.csv").write_text("V1,Class\n1,0\n")

    assert main([str(tmp_path / "few.csv"), "--out", str(tmp_path / "table.json")]) == 3
    assert not (tmp_path / "table.json").exists()


def test_a_wrong_setting_ends_with_2(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("FEATURES_FILE", str(tmp_path / "absent.json"))

    assert main([str(tmp_path / "any.csv"), "--out", str(tmp_path / "table.json")]) == 2
