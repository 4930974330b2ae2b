"""Progress is drawn on a terminal, and never between the lines of a log."""

import os
import subprocess
import sys
import termios

import pytest

from fraud_detection.store import Store
from tests.support.project import ROOT
from tests.support.terminal import terminal

WORK = """
import sys
from fraud_detection import logs
from jobs.progress import bar, step
if sys.argv[1:]:
    logs.configure(*sys.argv[1:])
with step("thinking {of} it"):
    pass
with bar(desc="counting", unit=" rows", total=2) as drawn:
    vars(drawn).update(start_t=0.0, last_print_t=0.0)  # as if it had begun long ago
    drawn.update(1)
"""


def drawn(*command: object, env: dict[str, str] | None = None) -> str:
    """Run Python with a terminal as its standard error, and return what that shows."""
    with terminal() as (person, program):
        termios.tcsetwinsize(program, (24, 80))
        subprocess.run(
            [sys.executable, *map(str, command)],
            stdout=subprocess.DEVNULL, stderr=program, check=True, cwd=ROOT, env={**os.environ, **(env or {})},
        )  # fmt: skip
        os.set_blocking(person, False)
        try:
            return os.read(person, 100_000).decode()
        except BlockingIOError:
            return ""


def test_a_terminal_shows_steps_and_bars() -> None:
    shown = drawn("-c", WORK)

    assert "thinking {of} it …" in shown
    assert "counting:  50%" in shown


@pytest.mark.parametrize("log", [("INFO", "json"), ("INFO", "text"), ("ERROR", "json")])
def test_a_log_is_not_broken_by_them(log: tuple[str, str]) -> None:
    assert drawn("-c", WORK, *log) == ""


def test_a_command_whose_log_is_off_shows_them() -> None:
    assert "thinking {of} it …" in drawn("-c", WORK, "CRITICAL", "json")


def test_without_a_terminal_nothing_is_drawn() -> None:
    done = subprocess.run([sys.executable, "-c", WORK], capture_output=True, text=True, check=True, cwd=ROOT)

    assert done.stderr == ""


def test_retrain_says_what_it_does(sqlite_store: Store, sqlite_environment: dict[str, str]) -> None:
    shown = drawn("-m", "fraudctl", "retrain", "--force", env=sqlite_environment)

    assert "reading transactions …" in shown
