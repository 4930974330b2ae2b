"""A child process gives a verdict, or none: a signal, a timeout and another exit code say nothing."""

import os
from pathlib import Path

import pytest

from fraud_detection.child import NoAnswer, ask


def ask_module(code: str, folder: Path, *, given: bytes = b"", seconds: float = 60) -> str | None:
    (folder / "asked_by_a_test.py").write_text(code)
    environ = {**os.environ, "PYTHONPATH": str(folder)}
    return ask("asked_by_a_test", "argument", given=given, seconds=seconds, environ=environ)


def test_a_child_that_ends_well_has_nothing_to_complain_about(tmp_path: Path) -> None:
    assert ask_module("pass", tmp_path) is None


def test_a_complaint_is_the_last_line_on_standard_error(tmp_path: Path) -> None:
    code = "import sys; print('a warning', file=sys.stderr); print(sys.argv[1], input(), file=sys.stderr); sys.exit(3)"

    assert ask_module(code, tmp_path, given=b"and input\n") == "argument and input"


@pytest.mark.parametrize(
    ("code", "reason", "message"),
    [
        ("import time; time.sleep(60)", "timeout", "no answer within 0.3 seconds"),
        ("import os; os.kill(os.getpid(), 9)", "crashed", "ended by SIGKILL; SIGKILL often means that memory ran out"),
        ("import os; os.abort()", "crashed", "ended by SIGABRT"),
        ("raise MemoryError", "untried", r"exit code 1 \(MemoryError\)"),
        ("import sys; sys.exit(2)", "untried", r"exit code 2 \(it gave no reason\)"),
    ],
)
def test_every_other_end_is_no_verdict(tmp_path: Path, code: str, reason: str, message: str) -> None:
    with pytest.raises(NoAnswer, match=message) as unanswered:
        ask_module(code, tmp_path, seconds=0.3 if reason == "timeout" else 60)

    assert unanswered.value.reason == reason


def test_a_child_that_cannot_be_started_is_no_verdict(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.executable", str(tmp_path / "none"))

    with pytest.raises(NoAnswer, match=r"could not be started \(No such file or directory\)") as unanswered:
        ask_module("pass", tmp_path)

    assert unanswered.value.reason == "untried"
