"""Notices that a file of an open SQLite database, or its folder, was removed or replaced."""

import contextlib
import errno
import os
from pathlib import Path

from fraud_detection.exit_codes import ExitCode, ExpectedError

_Identity = tuple[int, int, bool]
_GONE = {errno.ENOENT, errno.ENOTDIR, errno.ELOOP}


class StoreVanished(ExpectedError):
    """A path no longer leads to the file that this process has open; the message names the path."""

    exit_code = ExitCode.UNUSABLE


class OpenFiles:
    """The files of one database by device and inode, as this process has them open.

    They are never opened here, because closing any descriptor of them would drop SQLite's locks.
    """

    def __init__(self, database: Path) -> None:
        """Note the files; a connection must be open.

        Raises StoreVanished.
        """
        path = database.absolute()
        self._named = str(database.resolve())  # SQLite names the other two after it
        self._log = f"{self._named}-wal"
        self._locks = f"{self._named}-shm"  # if it is gone, other processes make their own and do not wait
        self._opened = {str(path.parent): _found(str(path.parent))}  # first, because a message names one path
        for file in (str(path), self._named, self._log, self._locks):
            self._opened[file] = _opened_here(file)

    def require_unchanged(self) -> None:
        """Compare what is at the paths with what is open.

        Raises StoreVanished; OSError if the file system does not tell.
        """
        for path, opened in self._opened.items():
            found = self._found_at(path)
            if found != opened:
                is_there = found is not None and found[:2] != opened[:2]
                what = "replaced by another" if is_there else "removed or moved away"
                raise StoreVanished(f"{path}: was {what} while the API served")

    def is_log_in_place(self) -> bool:
        """Return whether the next start will find the log that is open, and the database to which it belongs."""
        others = {path: opened for path, opened in self._opened.items() if path != self._locks}
        return self._log in others and all(self._found_at(path) == opened for path, opened in others.items())

    def forget_closed_log(self) -> None:
        """Stop comparing log and locks if no connection has them open: SQLite removes them with the last one."""
        for file in (self._log, self._locks):
            if file in self._opened and not _is_open_here(self._opened[file]):
                del self._opened[file]

    def note_reopened_log(self) -> None:
        """Compare the log of a new connection and its locks from now on.

        Raises StoreVanished.
        """
        for file in (self._log, self._locks):
            if file not in self._opened:
                self._opened[file] = _opened_here(file)

    def _found_at(self, path: str) -> _Identity | None:
        # A link where the file was may lead to it, but the next start would look for the log beside what it leads to.
        return _identity(path, follow_links=path != self._named)


def _identity(path: str, *, follow_links: bool = True) -> _Identity | None:
    """Return device, inode, and whether a folder still names it, None if nothing is there.

    A mount, as of a container, keeps a file at its path whose name is gone.
    """
    try:
        status = os.stat(path, follow_symlinks=follow_links)  # noqa: PTH116  a Path would cost as much as the call
    except OSError as error:
        if error.errno in _GONE:
            return None
        raise
    return status.st_dev, status.st_ino, status.st_nlink > 0


def _opened_here(path: str) -> _Identity:
    found = _found(path)
    if not _is_open_here(found):  # otherwise the other file would pass for the open one
        raise StoreVanished(f"{path}: was replaced while the API opened it; start the API again")
    return found


def _found(path: str) -> _Identity:
    found = _identity(path)
    if found is None:
        raise StoreVanished(f"{path}: was removed while the API opened it; start the API again")
    return found


def _is_open_here(file: _Identity) -> bool:
    """Return whether a descriptor of this process leads to the file, whatever its name is now."""
    for descriptor in os.listdir("/proc/self/fd"):  # noqa: PTH208  names are enough
        with contextlib.suppress(OSError):  # the descriptor of the listing itself
            found = _identity(f"/proc/self/fd/{descriptor}")
            if found is not None and found[:2] == file[:2]:
                return True
    return False
