"""`fraudctl db` checks, queries, backs up, restores and copies the store."""

import re
from pathlib import Path

import numpy as np
import pytest

from fraud_detection.clock import Clock
from fraud_detection.database import DatabaseRefused
from fraud_detection.features import FeatureList
from fraud_detection.lock import in_use
from fraud_detection.model.read import Model
from fraud_detection.store import Store, transfer
from fraud_detection.store.transfer import ImportedRows
from tests.support.command_line import Fraudctl


@pytest.fixture
def filled(store: Store, model: Model) -> Store:
    """Two imported rows, and a current model."""
    rows = ImportedRows(
        Clock().tick()[1],
        ["2026-01-01 00:00:00.000000", "2026-01-02 00:00:00.000000"],
        np.zeros((2, 29)),
        [True, None],
        ["a", "b"],
    )
    with store.begin() as connection:
        transfer.import_history(store, connection, [rows], reporter="old.csv", received_at="2026-01-03 00:00:00.000000")
    store.close()
    return store


def test_check_names_what_is_right_and_what_is_wrong(
    fraudctl: Fraudctl, filled: Store, environment: dict[str, str], model: Model
) -> None:
    well = fraudctl("db", "check", env=environment)
    Path(environment["MODEL_PATH"]).unlink()
    ill = fraudctl("db", "check", env=environment, exit_code=3)

    assert "(2 rows): ok\n" in well.stdout
    assert f"model {model.version}: ok\n" in well.stdout
    assert "no model there" in ill.stdout


def test_query_prints_rows_and_never_writes(fraudctl: Fraudctl, filled: Store, environment: dict[str, str]) -> None:
    sql = "SELECT ts, transaction_id FROM requests ORDER BY ts DESC LIMIT 1"
    printed = fraudctl("db", "query", sql, env=environment)
    refused = fraudctl("db", "query", "DELETE FROM labels", env=environment, exit_code=1)
    wrong = fraudctl("db", "query", "SELECT nothing", env=environment, exit_code=1)

    assert printed.stdout == "ts,transaction_id\n2026-01-02 00:00:00.000000,b\n"
    assert refused.stderr.startswith("fraudctl: the database says: ")
    assert wrong.stderr.startswith("fraudctl: the database says: ")
    assert fraudctl("db", "query", "SELECT COUNT(*) AS n FROM labels", env=environment).stdout == "n\n1\n"


def test_query_is_stopped_when_its_time_is_up(fraudctl: Fraudctl, filled: Store, environment: dict[str, str]) -> None:
    endless = "WITH RECURSIVE c(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM c) SELECT COUNT(*) FROM c"

    ended = fraudctl("db", "query", endless, "--timeout", 1, env=environment, exit_code=1)

    assert ended.stderr.startswith("fraudctl: the statement was stopped after 1 seconds; narrow it")


@pytest.mark.parametrize("sql", ["SELECT 1; SELECT 2", "ATTACH 'other.db' AS other"])
def test_query_runs_one_statement_on_nothing_but_the_store(
    fraudctl: Fraudctl, filled: Store, environment: dict[str, str], tmp_path: Path, sql: str
) -> None:
    refused = fraudctl("db", "query", sql, env=environment, exit_code=1)

    assert refused.stderr.startswith("fraudctl: the database says: ")
    assert not (tmp_path / "other.db").exists()


def test_what_was_backed_up_is_restored(
    fraudctl: Fraudctl, filled: Store, environment: dict[str, str], model: Model
) -> None:
    taken = fraudctl("db", "backup", "backups/today.tar", env=environment)
    twice = fraudctl("db", "backup", "backups/today.tar", env=environment, exit_code=1)
    refused = fraudctl("db", "restore", "backups/today.tar", env=environment, exit_code=1)
    mlflow = Path(environment["LATEST_DB"]).with_name("mlflow.db")
    mlflow.parent.mkdir(exist_ok=True)
    mlflow.write_bytes(b"of later")
    restored = fraudctl("db", "restore", "backups/today.tar", "--replace", env=environment)

    assert taken.stdout.startswith("backups/today.tar: 2 transactions (requests.db), ")
    assert taken.stdout.endswith(f"; the current version is {model.version}.\n")
    assert "exists already" in twice.stderr
    assert "--replace erases it" in refused.stderr
    assert f"2 transactions (requests.db); the current version is {model.version}.\n" in restored.stdout
    assert restored.stdout.endswith(f"Deleted {mlflow}: the backup has none.\n")


def test_backups_of_every_night_leave_the_newest(
    fraudctl: Fraudctl, filled: Store, environment: dict[str, str], tmp_path: Path
) -> None:
    (tmp_path / "backups").mkdir()
    old = tmp_path / "backups" / "fraud-detection-20200101T020000Z.tar.gz"
    old.write_bytes(b"of long ago")

    taken = fraudctl("db", "backup", "--into", "backups", "--keep", 1, env=environment)

    (left,) = (tmp_path / "backups").iterdir()
    assert re.fullmatch(r"fraud-detection-\d{8}T\d{6}Z\.tar\.gz", left.name)
    assert taken.stdout.startswith(f"backups/{left.name}: 2 transactions (requests.db), ")
    assert taken.stdout.endswith(f"\nDeleted backups/{old.name}.\n")


@pytest.mark.parametrize(
    "arguments", [[], ["a.tar", "--into", "b"], ["a.tar", "--keep", "2"], ["--keep", "2"]], ids=" ".join
)
def test_a_backup_goes_to_one_place(fraudctl: Fraudctl, environment: dict[str, str], arguments: list[str]) -> None:
    refused = fraudctl("db", "backup", *arguments, env=environment, exit_code=2)

    assert "expected TARGET, or --into FOLDER with or without --keep" in refused.stderr


def test_restore_needs_the_api_stopped(
    fraudctl: Fraudctl, sqlite_store: Store, sqlite_environment: dict[str, str], tmp_path: Path
) -> None:
    fraudctl("db", "backup", "today", env=sqlite_environment)

    with in_use(Path(sqlite_environment["LATEST_DB"]), tmp_path):
        result = fraudctl("db", "restore", "today", "--replace", env=sqlite_environment, exit_code=1)

    assert "a running API has this store open; stop it first" in result.stderr


def test_copy_moves_to_postgresql(
    fraudctl: Fraudctl,
    sqlite_store: Store,
    features: FeatureList,
    sqlite_environment: dict[str, str],
    postgresql_database: str,
) -> None:
    environment = {**sqlite_environment, "DATABASE_URL": postgresql_database}
    unset = fraudctl("db", "copy", env=sqlite_environment, exit_code=2)
    missing = fraudctl("db", "copy", env={**environment, "LATEST_DB": "no.db", "TRAIN_DB": "no.db"}, exit_code=2)

    copied = fraudctl("db", "copy", env=environment)

    assert "DATABASE_URL is not set" in unset.stderr
    assert "LATEST_DB: there is no no.db to copy" in missing.stderr
    assert copied.stdout == "Copied 0 requests, 0 labels, 0 idempotency; every row is identical.\n"


def test_copy_needs_the_api_stopped(
    fraudctl: Fraudctl, running_api: dict[str, str], features: FeatureList, postgresql_database: str
) -> None:
    environment = {**running_api, "DATABASE_URL": postgresql_database}

    refused = fraudctl("db", "copy", env=environment, exit_code=1)

    assert "a running API has this store open; stop it first" in refused.stderr
    with pytest.raises(DatabaseRefused, match="has no tables yet"):
        Store.open(postgresql_database, features)


def test_copy_brings_live_and_imported_transactions_together(
    fraudctl: Fraudctl,
    sqlite_store: Store,
    sqlite_environment: dict[str, str],
    postgresql_database: str,
    tmp_path: Path,
) -> None:
    """As in a cluster, history has its own file, and models, drift result and MLflow's files stay."""
    environment = {**sqlite_environment, "TRAIN_DB": str(tmp_path / "data" / "history.db")}
    for store in (sqlite_store, Store.create_or_migrate(Path(environment["TRAIN_DB"]), sqlite_store.features)):
        rows = ImportedRows(Clock().tick()[1], ["2026-01-01 00:00:00.000000"], np.zeros((1, 29)), [True], [None])
        with store.begin() as connection:
            transfer.import_history(store, connection, [rows], reporter="r", received_at="2026-01-03 00:00:00.000000")
        store.close()
    before = sorted(path for path in tmp_path.rglob("*") if path.is_file())

    copied = fraudctl("db", "copy", env={**environment, "DATABASE_URL": postgresql_database})

    assert copied.stdout == "Copied 2 requests, 2 labels, 0 idempotency; every row is identical.\n"
    assert set(before) <= set(tmp_path.rglob("*"))
    checked = fraudctl("db", "check", env={**environment, "DATABASE_URL": postgresql_database})
    assert "(2 rows): ok" in checked.stdout
    assert re.search(r"^model \S+: ok$", checked.stdout, re.MULTILINE)


def test_an_encrypted_backup_is_restored_only_with_its_key(
    fraudctl: Fraudctl, filled: Store, environment: dict[str, str], tmp_path: Path
) -> None:
    made = fraudctl("db", "backup-key", "backup.key", env=environment)
    twice = fraudctl("db", "backup-key", "backup.key", env=environment, exit_code=1)
    with_key = environment | {"BACKUP_KEY_FILE": "backup.key"}
    misnamed = fraudctl("db", "backup", "today.tar", env=with_key, exit_code=2)
    fraudctl("db", "backup", "plain.tar", env=environment)
    fraudctl("db", "backup", "today.tar.age", env=with_key)
    rotated = fraudctl("db", "backup-key", "backup.key", "--add", env=environment)
    without = fraudctl("db", "restore", "today.tar.age", "--replace", env=environment, exit_code=2)
    plain = fraudctl("db", "restore", "plain.tar", "--replace", env=with_key, exit_code=3)
    piped = fraudctl(
        "db", "restore", "/dev/stdin", "--replace", env=with_key, answer=(tmp_path / "today.tar.age").read_bytes()
    )
    cut = fraudctl(
        "db", "restore", "/dev/stdin", "--replace", env=with_key, answer=(tmp_path / "today.tar.age").read_bytes()[:-1],
        exit_code=3,
    )  # fmt: skip
    trusted = fraudctl("db", "restore", "plain.tar", "--replace", "--unencrypted", env=with_key)

    assert made.stdout == "backup.key: a key was made. Copy it to a safe place now.\n"
    assert rotated.stdout == "backup.key: a newer key was added. Copy it to a safe place now.\n"
    assert "exists already" in twice.stderr
    assert "name it today.tar.age" in misnamed.stderr
    assert without.stderr == ("fraudctl: today.tar.age: is encrypted; set BACKUP_KEY_FILE to the file with its key\n")
    assert "plain.tar: is not encrypted although BACKUP_KEY_FILE is set" in plain.stderr
    assert "add --unencrypted if you know that it is yours" in plain.stderr
    assert "was changed or cut after it was encrypted" in cut.stderr
    for restored in (piped, trusted):
        assert "2 transactions (requests.db)" in restored.stdout
    assert not [
        text for text in (made.output, rotated.output, without.output) if "AGE-SECRET" in text or "age1" in text
    ]
