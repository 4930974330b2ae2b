"""A file of history is imported once, all of it or nothing, with its amounts scaled."""

import contextlib
import gzip
import json
import tracemalloc
from datetime import UTC, datetime
from pathlib import Path

import pandas as pd
import pytest
import sqlalchemy as sa

from fraud_detection.database import DatabaseRefused
from fraud_detection.features import Feature, FeatureList, default_features
from fraud_detection.lock import StoreInUse, in_use
from fraud_detection.model.files import CURRENT, MANIFEST
from fraud_detection.model.manifest import AmountScaling
from fraud_detection.model.read import ModelRefused
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
    path: Path,
    location: str | Path,
    *,
    models_dir: Path,
    latest_db: Path | None = None,
    features: FeatureList | None = None,
    again: bool = False,
) -> Imported:
    store = {"DATABASE_URL": location} if isinstance(location, str) else {"TRAIN_DB": str(location)}
    variables = {"MODEL_PATH": str(models_dir / "rf_model.pkl"), "LATEST_DB": str(latest_db or location), **store}
    settings = JobSettings.from_env(variables)
    return import_file(path, Installation(settings, features or default_features()), now=NOW, again=again)


def scaling_of(database: Path) -> AmountScaling:
    """Return the scaling that a store has fixed."""
    with contextlib.closing(Store.open(database, default_features())) as store, store.begin() as connection:
        return AmountScaling(**json.loads(store.get_meta(connection, "amount_scaling") or ""))


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

    frame = pd.read_csv(path)
    frame.to_parquet(tmp_path / "a.parquet")
    with pytest.raises(BadTransactionFile, match=r"a\.parquet, row 2: expected a time that is not in the future"):
        imported(tmp_path / "a.parquet", tmp_path / "r.db", models_dir=tmp_path / "models", features=amount_only)


def test_the_same_file_comes_in_once_unless_wanted_again(tmp_path: Path) -> None:
    database = tmp_path / "requests.db"
    imported(public_file(tmp_path, [10, 30]), database, models_dir=tmp_path / "models")
    renamed = public_file(tmp_path, [10, 30], name="copy.csv")

    with pytest.raises(AlreadyImported) as refused:
        imported(renamed, database, models_dir=tmp_path / "models")
    assert len(stored(database)) == 2
    again = imported(renamed, database, models_dir=tmp_path / "models", again=True)

    assert str(refused.value) == (
        "copy.csv: was imported before, as history.csv at 2026-03-01 00:00:00.000000, so nothing was imported now. "
        "With --again every row comes in once more, and a transaction that is still stored then counts twice."
    )
    assert again.rows == 2
    assert len(stored(database)) == 4


def test_the_first_import_fixes_how_amounts_are_scaled(tmp_path: Path) -> None:
    database = tmp_path / "requests.db"
    first = imported(public_file(tmp_path, [10, 30]), database, models_dir=tmp_path / "models")
    second = imported(public_file(tmp_path, [40, 50], name="b.csv"), database, models_dir=tmp_path / "models")

    assert first.scaling == second.scaling == scaling_of(database) == AmountScaling(20, 10)
    assert sorted(stored(database).matrix[:, -1].tolist()) == [-1, 1, 2, 3]


def test_before_the_first_model_the_store_of_the_api_has_the_same_scaling(tmp_path: Path) -> None:
    """Only the jobs know TRAIN_DB, and the API takes the scaling of the first model from its own store."""
    latest, models = tmp_path / "requests.db", tmp_path / "models"
    broken = public_file(tmp_path, [1, 2], name="b.csv", bad_line="x")
    with pytest.raises(BadTransactionFile):
        imported(broken, tmp_path / "history.db", latest_db=latest, models_dir=models)
    was_left_alone = not latest.exists()

    imported(public_file(tmp_path, [10, 30]), tmp_path / "history.db", latest_db=latest, models_dir=models)
    other = public_file(tmp_path, [40, 50], name="c.csv")
    done = imported(other, tmp_path / "another.db", latest_db=latest, models_dir=models)

    assert was_left_alone
    assert done.scaling == scaling_of(latest) == AmountScaling(20, 10)


def test_the_current_model_fixes_the_scaling_rather_than_the_file(tmp_path: Path, models_dir: Path) -> None:
    done = imported(public_file(tmp_path, [88.35]), tmp_path / "requests.db", models_dir=models_dir)

    assert done.scaling == AmountScaling(88.35, 250.12)
    assert stored(tmp_path / "requests.db").matrix[0, -1] == 0


def test_no_other_scaling_is_fixed_while_the_current_model_cannot_be_read(tmp_path: Path, models_dir: Path) -> None:
    database = tmp_path / "requests.db"
    manifest = models_dir / CURRENT / MANIFEST
    whole = manifest.read_bytes()
    manifest.write_bytes(b"{")

    with pytest.raises(ModelRefused, match="is not one of ours"):
        imported(public_file(tmp_path, [10]), database, models_dir=models_dir)
    manifest.write_bytes(whole)
    done = imported(public_file(tmp_path, [88.35]), database, models_dir=models_dir)

    assert done.scaling == AmountScaling(88.35, 250.12)
    assert stored(database).matrix[:, -1].tolist() == [0]


def test_a_model_of_other_features_does_not_fix_the_scaling(tmp_path: Path, models_dir: Path) -> None:
    amount_only = FeatureList((Feature("Amount_scaled"),))
    path = tmp_path / "a.csv"
    path.write_text("Amount,Class\n10,0\n30,1\n")

    done = imported(path, tmp_path / "requests.db", models_dir=models_dir, features=amount_only)

    assert done.scaling == AmountScaling(20, 10)


def test_a_store_that_an_api_has_open_is_left_alone(tmp_path: Path) -> None:
    database = tmp_path / "requests.db"

    with in_use(database, tmp_path / "models"), pytest.raises(StoreInUse, match="let TRAIN_DB name a file of its own"):
        imported(public_file(tmp_path, [10, 30]), database, models_dir=tmp_path / "models")


def test_a_store_of_other_features_is_refused(tmp_path: Path) -> None:
    database = tmp_path / "requests.db"
    Store.create_or_migrate(database, FeatureList((Feature("amount"),))).close()

    with pytest.raises(DatabaseRefused, match=r"belongs to another feature list .* `fraudctl reset`"):
        imported(public_file(tmp_path, [10, 30]), database, models_dir=tmp_path / "models")


def test_an_import_that_fails_leaves_no_store_that_belongs_to_its_features(tmp_path: Path) -> None:
    database = tmp_path / "requests.db"
    path = tmp_path / "a.csv"
    path.write_text("amount,shop,Class\n10,1,0\n30,2,yes\n")
    wrong, right = (FeatureList(tuple(Feature(name) for name in names)) for names in (("amount", "shop"), ("amount",)))

    with pytest.raises(BadTransactionFile, match="expected 0, 1 or nothing"):
        imported(path, database, models_dir=tmp_path / "models", features=wrong)
    path.write_text("amount,Class\n10,0\n30,1\n")
    done = imported(path, database, models_dir=tmp_path / "models", features=right)

    assert done.rows == 2


def test_an_import_that_fails_keeps_the_store_that_was_there(tmp_path: Path) -> None:
    database = tmp_path / "requests.db"
    imported(public_file(tmp_path, [10, 30]), database, models_dir=tmp_path / "models")

    with pytest.raises(AlreadyImported):
        imported(public_file(tmp_path, [10, 30]), database, models_dir=tmp_path / "models")

    assert len(stored(database)) == 2


def test_brings_in_the_real_sample_once(real_data: Path, tmp_path: Path) -> None:
    other_bytes = tmp_path / "unpacked.csv"
    other_bytes.write_bytes(gzip.decompress(real_data.read_bytes()).replace(b"\n", b"\r\n"))

    done, again = (
        imported(path, tmp_path / "requests.db", models_dir=tmp_path / "models") for path in (real_data, other_bytes)
    )

    assert (done.rows, done.frauds, done.known, done.labels_added) == (
        10_573,
        247,
        0,
        0,
    )  # with 37 groups of equal rows
    assert (again.rows, again.frauds, again.known, again.labels_added) == (0, 0, 10_573, 0)


# -- what is stored already ------------------------------------------------------------------------------------------

AMOUNT = FeatureList((Feature("amount"),))
PAYMENTS = [
    "amount,Class,ts",
    "7,0,2026-01-01",
    "7,0,2026-01-01",
    "7,0,2026-01-02",
    "8,1,2026-01-01",
    "-0.0,,2026-01-01",
]


def small(folder: Path, name: str, *lines: str) -> Path:
    path = folder / name
    content = "\n".join(lines).encode()
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)
    return path


def counts(path: Path, location: str | Path, *, again: bool = False) -> tuple[int, int, int]:
    """How many rows of a file are new, how many were known, and how many labels are new for known or equal rows."""
    done = imported(path, location, models_dir=path.parent / "models", features=AMOUNT, again=again)
    return done.rows, done.known, done.labels_added


def truths(location: str | Path) -> list[tuple[float, int]]:
    store = Store.open(location, AMOUNT, read_only=True)
    try:
        with store.begin() as connection:
            rows = history.read(store, connection)
    finally:
        store.close()
    return sorted(zip(rows.matrix[:, 0].tolist(), rows.is_fraud.tolist(), strict=True))


def test_a_payment_is_known_as_often_as_it_is_stored(location: str | Path, tmp_path: Path) -> None:
    first = small(tmp_path, "a.csv", *PAYMENTS)
    packed = small(tmp_path, "b.csv.gz", *PAYMENTS)
    overlapping = small(tmp_path, "c.csv", *PAYMENTS[:2], *[PAYMENTS[1]] * 2, "9,0,2026-01-03", *PAYMENTS[3:])

    assert counts(first, location) == (5, 0, 0)
    assert counts(packed, location) == (0, 5, 0)
    assert counts(overlapping, location) == (2, 5, 0)  # the third of the equal payments, and the one of another day
    assert counts(packed, location, again=True) == (5, 0, 0)
    assert [number for number, _ in truths(location)] == [0, 0, 7, 7, 7, 7, 7, 7, 7, 8, 8, 9]


def test_a_payment_that_repeats_far_below_is_not_known_from_above(location: str | Path, tmp_path: Path) -> None:
    others = [f"{number},0,2026-01-05" for number in range(10, 1500)]
    far_apart = ["7,0,2026-01-04", *others, "7,0,2026-01-04"]

    assert counts(small(tmp_path, "a.csv", *PAYMENTS), location) == (5, 0, 0)
    assert counts(small(tmp_path, "b.csv", PAYMENTS[0], *far_apart), location) == (1492, 0, 0)


def test_a_payment_with_an_id_is_known_by_id_and_time(location: str | Path, tmp_path: Path) -> None:
    header = "amount,Class,ts,transaction_id"
    first = small(tmp_path, "a.csv", header, "7,0,2026-01-01,a", "7,0,2026-01-01,b", "7,0,2026-01-01,")
    second = small(
        tmp_path, "b.csv", header, "7.5,0,2026-01-01,a", "7,0,2026-01-02,a", "7,0,2026-01-01,c", "7,0,2026-01-01,b"
    )
    without_ids = small(tmp_path, "c.csv", "amount,Class,ts", *["7,0,2026-01-01"] * 5)

    assert counts(first, location) == (3, 0, 0)
    assert counts(second, location) == (2, 2, 0)
    assert counts(without_ids, location) == (1, 4, 0)


def test_a_stored_payment_makes_one_row_known_by_its_id_or_by_its_content(tmp_path: Path) -> None:
    header = "amount,Class,ts,transaction_id"
    first = small(tmp_path, "a.csv", header, "7,0,2026-01-01,a")
    second = small(tmp_path, "b.csv", header, "7,0,2026-01-01,a", "7,0,2026-01-01,")

    assert counts(first, tmp_path / "requests.db") == (1, 0, 0)
    assert counts(second, tmp_path / "requests.db") == (1, 1, 0)


def test_a_row_without_a_time_is_known_by_its_content_alone(location: str | Path, tmp_path: Path) -> None:
    rows = ["7,0", "7,0", "7,1", "8,1", "9,", *(f"{number},0" for number in range(100, 1400))]
    first = small(tmp_path, "a.csv", "amount,Class", *rows)
    reversed_rows = small(tmp_path, "b.csv", "amount,Class", *reversed(rows))
    tail = small(tmp_path, "c.csv", "amount,Class", *rows[2:], "7,0", "7,0")

    assert counts(first, location) == (1305, 0, 0)
    assert counts(reversed_rows, location) == (0, 1305, 0)
    assert counts(tail, location) == (0, 1305, 0)
    assert truths(location)[:5] == [(7, 0), (7, 0), (7, 1), (8, 1), (9, -1)]  # equal payments, each with its label
    assert counts(small(tmp_path, "d.csv", "amount,Class", "9,1", "7,0", "7,0", "7,0", "7,0"), location) == (1, 4, 1)
    assert truths(location)[:6] == [(7, 0), (7, 0), (7, 0), (7, 1), (8, 1), (9, 1)]


def test_a_row_without_a_time_is_known_by_its_id_alone(location: str | Path, tmp_path: Path) -> None:
    first = small(tmp_path, "a.csv", "amount,Class,ts,transaction_id", "7,0,2026-01-01,a", "8,,2026-01-02,b")
    later = small(tmp_path, "b.csv", "amount,Class,transaction_id", "9,0,c", "8,1,b", "7.5,0,a")
    again = small(tmp_path, "c.csv", "amount,Class,transaction_id", "7,1,c", "9,0,c", "8,1,b")

    assert counts(first, location) == (2, 0, 0)
    assert counts(later, location) == (1, 2, 1)
    assert counts(again, location) == (1, 2, 2)  # one id twice, and the two contradict each other: fraud counts
    assert truths(location) == [(7, 0), (8, 1), (9, 1), (9, 1)]


def test_a_label_that_a_later_export_has_comes_in_for_the_row_that_is_known(
    location: str | Path, tmp_path: Path
) -> None:
    header = "amount,Class,ts"
    first = small(tmp_path, "a.csv", header, "1,,2026-01-01", "2,0,2026-01-01", "3,1,2026-01-01", "4,1,2026-01-01")
    later = small(tmp_path, "b.csv", header, "1,0,2026-01-01", "2,1,2026-01-01", "3,,2026-01-01", "4,1,2026-01-01")

    assert counts(first, location) == (4, 0, 0)
    assert counts(later, location) == (0, 4, 2)
    assert truths(location) == [(1, 0), (2, 1), (3, 1), (4, 1)]
    assert counts(small(tmp_path, "c.csv.gz", *first.read_text().split("\n")), location) == (0, 4, 0)
    assert truths(location) == [(1, 0), (2, 1), (3, 1), (4, 1)]


def test_a_row_with_any_number_of_labels_takes_no_more_memory(location: str | Path, tmp_path: Path) -> None:
    counts(small(tmp_path, "a.csv", "amount,Class,ts", "7,0,2026-01-01"), location)
    store = Store.open(location, AMOUNT)
    with store.begin() as connection:
        (label,) = connection.execute(sa.select(store.tables.labels)).mappings().all()
        said = {**label, "source": "analyst", "reported_at": "2026-01-02 00:00:00.000000"}
        del said["id"]
        many = [{**said, "reporter": f"{number:06}", "is_fraud": number % 2} for number in range(20_000)]
        connection.execute(sa.insert(store.tables.labels), many)
    store.close()
    later = small(tmp_path, "b.csv", "amount,Class,ts", "7,1,2026-01-01")
    del many

    tracemalloc.start()
    try:
        assert counts(later, location) == (0, 1, 1)
        _, most_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert most_bytes < 8 * 1024 * 1024  # all labels would take 20 MiB
    assert truths(location) == [(7, 1)]


@pytest.mark.parametrize("swap", [False, True])
@pytest.mark.parametrize("ids", [",a", ""], ids=["with an id", "without"])
def test_fraud_counts_if_equal_rows_of_a_file_contradict_each_other(tmp_path: Path, swap: bool, ids: str) -> None:
    header = "amount,Class,ts,transaction_id" if ids else "amount,Class,ts"
    lines = [f"7,{truth},2026-01-01{ids}" for truth in ((1, 0) if swap else (0, 1))]
    others = [f"{number},0,2026-01-0{1 + number % 2}{ids and ',' + str(number)}" for number in range(10, 1500)]
    path = small(tmp_path, "a.csv", header, lines[0], *others, lines[1])

    assert counts(path, tmp_path / "requests.db") == (1492, 0, 1)
    assert truths(tmp_path / "requests.db")[:3] == [(7, 1), (7, 1), (10, 0)]
    for name, again in (
        ("b.csv.gz", [lines[0], *others, lines[1]]),
        ("c.csv", [lines[1], *others, lines[0]]),
        ("d.csv", lines[:1]),
        ("e.csv", lines[1:]),
    ):
        assert counts(small(tmp_path, name, header, *again), tmp_path / "requests.db") == (0, len(again), 0)
        assert truths(tmp_path / "requests.db")[:3] == [(7, 1), (7, 1), (10, 0)]


def test_fraud_counts_if_a_later_file_contradicts_itself(tmp_path: Path) -> None:
    header = "amount,Class,ts"
    frauds = small(tmp_path, "a.csv", header, *["7,1,2026-01-01"] * 2, *["8,0,2026-01-01"] * 2)
    both = small(tmp_path, "b.csv", header, *[f"{number},{truth},2026-01-01" for number in (7, 8) for truth in (1, 0)])

    assert counts(frauds, tmp_path / "requests.db") == (4, 0, 0)
    assert counts(both, tmp_path / "requests.db") == (0, 4, 2)
    assert truths(tmp_path / "requests.db") == [(7, 1), (7, 1), (8, 1), (8, 1)]
    assert counts(small(tmp_path, "c.csv", *both.read_text().split("\n"), ""), tmp_path / "requests.db") == (0, 4, 0)
