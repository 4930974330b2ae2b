"""`make generate` writes what has changed, and a missing tool stops only its own files."""

from pathlib import Path

import pytest

import generate.__main__ as program
from generate.chart import ToolMissing


def needs_a_tool() -> str:
    raise ToolMissing("helm-docs is not installed")


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with two of four generated files, one of them out of date."""
    (tmp_path / "current.md").write_text("current\n")
    (tmp_path / "old.md").write_text("old\n")
    texts = {
        "by-tool.md": needs_a_tool,
        "current.md": lambda: "current\n",
        "old.md": lambda: "new\n",
        "absent.md": lambda: "first\n",
    }
    monkeypatch.setattr(program, "ROOT", tmp_path)
    monkeypatch.setattr(program, "FILES", texts)
    return tmp_path


def test_writes_and_names_only_what_has_changed(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = (root / "current.md").stat().st_mtime_ns

    program.main()

    assert {path.name: path.read_text() for path in root.iterdir()} == {
        "current.md": "current\n",
        "old.md": "new\n",
        "absent.md": "first\n",
    }
    assert capsys.readouterr().out == "wrote old.md\nwrote absent.md\n"
    assert (root / "current.md").stat().st_mtime_ns == before


def test_a_missing_tool_is_named_and_fails_the_command(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert program.main() == 1

    assert capsys.readouterr().err == "by-tool.md was not written: helm-docs is not installed\n"


def test_succeeds_when_every_file_was_written(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(program, "FILES", {"old.md": lambda: "new\n"})

    assert program.main() == 0
