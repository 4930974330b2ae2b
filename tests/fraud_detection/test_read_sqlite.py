import io
import subprocess
import sys
from pathlib import Path

import pytest
from pysqlite3 import dbapi2

from fraud_detection.read_sqlite import main
from tests.conftest import ROOT

ALL = "SELECT * FROM payments ORDER BY id"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A database that somebody has open and writes to, as the service does."""
    path = tmp_path / "payments.db"
    with dbapi2.connect(str(path)) as writer:
        writer.execute("PRAGMA journal_mode=WAL")
        writer.execute("CREATE TABLE payments (id INTEGER PRIMARY KEY, shop TEXT, amount REAL, seal BLOB)")
        writer.executemany(
            "INSERT INTO payments VALUES (?, ?, ?, ?)", [(1, "a, b", 0.1, b"s"), (2, "100 %", 1e-05, None)]
        )
    return path


def test_prints_rows_as_the_original_does(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(file), f"{ALL};"]) == 0

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
    assert main([option, str(file), "SELECT * FROM payments WHERE shop LIKE '%\\%' ESCAPE '\\'"]) == 0

    assert capsys.readouterr().out == printed


def test_csv_is_quoted_where_it_must_be(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["-csv", "-header", str(file), "SELECT id, shop FROM payments"]) == 0

    assert capsys.readouterr().out == 'id,shop\n1,"a, b"\n2,100 %\n'


def test_reads_the_statement_from_standard_input(
    file: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO("SELECT COUNT(*)\nFROM payments;\n"))

    assert main([str(file)]) == 0

    assert capsys.readouterr().out == "2\n"


def test_sees_what_a_writer_committed_and_not_what_it_is_about_to(
    file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    writer = dbapi2.connect(str(file), isolation_level=None)
    writer.execute("INSERT INTO payments (shop) VALUES ('committed')")
    writer.execute("BEGIN IMMEDIATE")
    writer.execute("INSERT INTO payments (shop) VALUES ('not yet')")

    assert main([str(file), "SELECT shop FROM payments ORDER BY id DESC LIMIT 1"]) == 0
    assert capsys.readouterr().out == "committed\n"
    writer.execute("COMMIT")
    assert main([str(file), "SELECT shop FROM payments ORDER BY id DESC LIMIT 1"]) == 0
    assert capsys.readouterr().out == "not yet\n"
    writer.close()


@pytest.mark.parametrize(
    ("sql", "message"),
    [
        (
            "INSERT INTO payments (shop) VALUES ('x')",
            "attempt to write a readonly database; this command reads one file and writes none",
        ),
        ("DROP TABLE payments", "attempt to write a readonly database; this command reads one file and writes none"),
        ("ATTACH 'other.db' AS other", "not authorized; this command reads one file and writes none"),
        ("VACUUM INTO 'other.db'", "cannot VACUUM from within a transaction"),
        ("SELECT writefile('other.db', shop) FROM payments", "no such function: writefile"),
        (
            ".shell touch other.db",
            'near ".": syntax error; this command knows SQL alone: "SELECT sql FROM sqlite_schema" shows the tables',
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

    assert main([str(file), sql]) == 1

    assert capsys.readouterr() == ("", f"Error: {message}\n")
    assert file.read_bytes() == before
    assert not Path("other.db").exists()


def test_a_file_that_is_not_there_is_not_made(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(tmp_path / "none.db"), "SELECT 1"]) == 1

    assert capsys.readouterr().err.startswith(f"Error: {tmp_path / 'none.db'}: no database there")
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_is_no_database_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "text.db").write_text("plain text, and enough of it to fill the header of a database" * 20)

    assert main([str(tmp_path / "text.db"), "SELECT 1"]) == 1

    assert "text.db: is damaged or no SQLite database" in capsys.readouterr().err


def test_help_shows_the_statement_that_everybody_wants() -> None:
    program = [sys.executable, "-m", "fraud_detection.read_sqlite", "--help"]

    shown = subprocess.run(program, cwd=ROOT, check=True, capture_output=True, text=True).stdout

    assert "SELECT * FROM requests ORDER BY ts DESC LIMIT 1;" in shown
