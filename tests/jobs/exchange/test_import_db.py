"""The database of an older installation is imported once, without its scores as labels."""

import contextlib
import sqlite3
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest

from fraud_detection.database import DatabaseRefused, sqlite
from fraud_detection.features import Feature, FeatureList
from fraud_detection.lock import alone_with
from fraud_detection.settings import JobSettings
from fraud_detection.store import Store, decisions, history
from fraud_detection.store.history import History
from jobs.exchange import import_db as module
from jobs.exchange.import_db import BadOldDatabase, ImportedDatabase, import_db
from jobs.exchange.import_file import AlreadyImported
from jobs.installation import Installation

NOW = datetime(2026, 3, 1, tzinfo=UTC)
TWO = FeatureList((Feature("V1"), Feature("Amount_scaled")))


def old_database(folder: Path, columns: str, *rows: tuple[object, ...]) -> Path:
    path = folder / "old.db"
    connection = sqlite3.connect(path)
    connection.execute(f"CREATE TABLE requests ({columns})")
    for row in rows:
        places = ", ".join("?" * len(row))
        connection.execute(f"INSERT INTO requests VALUES ({places})", row)  # noqa: S608  only question marks
    connection.commit()
    connection.close()
    return path


def imported(
    path: Path, location: str | Path, *, ignored: tuple[str, ...] = (), with_labels: bool = True, again: bool = False
) -> ImportedDatabase:
    variables = {"DATABASE_URL": location} if isinstance(location, str) else {"TRAIN_DB": str(location)}
    here = Installation(JobSettings.from_env(variables), TWO)
    return import_db(path, here, now=NOW, ignored=ignored, with_labels=with_labels, again=again)


def stored(location: str | Path) -> History:
    store = Store.open(location, TWO, read_only=True)
    try:
        with store.begin() as connection:
            return history.read(store, connection)
    finally:
        store.close()


CLASSIC = "id INTEGER PRIMARY KEY, ts TEXT, V1 REAL, amount_scaled REAL, prob REAL, Class INTEGER"


def test_brings_in_an_older_installation(location: str | Path, tmp_path: Path) -> None:
    path = old_database(
        tmp_path,
        CLASSIC,
        (1, "2026-01-02 00:00:00", 0.5, 1.5, 0.9, 1),
        (2, "2026-01-01T00:00:00Z", 0.25, 2, 0.1, None),
    )

    done = imported(path, location)

    rows = stored(location)
    assert (done.imported.rows, done.imported.frauds, done.imported.unknown) == (2, 1, 1)
    assert done.left_behind == ["id", "prob"]
    assert rows.ts.tolist() == ["2026-01-01 00:00:00.000000", "2026-01-02 00:00:00.000000"]
    assert rows.matrix.tolist() == [[0.25, 2], [0.5, 1.5]]
    assert rows.is_fraud.tolist() == [-1, 1]
    assert rows.label_source.tolist() == ["", "import"]


def test_leaves_labels_that_were_scores_behind(tmp_path: Path) -> None:
    path = old_database(tmp_path, CLASSIC, (1, "2026-01-01", 0.5, 1.5, 0.9, 1))

    done = imported(path, tmp_path / "requests.db", with_labels=False)

    assert stored(tmp_path / "requests.db").is_fraud.tolist() == [-1]
    assert done.left_behind == ["Class", "id", "prob"]


def test_takes_seconds_since_1970_and_client_ids(tmp_path: Path) -> None:
    path = old_database(
        tmp_path,
        "ts REAL, V1 REAL, Amount_scaled REAL, transaction_id",
        (1767225600.5, 1, 2, 77),
        (1767225601, 1, 2, None),
        (1767225602, 1, 2, ""),
    )

    imported(path, tmp_path / "requests.db")

    store = Store.open(tmp_path / "requests.db", TWO)
    with store.begin() as connection:
        (decision,) = decisions.find(store, connection, "77")
        listed = [row["transaction_id"] for row in history.listing(store, connection)]
    store.close()
    assert decision.ts == "2026-01-01 00:00:00.500000"
    assert listed == ["77", None, None]


def test_takes_values_as_they_are_stored_whatever_their_columns_were_declared_as(tmp_path: Path) -> None:
    path = old_database(
        tmp_path,
        "ts TIMESTAMP, V1 NUMERIC(10,4), Amount_scaled DECIMAL, Class BOOLEAN",
        (1700000000.5, 0.25, 2, 1),
        ("2026-01-01 10:00:00", 0.5, 3, 0),
    )

    imported(path, tmp_path / "requests.db")

    rows = stored(tmp_path / "requests.db")
    assert rows.ts.tolist() == ["2023-11-14 22:13:20.500000", "2026-01-01 10:00:00.000000"]
    assert rows.matrix.tolist() == [[0.25, 2], [0.5, 3]]
    assert rows.is_fraud.tolist() == [1, 0]


def test_rows_without_a_time_end_now(tmp_path: Path) -> None:
    path = old_database(tmp_path, "V1 REAL, Amount_scaled REAL", (1, 2), (3, 4))

    imported(path, tmp_path / "requests.db")

    assert stored(tmp_path / "requests.db").ts.tolist() == ["2026-02-28 23:59:58.000000", "2026-02-28 23:59:59.000000"]


@pytest.mark.parametrize("ids", [("a", "b", "c"), (None, None, None)], ids=["with ids", "without"])
def test_rows_without_a_time_are_known_when_the_table_has_grown(tmp_path: Path, ids: tuple[str | None, ...]) -> None:
    columns = "V1 REAL, Amount_scaled REAL, Class INTEGER, transaction_id TEXT"
    rows = [(number, 0.5, 1, transaction_id) for number, transaction_id in enumerate(ids)]
    imported(old_database(tmp_path, columns, *rows[:2]), tmp_path / "requests.db")
    (tmp_path / "old.db").unlink()

    done = imported(old_database(tmp_path, columns, *reversed(rows)), tmp_path / "requests.db").imported

    assert (done.rows, done.known, done.labels_added) == (1, 2, 0)


def test_the_same_rows_come_in_once_unless_wanted_again(tmp_path: Path) -> None:
    path = old_database(tmp_path, CLASSIC, (1, "2026-01-01", 0.5, 1.5, 0.9, 1))
    imported(path, tmp_path / "requests.db")

    with pytest.raises(AlreadyImported):
        imported(path, tmp_path / "requests.db")
    assert len(stored(tmp_path / "requests.db")) == 1

    imported(path, tmp_path / "requests.db", again=True)
    assert len(stored(tmp_path / "requests.db")) == 2


@pytest.mark.parametrize(
    ("columns", "row", "message"),
    [
        ("V1 REAL", (1,), "no column Amount_scaled; expected 2 features"),
        ("V1 REAL, Amount_scaled REAL, shop TEXT", (1, 2, "x"), "column 'shop' would be dropped; .*`--ignore shop`"),
        ("V1 REAL, Amount_scaled REAL, 'a b' TEXT", (1, 2, "x"), "column 'a b' would be dropped; .*`--ignore 'a b'`"),
        ("V1 REAL, Amount_scaled REAL", None, "the table `requests` is empty"),
        ("V1 REAL, Amount_scaled REAL", (1, None), "row 1 in order of time: feature Amount_scaled: expected a number"),
        ("V1 REAL, Amount_scaled REAL, Class", (1, 2, "yes"), "row 1 in order of time: Class: expected 0, 1"),
        ("V1 REAL, Amount_scaled REAL, Class BOOLEAN", (1, 2, 2), "row 1 in order of time: Class: expected 0, 1"),
        ("V1 REAL, Amount_scaled REAL, ts", (1, 2, "noon"), "row 1 in order of time: ts: expected a time"),
        (
            "V1 REAL, Amount_scaled REAL, ts",
            (1, 2, "2062-01-01"),
            "row 1 in order of time: ts: expected .* not in the future",
        ),
        ("V1 REAL, Amount_scaled REAL, ts", (1, 2, 20230808), "row 1 in order of time: ts: expected a time"),
        ("V1 REAL, Amount_scaled REAL, ts", (1, 2, "20230808120000Z"), "row 1 in order of time: ts: expected a time"),
        ("V1 REAL, Amount_scaled REAL, ts", (1, 2, 1e300), "row 1 in order of time: ts: expected a time"),
        ("V1 REAL, Amount_scaled REAL, transaction_id", (1, 2, "a b"), "row 1 in order of time: transaction_id"),
    ],
)
def test_names_what_is_wrong_and_brings_in_nothing(
    tmp_path: Path, columns: str, row: tuple[object, ...] | None, message: str
) -> None:
    path = old_database(tmp_path, columns, *([] if row is None else [row]))

    with pytest.raises(BadOldDatabase, match=message):
        imported(path, tmp_path / "requests.db")

    Store.create_or_migrate(tmp_path / "requests.db", TWO).close()
    assert len(stored(tmp_path / "requests.db")) == 0


def test_a_column_is_dropped_only_on_request(tmp_path: Path) -> None:
    path = old_database(tmp_path, "V1 REAL, Amount_scaled REAL, Shop TEXT", (1, 2, "x"))

    done = imported(path, tmp_path / "requests.db", ignored=("shop",))

    assert done.left_behind == ["Shop"]


def test_foreign_keys_and_unnamed_columns_are_left_behind(tmp_path: Path) -> None:
    columns = 'V1 REAL, Amount_scaled REAL, user_id INTEGER REFERENCES users(id), "" TEXT'
    path = old_database(tmp_path, columns, (0.5, 1.5, 7, "x"))

    with pytest.raises(BadOldDatabase, match=r"column 'user_id' would be dropped; to drop it, add `--ignore user_id`"):
        imported(path, tmp_path / "requests.db", ignored=("",))
    with pytest.raises(BadOldDatabase, match=r"a column has no name and would be dropped; .* add `--ignore ''`"):
        imported(path, tmp_path / "requests.db", ignored=("user_id",))
    done = imported(path, tmp_path / "requests.db", ignored=("user_id", ""))

    assert (done.imported.rows, done.left_behind) == (1, ["user_id"])
    assert stored(tmp_path / "requests.db").matrix.tolist() == [[0.5, 1.5]]


def test_refuses_a_store_of_this_version(tmp_path: Path) -> None:
    Store.create_or_migrate(tmp_path / "other.db", TWO).close()

    with pytest.raises(BadOldDatabase, match="set TRAIN_DB to it"):
        imported(tmp_path / "other.db", tmp_path / "requests.db")


@pytest.mark.parametrize(("content", "message"), [(None, "no database there"), (b"x" * 4096, "not an SQLite database")])
def test_refuses_what_is_no_database(tmp_path: Path, content: bytes | None, message: str) -> None:
    if content is not None:
        (tmp_path / "old.db").write_bytes(content)

    with pytest.raises(DatabaseRefused, match=message):
        imported(tmp_path / "old.db", tmp_path / "requests.db")


def test_refuses_a_database_without_requests(tmp_path: Path) -> None:
    sqlite3.connect(tmp_path / "old.db").close()

    with pytest.raises(BadOldDatabase, match="has no table `requests`"):
        imported(tmp_path / "old.db", tmp_path / "requests.db")


@pytest.mark.parametrize(
    "requests",
    [
        "CREATE VIEW requests AS WITH RECURSIVE n(V1, Amount_scaled) AS "
        "(SELECT 1.0, 1.0 UNION ALL SELECT V1 + 1, 1.0 FROM n) SELECT * FROM n",
        "CREATE TABLE requests (V1 REAL, Amount_scaled AS (hex(zeroblob(500000000))))",
        "CREATE TABLE requests (V1 REAL PRIMARY KEY, Amount_scaled REAL) WITHOUT ROWID",
    ],
    ids=["an endless view", "a computed column", "no rowid"],
)
def test_what_is_computed_while_it_is_read_is_refused(tmp_path: Path, requests: str) -> None:
    with contextlib.closing(sqlite3.connect(tmp_path / "old.db")) as connection:
        connection.execute(requests)

    with pytest.raises(BadOldDatabase, match=r"old\.db: expected `requests` as a plain table without computed columns"):
        imported(tmp_path / "old.db", tmp_path / "requests.db")
    with alone_with(tmp_path / "requests.db"):
        pass


def test_a_database_that_does_not_answer_is_given_up(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    path = old_database(tmp_path, "V1 REAL, Amount_scaled REAL", *[(1, 2)] * 5000)
    monkeypatch.setattr(module, "DEADLINE_SECONDS", -1)

    with pytest.raises(BadOldDatabase, match=r"old\.db: gave no rows for -1 seconds; copy the table `requests` into a"):
        imported(path, tmp_path / "requests.db")
    with alone_with(tmp_path / "requests.db"):
        pass


@pytest.mark.parametrize(
    ("column", "message"),
    [
        ("V1", "feature V1: expected a number"),
        ("ts", "ts: expected a time"),
        ("Class", "Class: expected 0, 1 or nothing"),
        ("transaction_id", "transaction_id: expected 1 to 128"),
    ],
)
@pytest.mark.parametrize("cell", [b"x" * 5000, "1" * 5000], ids=["blob", "text"])
def test_a_cell_that_is_too_long_is_refused(tmp_path: Path, column: str, message: str, cell: bytes | str) -> None:
    row = {"V1": 1, "Amount_scaled": 2, "Class": 0, "ts": "2026-01-01", "transaction_id": "a"} | {column: cell}
    path = old_database(tmp_path, ", ".join(row), tuple(row.values()))

    with pytest.raises(BadOldDatabase, match=rf"row 1 in order of time: {message}"):
        imported(path, tmp_path / "requests.db")


def test_an_amount_that_is_not_scaled_is_refused_with_what_an_importer_can_do(tmp_path: Path) -> None:
    path = old_database(tmp_path, "V1 REAL, Amount_scaled REAL", (1, 2), (1, 2e9))

    with pytest.raises(
        BadOldDatabase, match=r"row 2 .*: feature Amount_scaled: .* write the table to a CSV file with a"
    ):
        imported(path, tmp_path / "requests.db")


def test_a_file_of_another_kind_is_called_so(tmp_path: Path) -> None:
    (tmp_path / "old.db").write_text("V1,Amount_scaled,Class\n1,2,0\n")

    with pytest.raises(
        DatabaseRefused, match="is not an SQLite database; a CSV or Parquet file is read by `fraudctl imp"
    ):
        imported(tmp_path / "old.db", tmp_path / "requests.db")


@pytest.mark.parametrize(
    ("column", "message"),
    [
        ("ts", "row 2 in order of time: ts: expected a time"),
        ("V1", "row 1 in order of time: feature V1: expected a number"),
        ("Class", "row 1 in order of time: Class: expected 0, 1 or nothing"),
    ],
)
def test_a_text_that_is_not_utf8_is_named_by_its_row(tmp_path: Path, column: str, message: str) -> None:
    path = old_database(tmp_path, CLASSIC, (1, "2026-01-01", 1, 2, 0, 1), (2, "2026-01-02", 1, 2, 0, 1))
    with contextlib.closing(sqlite3.connect(path)) as old, old:
        old.execute(f"UPDATE requests SET {column} = CAST(x'ff32' AS TEXT) WHERE id = 1")  # noqa: S608  from the list

    with pytest.raises(BadOldDatabase, match=rf"old\.db, {message}"):
        imported(path, tmp_path / "requests.db")


@pytest.mark.parametrize("place", [50, 4096, 6000, 20_000], ids=str)
def test_a_database_that_is_cut_off_is_not_called_our_store(tmp_path: Path, place: int) -> None:
    path = old_database(tmp_path, CLASSIC, *[(row, "2026-01-01", row, 2, 0, 1) for row in range(1000)])
    path.write_bytes(path.read_bytes()[:place])

    with pytest.raises(BadOldDatabase, match=r"old\.db: .*is damaged or cut off") as refused:
        imported(path, tmp_path / "requests.db")
    assert "db restore" not in str(refused.value)


def test_a_database_that_another_program_locks_is_not_called_our_store(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    path = old_database(tmp_path, CLASSIC, (1, "2026-01-01", 1, 2, 0, 1))
    monkeypatch.setattr(sqlite, "BUSY_TIMEOUT_MS", 50)
    lock = "import sqlite3, sys; c = sqlite3.connect(sys.argv[1], isolation_level=None); c.execute('BEGIN EXCLUSIVE');"
    with subprocess.Popen(
        [sys.executable, "-c", f"{lock} print(flush=True); input()", str(path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as other:
        assert other.stdout is not None
        other.stdout.readline()
        with pytest.raises(BadOldDatabase, match=r"old\.db: another program holds a lock on it; stop that program, or"):
            imported(path, tmp_path / "requests.db")
        other.communicate(b"\n")
