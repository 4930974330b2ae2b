"""A file of history is imported once, all of it or nothing, with its amounts scaled."""

import json
from datetime import UTC, datetime
from pathlib import Path

import pytest

from fraud_detection.database import DatabaseRefused
from fraud_detection.features import Feature, FeatureList, default_features
from fraud_detection.lock import StoreInUse, in_use
from fraud_detection.model.manifest import AmountScaling
from fraud_detection.settings import JobSettings
from fraud_detection.store import Store, history
from fraud_detection.store.history import History
from jobs.exchange.import_file import AlreadyImported, Imported, import_file
from jobs.exchange.table import BadTransactionFile
from jobs.installation import Installation

NOW = datetime(2026, 3, 1, tzinfo=UTC)
HEADER = ",".join(["Time", *(f"V{number}" for number in range(1, 29)), "Amount", "Class"])
COMPONENTS = ",".join(["0.5"] * 28)


def public_file(folder: Path, amounts: list[float], *, name: str = "history.csv", bad_line: str = "") -> Path:
    lines = [f"{place},{COMPONENTS},{amount},{place % 2}" for place, amount in enumerate(amounts)]
    path = folder / name
    path.write_text("\n".join([HEADER, *lines, bad_line]) + "\n")
    return path


def imported(
    path: Path, location: str | Path, *, models_dir: Path, features: FeatureList | None = None, again: bool = False
) -> Imported:
    store = {"DATABASE_URL": location} if isinstance(location, str) else {"TRAIN_DB": str(location)}
    settings = JobSettings.from_env({"MODEL_PATH": str(models_dir / "rf_model.pkl"), **store})
    return import_file(path, Installation(settings, features or default_features()), now=NOW, again=again)


def stored(location: str | Path) -> History:
    store = Store.open(location, default_features(), read_only=True)
    try:
        with store.begin() as connection:
            return history.read(store, connection)
    finally:
        store.close()


def test_brings_a_file_into_a_new_store(location: str | Path, tmp_path: Path) -> None:
    done = imported(public_file(tmp_path, [10, 30, 20]), location, models_dir=tmp_path / "models")

    rows = stored(location)
    assert (done.rows, done.frauds, done.genuine, done.unknown) == (3, 1, 2, 0)
    assert (done.first_ts, done.last_ts) == ("2013-09-01 00:00:00.000000", "2013-09-01 00:00:02.000000")
    assert rows.is_fraud.tolist() == [0, 1, 0]
    assert set(rows.label_source.tolist()) == {"import"}
    assert rows.ts.tolist()[0] == done.first_ts


def test_a_bad_line_leaves_the_store_as_it_was(location: str | Path, tmp_path: Path) -> None:
    imported(public_file(tmp_path, [10, 30]), location, models_dir=tmp_path / "models")
    broken = public_file(tmp_path, [1.0] * 1500, name="b.csv", bad_line="x")

    with pytest.raises(BadTransactionFile, match="line 1502: expected 31 columns, got 1"):
        imported(broken, location, models_dir=tmp_path / "models")

    assert len(stored(location)) == 2
    with pytest.raises(BadTransactionFile):  # and the file does not count as imported
        imported(broken, location, models_dir=tmp_path / "models")


def test_a_time_that_has_not_come_is_named(tmp_path: Path) -> None:
    amount_only = FeatureList((Feature("amount"),))
    path = tmp_path / "a.csv"
    path.write_text("amount,Class,ts\n10,0,2026-03-01 23:00:00\n30,1,2062-03-01 00:00:00\n")

    with pytest.raises(
        BadTransactionFile, match=r"line 3: expected a time that is not in the future, got 2062-03-01 00:00:00"
    ):
        imported(path, tmp_path / "requests.db", models_dir=tmp_path / "models", features=amount_only)


def test_the_same_file_comes_in_once_unless_wanted_again(tmp_path: Path) -> None:
    database = tmp_path / "requests.db"
    imported(public_file(tmp_path, [10, 30]), database, models_dir=tmp_path / "models")
    renamed = public_file(tmp_path, [10, 30], name="copy.csv")

    with pytest.raises(AlreadyImported, match=r"copy\.csv: was imported before, as history\.csv at 2026-03-01"):
        imported(renamed, database, models_dir=tmp_path / "models")
    again = imported(renamed, database, models_dir=tmp_path / "models", again=True)

    assert again.rows == 2
    assert len(stored(database)) == 4


def test_the_first_import_fixes_how_amounts_are_scaled(tmp_path: Path) -> None:
    database = tmp_path / "requests.db"
    first = imported(public_file(tmp_path, [10, 30]), database, models_dir=tmp_path / "models")
    second = imported(public_file(tmp_path, [40, 50], name="b.csv"), database, models_dir=tmp_path / "models")

    store = Store.open(database, default_features())
    with store.begin() as connection:
        fixed = json.loads(store.get_meta(connection, "amount_scaling") or "")
    store.close()
    assert first.scaling == second.scaling == AmountScaling(20, 10)
    assert fixed == {"mean": 20, "standard_deviation": 10}
    assert sorted(stored(database).matrix[:, -1].tolist()) == [-1, 1, 2, 3]


def test_the_current_model_fixes_the_scaling_rather_than_the_file(tmp_path: Path, models_dir: Path) -> None:
    done = imported(public_file(tmp_path, [88.35]), tmp_path / "requests.db", models_dir=models_dir)

    assert done.scaling == AmountScaling(88.35, 250.12)
    assert stored(tmp_path / "requests.db").matrix[0, -1] == 0


def test_a_model_of_other_features_does_not_fix_the_scaling(tmp_path: Path, models_dir: Path) -> None:
    amount_only = FeatureList((Feature("Amount_scaled"),))
    path = tmp_path / "a.csv"
    path.write_text("Amount,Class\n10,0\n30,1\n")

    done = imported(path, tmp_path / "requests.db", models_dir=models_dir, features=amount_only)

    assert done.scaling == AmountScaling(20, 10)


def test_a_store_that_an_api_has_open_is_left_alone(tmp_path: Path) -> None:
    database = tmp_path / "requests.db"

    with in_use(database), pytest.raises(StoreInUse, match="let TRAIN_DB name a file of its own"):
        imported(public_file(tmp_path, [10, 30]), database, models_dir=tmp_path / "models")


def test_a_store_of_other_features_is_refused(tmp_path: Path) -> None:
    database = tmp_path / "requests.db"
    Store.create_or_migrate(database, FeatureList((Feature("amount"),))).close()

    with pytest.raises(DatabaseRefused, match="belongs to another feature list"):
        imported(public_file(tmp_path, [10, 30]), database, models_dir=tmp_path / "models")


def test_brings_in_the_real_sample(real_data: Path, tmp_path: Path) -> None:
    done = imported(real_data, tmp_path / "requests.db", models_dir=tmp_path / "models")

    assert (done.rows, done.frauds) == (10_573, 247)
