"""`fraudctl import` and `import-db` read files and pipes, and name a bad line."""

import gzip
import os
import sqlite3
import subprocess
import sys
import urllib.request
from pathlib import Path

import pandas
import pytest

from fraud_detection.features import FeatureList
from fraud_detection.lock import in_use
from fraud_detection.settings import JobSettings
from jobs.installation import Installation
from jobs.training.read_history import read_history
from tests.fraudctl.history_csv import history
from tests.support.command_line import Fraudctl
from tests.support.project import ROOT
from tests.support.service import api_process
from tests.support.waiting import PATIENCE_SECONDS


def test_import_csv_says_what_came_in(fraudctl: Fraudctl, environment: dict[str, str], tmp_path: Path) -> None:
    result = fraudctl("import-csv", history(tmp_path), "--start", "2026-01-01", env=environment)

    assert result.stdout == (
        "history.csv: imported 2 transactions (1 fraud, 1 genuine, 0 unknown) from 2026-01-01 00:00:00 to "
        "2026-01-01 01:00:00.\nAmount_scaled = (Amount - 88.35) / 250.12, in this import and all later ones.\n"
    )


def test_import_takes_parquet_and_knows_it_by_its_content_too(
    fraudctl: Fraudctl, sqlite_environment: dict[str, str], tmp_path: Path
) -> None:
    pandas.read_csv(history(tmp_path)).to_parquet("history.parquet")
    content = Path("history.parquet").read_bytes()

    named = fraudctl("import", "history.parquet", env=sqlite_environment)
    through_a_pipe = piped(content, "import", "/dev/stdin", "--again", env=sqlite_environment)
    bad = fraudctl("import", "history.parquet", "--ignore", "Class", env=sqlite_environment, exit_code=1)

    assert named.stdout.startswith("history.parquet: imported 2 transactions (1 fraud, 1 genuine, 0 unknown)")
    assert through_a_pipe.stdout.startswith("stdin: imported 2 transactions (1 fraud, 1 genuine, 0 unknown)")
    assert "was imported before, as stdin.parquet" in bad.stderr


def test_a_bad_row_of_parquet_is_named(fraudctl: Fraudctl, sqlite_environment: dict[str, str], tmp_path: Path) -> None:
    pandas.read_csv(history(tmp_path, last="2")).to_parquet("history.parquet")

    result = fraudctl("import", "history.parquet", env=sqlite_environment, exit_code=3)

    assert result.stderr.endswith("history.parquet, row 2: column Class: expected 0, 1 or nothing\n")


def test_import_csv_names_the_bad_line(fraudctl: Fraudctl, sqlite_environment: dict[str, str], tmp_path: Path) -> None:
    result = fraudctl("import-csv", history(tmp_path, last="2"), env=sqlite_environment, exit_code=3)

    assert result.stderr.endswith("history.csv, line 3: column Class: expected 0, 1 or nothing\n")


def test_import_csv_leaves_a_store_in_use_alone(
    fraudctl: Fraudctl, sqlite_environment: dict[str, str], tmp_path: Path
) -> None:
    with in_use(Path(sqlite_environment["TRAIN_DB"]), tmp_path):
        result = fraudctl("import-csv", history(tmp_path), env=sqlite_environment, exit_code=1)

    assert "let TRAIN_DB name a file of its own" in result.stderr


def test_import_csv_needs_a_time_to_start_from(
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

    assert "old.db: imported 1 transaction (0 fraud, 0 genuine, 1 unknown)" in result.stdout
    assert "Left behind: Class, prob." in result.stdout


# -- through a pipe, as from `kubectl exec -i` -----------------------------------------------------------------------


def piped(content: bytes, *command: str, env: dict[str, str], exit_code: int = 0) -> subprocess.CompletedProcess[str]:
    """Run a command as a process whose standard input is a pipe that brings `content`."""
    read, write = os.pipe()
    with subprocess.Popen(
        [sys.executable, "-m", "fraudctl", *command],
        stdin=read, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT,
        env={"PATH": os.environ["PATH"], **env},
    ) as process:  # fmt: skip
        os.close(read)
        with os.fdopen(write, "wb") as pipe:
            pipe.write(content)
        out, err = process.communicate(timeout=PATIENCE_SECONDS)
    assert process.returncode == exit_code, err
    return subprocess.CompletedProcess(process.args, process.returncode, out, err)


@pytest.mark.parametrize("pack", [bytes, gzip.compress], ids=["plain", "packed"])
def test_history_comes_in_through_a_pipe_while_the_api_runs(
    environment: dict[str, str], features: FeatureList, tmp_path: Path, pack: type[bytes]
) -> None:
    environment["TRAIN_DB"] = str(tmp_path / "data" / "history.db")
    content = pack(history(tmp_path).read_bytes())

    with api_process(environment, tmp_path / "log") as url:
        done = piped(content, "import-csv", "/dev/stdin", env=environment)
        again = piped(content, "import-csv", "/dev/stdin", env=environment, exit_code=1)
        with urllib.request.urlopen(f"{url}/health", timeout=PATIENCE_SECONDS) as health:  # noqa: S310  our own address
            assert health.status == 200

    assert done.stdout.startswith("stdin: imported 2 transactions (1 fraud, 1 genuine, 0 unknown)")
    assert done.stderr == "read 0.0 MB from standard input\n"
    assert "was imported before" in again.stderr
    stored, _ = read_history(Installation(JobSettings.from_env(environment), features))
    assert stored.is_fraud.tolist() == [0, 1]


def test_an_old_database_comes_in_through_a_pipe_too(sqlite_environment: dict[str, str], tmp_path: Path) -> None:
    old = sqlite3.connect(tmp_path / "old.db")
    old.execute(
        f"CREATE TABLE requests ({', '.join(f'V{number} REAL' for number in range(1, 29))}, Amount_scaled REAL)"
    )
    old.execute(f"INSERT INTO requests VALUES ({', '.join(['0'] * 29)})")  # noqa: S608  zeros
    old.commit()
    old.close()

    done = piped((tmp_path / "old.db").read_bytes(), "import-db", "/dev/stdin", env=sqlite_environment)

    assert done.stdout.startswith("stdin: imported 1 transaction")


def test_standard_input_for_which_there_is_no_room_says_where_more_may_be(
    sqlite_environment: dict[str, str], tmp_path: Path
) -> None:
    limited = "import resource, sys; resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, -1)); "
    run = limited + "from fraudctl.main import main; main(['import-csv', '/dev/stdin'])"

    refused = subprocess.run(
        [sys.executable, "-c", run],
        input=b"x" * 3_000_000, capture_output=True, check=False, cwd=ROOT,
        env={"PATH": os.environ["PATH"], **sqlite_environment, "TMPDIR": str(tmp_path)},
    )  # fmt: skip

    assert refused.returncode == 1
    assert f"{tmp_path}: no room for standard input after 1.0 MB; set TMPDIR to a folder" in refused.stderr.decode()
