"""The reader of SQLite files prints as sqlite3 does, and never writes."""

import io
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from pysqlite3 import dbapi2

from fraud_detection.read_sqlite import read
from tests.support.project import ROOT

ALL = "SELECT * FROM payments ORDER BY id"
ENDLESS = "WITH RECURSIVE c(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM c) SELECT n FROM c"
ENDLESS_BEFORE_ITS_FIRST_ROW = "WITH RECURSIVE c(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM c) SELECT COUNT(*) FROM c"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A database in WAL mode, as the API writes it."""
    path = tmp_path / "payments.db"
    with dbapi2.connect(str(path)) as writer:
        writer.execute("PRAGMA journal_mode=WAL")
        writer.execute("CREATE TABLE payments (id INTEGER PRIMARY KEY, shop TEXT, amount REAL, seal BLOB)")
        writer.executemany(
            "INSERT INTO payments VALUES (?, ?, ?, ?)", [(1, "a, b", 0.1, b"s"), (2, "100 %", 1e-05, None)]
        )
    return path


def test_prints_rows_as_the_original_does(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert read([str(file), f"{ALL};"]) == 0

    assert capsys.readouterr().out == "1|a, b|0.1|s\n2|100 %|1e-05|\n"


@pytest.mark.parametrize(
    ("option", "printed"),
    [
        ("-header", "id|shop|amount|seal\n2|100 %|1e-05|\n"),
        ("-csv", "2,100 %,1e-05,\n"),
        ("-line", "id = 2\nshop = 100 %\namount = 1e-05\nseal = \n\n"),
        ("-readonly", "2|100 %|1e-05|\n"),
    ],
)
def test_prints_them_otherwise_when_asked(
    file: Path, capsys: pytest.CaptureFixture[str], option: str, printed: str
) -> None:
    assert read([option, str(file), "SELECT * FROM payments WHERE shop LIKE '%\\%' ESCAPE '\\'"]) == 0

    assert capsys.readouterr().out == printed


def test_csv_is_quoted_where_it_must_be(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert read(["-csv", "-header", str(file), "SELECT id, shop FROM payments"]) == 0

    assert capsys.readouterr().out == 'id,shop\n1,"a, b"\n2,100 %\n'


def test_reads_the_statement_from_standard_input(
    file: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO("SELECT COUNT(*)\nFROM payments;\n"))

    assert read([str(file)]) == 0

    assert capsys.readouterr().out == "2\n"


def test_sees_what_a_writer_committed_and_not_what_it_is_about_to(
    file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    writer = dbapi2.connect(str(file), isolation_level=None)
    writer.execute("INSERT INTO payments (shop) VALUES ('committed')")
    writer.execute("BEGIN IMMEDIATE")
    writer.execute("INSERT INTO payments (shop) VALUES ('not yet')")

    assert read([str(file), "SELECT shop FROM payments ORDER BY id DESC LIMIT 1"]) == 0
    assert capsys.readouterr().out == "committed\n"
    writer.execute("COMMIT")
    assert read([str(file), "SELECT shop FROM payments ORDER BY id DESC LIMIT 1"]) == 0
    assert capsys.readouterr().out == "not yet\n"
    writer.close()


@pytest.mark.parametrize(
    ("sql", "message"),
    [
        (
            "INSERT INTO payments (shop) VALUES ('x')",
            "attempt to write a readonly database; this command only reads, and only one file",
        ),
        ("DROP TABLE payments", "attempt to write a readonly database; this command only reads, and only one file"),
        ("ATTACH 'other.db' AS other", "not authorized; this command only reads, and only one file"),
        ("VACUUM INTO 'other.db'", "cannot VACUUM from within a transaction"),
        ("SELECT writefile('other.db', shop) FROM payments", "no such function: writefile"),
        (
            ".shell touch other.db",
            'near ".": syntax error; this command runs only SQL: "SELECT sql FROM sqlite_schema" shows the tables',
        ),
        ("SELECT 1; SELECT 2", "You can only execute one statement at a time."),
        ("SELECT colour FROM payments", "no such column: colour"),
    ],
)
def test_writes_nothing_and_says_why(
    file: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], sql: str, message: str
) -> None:
    monkeypatch.chdir(file.parent)
    before = file.read_bytes()

    assert read([str(file), sql]) == 1

    assert capsys.readouterr() == ("", f"Error: {message}\n")
    assert file.read_bytes() == before
    assert not Path("other.db").exists()


def test_a_file_that_is_not_there_is_not_made(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert read([str(tmp_path / "none.db"), "SELECT 1"]) == 1

    assert capsys.readouterr().err.startswith(f"Error: {tmp_path / 'none.db'}: no database there")
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_is_no_database_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "text.db").write_text("plain text, and enough of it to fill the header of a database" * 20)

    assert read([str(tmp_path / "text.db"), "SELECT 1"]) == 1

    assert capsys.readouterr().err == (
        f"Error: {tmp_path / 'text.db'}: expected an SQLite file, got one that does not begin as such: "
        "of another kind, or damaged\n"
    )


def test_a_damaged_database_is_named_as_damaged(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    damaged = file.with_name("damaged.db")
    damaged.write_bytes(file.read_bytes()[:100] + b"damaged" * 1000)

    assert read([str(damaged), "SELECT 1"]) == 1

    assert "damaged.db: is damaged" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("", "expected the name of an SQLite file, got an empty one"),
        (".", ".: expected a file, got a folder; give the path of a file"),
        ("/dev/null", "/dev/null: expected a file, got a device; give the path of a file"),
    ],
)
def test_what_is_no_file_is_named(capsys: pytest.CaptureFixture[str], name: str, message: str) -> None:
    assert read([name, "SELECT 1"]) == 1

    assert capsys.readouterr().err == f"Error: {message}\n"


@pytest.mark.parametrize("sql", [ENDLESS, ENDLESS_BEFORE_ITS_FIRST_ROW], ids=["between_rows", "before_a_row"])
def test_a_statement_without_end_is_stopped(file: Path, capsys: pytest.CaptureFixture[str], sql: str) -> None:
    assert read(["-timeout", "1", str(file), sql]) == 1

    assert capsys.readouterr().err == (
        "Error: the statement was stopped after 1 seconds; narrow it (WHERE, LIMIT), "
        "or allow more time with --timeout\n"
    )


@pytest.mark.parametrize("seconds", ["0", "-1", "86401", "nan"])
def test_a_limit_out_of_range_is_refused(file: Path, seconds: str) -> None:
    with pytest.raises(SystemExit):
        read([f"-timeout={seconds}", str(file), "SELECT 1"])


@pytest.mark.parametrize("signalled", [signal.SIGPIPE, signal.SIGINT])
def test_ends_quietly_when_its_reader_goes_away(file: Path, signalled: signal.Signals) -> None:
    program = [sys.executable, "-m", "fraud_detection.read_sqlite", str(file), ENDLESS]

    with subprocess.Popen(program, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as running:
        assert running.stdout is not None
        assert running.stderr is not None
        assert running.stdout.readline() == b"1\n"
        if signalled == signal.SIGPIPE:
            running.stdout.close()
        else:
            running.send_signal(signalled)
        errors = running.stderr.read()

    assert errors == b""
    assert running.returncode == -signalled


def test_help_shows_the_most_common_statement() -> None:
    program = [sys.executable, "-m", "fraud_detection.read_sqlite", "--help"]

    shown = subprocess.run(program, cwd=ROOT, check=True, capture_output=True, text=True).stdout

    assert "SELECT * FROM requests ORDER BY ts DESC LIMIT 1;" in shown
