import sqlite3
from pathlib import Path

from fraud_detection.lock import in_use
from tests.fraudctl.conftest import Fraudctl

HEADER = ",".join(["Time", *(f"V{number}" for number in range(1, 29)), "Amount", "Class"])
COMPONENTS = ",".join(["0.5"] * 28)


def history(folder: Path, *, last: str = "1") -> Path:
    path = folder / "history.csv"
    path.write_text(f"{HEADER}\n0,{COMPONENTS},10,0\n3600,{COMPONENTS},30,{last}\n")
    return path


def test_import_csv_says_what_came_in(fraudctl: Fraudctl, environment: dict[str, str], tmp_path: Path) -> None:
    result = fraudctl("import-csv", history(tmp_path), "--start", "2026-01-01", env=environment)

    assert result.stdout == (
        "history.csv: imported 2 transactions (1 fraud, 1 genuine, 0 unknown) from 2026-01-01 00:00:00 to "
        "2026-01-01 01:00:00.\nAmount_scaled = (Amount - 88.35) / 250.12, here and from now on.\n"
    )


def test_import_csv_names_the_bad_line(fraudctl: Fraudctl, sqlite_environment: dict[str, str], tmp_path: Path) -> None:
    result = fraudctl("import-csv", history(tmp_path, last="2"), env=sqlite_environment, exit_code=3)

    assert result.stderr.endswith("history.csv, line 3: column Class: expected 0, 1 or nothing\n")


def test_import_csv_leaves_a_store_in_use_alone(
    fraudctl: Fraudctl, sqlite_environment: dict[str, str], tmp_path: Path
) -> None:
    with in_use(Path(sqlite_environment["TRAIN_DB"])):
        result = fraudctl("import-csv", history(tmp_path), env=sqlite_environment, exit_code=1)

    assert "let TRAIN_DB name a file of its own" in result.stderr


def test_import_csv_wants_a_time_to_start_from(
    fraudctl: Fraudctl, sqlite_environment: dict[str, str], tmp_path: Path
) -> None:
    result = fraudctl("import-csv", history(tmp_path), "--start", "noon", env=sqlite_environment, exit_code=2)

    assert "expected a time such as 2026-08-22" in result.stderr


def test_import_db_says_what_came_in_and_what_did_not(
    fraudctl: Fraudctl, sqlite_environment: dict[str, str], tmp_path: Path
) -> None:
    old = sqlite3.connect(tmp_path / "old.db")
    columns = [*(f"V{number} REAL" for number in range(1, 29)), "Amount_scaled REAL"]
    old.execute(f"CREATE TABLE requests (ts TEXT, prob REAL, Class INTEGER, {', '.join(columns)})")
    old.execute(f"INSERT INTO requests VALUES ('2026-01-01', 0.5, 1, {', '.join(['0'] * 29)})")  # noqa: S608  zeros
    old.commit()
    old.close()

    result = fraudctl("import-db", tmp_path / "old.db", "--without-labels", env=sqlite_environment)

    assert "old.db: imported 1 transactions (0 fraud, 0 genuine, 1 unknown)" in result.stdout
    assert "Left behind: Class, prob." in result.stdout
