"""Refuses what is no file, or no folder, where an installation keeps one, before a program opens it and waits."""

import errno
import os
import stat
from collections.abc import Callable
from pathlib import Path

from fraud_detection.exit_codes import ExitCode, ExpectedError

_KINDS: tuple[tuple[Callable[[int], bool], str], ...] = (
    (stat.S_ISDIR, "a folder"),
    (stat.S_ISFIFO, "a named pipe"),
    (stat.S_ISSOCK, "a socket"),
)


MADE_ANEW = "move it away, the next job makes the file"
"""What to do where the program chose the path."""
NAMED = "give the path of a file"
"""What to do where a variable or an argument chose the path."""


class NotAFile(ExpectedError):
    """Something else is where an installation keeps a file, or the folder of a file."""

    exit_code = ExitCode.UNUSABLE


def other_kind(path: Path) -> str | None:
    """Return what is at a path if it is no file; None for a file, for nothing, and for what cannot be looked at.

    >>> other_kind(Path("/")), other_kind(Path("/dev/null")), other_kind(Path("/no/such/file"))
    ('a folder', 'a device', None)
    """
    try:
        mode = path.stat().st_mode
    except OSError as error:
        return "a link that leads to itself" if error.errno == errno.ELOOP else None
    return kind_of(mode)


def kind_of(mode: int) -> str | None:
    """Return what a mode of `stat` says that it is; None for a file."""
    if stat.S_ISREG(mode):
        return None
    return next((kind for is_kind, kind in _KINDS if is_kind(mode)), "a device")


def wrong_kind(path: Path, what_to_do: str) -> str | None:
    """Return what is wrong with what is at a path, and what to do; None if a file is there or could be made."""
    problem, kind = no_folder(path.parent), other_kind(path)
    if problem is not None or kind is None:
        return problem
    return f"{path}: expected a file, got {kind}; {what_to_do}"


def no_folder(path: Path) -> str | None:
    """Return what stands in the place of a folder or of one above it, and what to do; None if it is or could be made.

    >>> no_folder(Path("/dev/null/models/a"))
    '/dev/null: expected a folder, got a device; give another path, or move it away'
    """
    found = next((place for place in (path, *path.parents) if os.path.lexists(place)), None)
    if found is None or found.is_dir():
        return None
    kind = other_kind(found) or ("a file" if found.exists() else "a link that leads nowhere")
    return f"{found}: expected a folder, got {kind}; give another path, or move it away"


def require_file(path: Path, what_to_do: str) -> None:
    """Raise NotAFile if something else than a file is at a path, or above it something else than a folder."""
    problem = wrong_kind(path, what_to_do)
    if problem is not None:
        raise NotAFile(problem)


def make_folder(path: Path) -> None:
    """Make a folder, with those above it, if it is missing; raises NotAFile if something else stands in its place."""
    problem = no_folder(path)
    if problem is not None:
        raise NotAFile(problem)
    path.mkdir(parents=True, exist_ok=True)
