"""Asks one of our modules something in a child process, which may hang, crash or run out of memory without harm."""

import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import fraud_detection
from fraud_detection.exit_codes import ExitCode, ExpectedError

NoAnswerReason = Literal["timeout", "crashed", "untried"]


class NoAnswer(ExpectedError):
    """The child process gave no verdict, so what it was asked about is neither good nor bad; trying again may help."""

    def __init__(self, reason: NoAnswerReason, message: str) -> None:
        super().__init__(message)
        self.reason: NoAnswerReason = reason


def ask(
    module: str,
    *arguments: str,
    seconds: float,
    given: bytes = b"",
    environ: Mapping[str, str] | None = None,
) -> str | None:
    """Run `python -m MODULE` with `given` as its input; return None if it exits with DONE, its complaint with UNUSABLE.

    The complaint is the last line on its standard error. Every other end is no verdict: a signal, a timeout, another
    exit code.

    Raises NoAnswer.
    """
    try:
        child = subprocess.run(  # noqa: S603  our own module, without a shell
            [sys.executable, "-m", module, *arguments],
            input=given,
            capture_output=True,
            timeout=seconds,
            check=False,
            cwd=Path(fraud_detection.__path__[0]).parent,
            env=environ,
        )
    except subprocess.TimeoutExpired as error:
        raise NoAnswer("timeout", f"no answer within {seconds:g} seconds") from error
    except OSError as error:  # no process, memory or descriptor was left
        raise NoAnswer("untried", f"a new process could not be started ({error.strerror})") from error
    if child.returncode == ExitCode.DONE:
        return None
    last_line = (child.stderr.decode(errors="replace").strip().splitlines() or ["it gave no reason"])[-1]
    if child.returncode == ExitCode.UNUSABLE:
        return last_line
    if child.returncode < 0:
        ended_by = signal.Signals(-child.returncode).name
        hint = "; SIGKILL often means that memory ran out" if ended_by == "SIGKILL" else ""
        raise NoAnswer("crashed", f"the new process was ended by {ended_by}{hint}")
    raise NoAnswer("untried", f"the new process failed with exit code {child.returncode} ({last_line})")
