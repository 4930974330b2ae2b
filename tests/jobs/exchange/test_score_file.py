"""A file is scored by the API row by row, and a repeated run stores nothing twice."""

import csv
import io
from pathlib import Path

import numpy as np
import pytest

from fraud_detection.features import FeatureList
from fraud_detection.model.read import Model
from fraud_detection.settings import ClientSettings
from fraud_detection.store import Store, decisions, history
from jobs.exchange.api_client import ApiClient, ApiRefused
from jobs.exchange.label_file import label_file
from jobs.exchange.score_file import score_file
from jobs.exchange.table import BadTransactionFile


def public_file(folder: Path, rows: int) -> Path:
    random = np.random.default_rng(rows)
    path = folder / f"{rows}.csv"
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["transaction_id", "shop", *(f"V{number}" for number in range(1, 29)), "Amount", "Class"])
        for row in range(rows):
            writer.writerow([f"t{row}", "x", *random.normal(size=28).tolist(), 100.0, row % 2])
    return path


def test_a_file_is_scored_stored_and_labelled(
    running_api: dict[str, str], model: Model, features: FeatureList, tmp_path: Path
) -> None:
    path = public_file(tmp_path, 1500)
    scored_path = tmp_path / "scored.csv"
    with ApiClient(ClientSettings.from_env(running_api)) as client:
        with scored_path.open("w", newline="") as out:
            total = score_file(path, client, run="first", out=out)
        again = score_file(path, client, run="first")
        labelled = label_file(scored_path, client, source="analyst")
        labelled_again = label_file(scored_path, client, source="analyst")

    store = Store.open(Path(running_api["LATEST_DB"]), features, read_only=True)
    with store.begin() as connection:
        stored = history.read(store, connection)
        (decision,) = decisions.find(store, connection, "t1400")
    store.close()
    written = list(csv.DictReader(io.StringIO(scored_path.read_text())))
    assert len(stored) == 1500  # the second attempt under the same name stored nothing
    assert again == total
    assert stored.matrix[0, -1] == pytest.approx((100 - 88.35) / 250.12)
    assert [float(line["fraud_probability"]) for line in written] == model.score(stored.matrix).tolist()
    assert (total.rows, total.frauds, total.genuine) == (1500, 750, 750)
    assert total.flagged == total.frauds_flagged + total.genuine_flagged == stored.is_flagged.sum()
    assert total.model_versions == {model.version: 1500}
    assert (written[1400]["line"], written[1400]["row"]) == ("1402", "400")
    assert written[1400]["request_id"] == decision.request_id
    assert (labelled.labels, labelled.new, labelled_again.new) == (1500, 1500, 0)
    assert stored.is_fraud.tolist() == [0, 1] * 750
    assert decision.labels[0].source == "analyst"


def test_a_line_that_is_no_transaction_is_named(running_api: dict[str, str], tmp_path: Path) -> None:
    path = public_file(tmp_path, 3)
    path.write_text(path.read_text() + "t3,x," + "1," * 28 + "lots,0\n")

    with (
        ApiClient(ClientSettings.from_env(running_api)) as client,
        pytest.raises(BadTransactionFile, match="line 5: column Amount: expected a number"),
    ):
        score_file(path, client, run="r", out=io.StringIO())


def test_a_line_that_the_api_refuses_is_named(running_api: dict[str, str], tmp_path: Path) -> None:
    path = public_file(tmp_path, 1200)
    path.write_text(path.read_text() + "t1200,x," + "1," * 28 + "300000,0\n")

    with (
        ApiClient(ClientSettings.from_env(running_api)) as client,
        pytest.raises(ApiRefused, match=r"1200\.csv, line 1202: the API answered 422: row 200, feature Amount_scaled"),
    ):
        score_file(path, client, run="r")
