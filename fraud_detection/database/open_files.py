"""Notices that files of an open SQLite database were removed, replaced or truncated."""

import contextlib
import errno
import os
import struct
from pathlib import Path

from fraud_detection.exit_codes import ExitCode, ExpectedError

_Identity = tuple[int, int, bool]
_GONE = {errno.ENOENT, errno.ENOTDIR, errno.ELOOP}

# The start of -shm (https://sqlite.org/walformat.html): twice what the last COMMIT left (page size, frames in the log,
# pages of the database, salt of the log), then how many frames are in the database.
_INDEX = struct.Struct("=14xHII8x8s8x48xI")
_LOG_HEADER_BYTES, _FRAME_HEADER_BYTES, _SALT_IN_LOG = 32, 24, 16
_ATTEMPTS = 10  # other processes may commit while we look


class StoreVanished(ExpectedError):
    """A path no longer leads to the file that this process has open, or to all of it; the message names the path."""

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
        self._folder = str(path.parent)
        self._opened_folder = _found(self._folder)
        self._opened = {file: _opened_here(file) for file in (str(path), self._named, self._log, self._locks)}
        self._descriptors = self._find_descriptors()
        self._last_frame = (b"", 0, b"")  # the salt of a log, and the place and content of its last frame that was seen
        self.is_torn = False
        """Whether a file was truncated or overwritten: then the log must not be written back."""

    def require_unchanged(self) -> None:
        """Compare what is at the paths with what is open, and what is in it with what SQLite has written.

        Raises StoreVanished; OSError if the file system does not tell.
        """
        sizes = {}
        for path, opened in self._opened.items():
            status = self._status_at(path)
            if status is None or (status.st_dev, status.st_ino, status.st_nlink > 0) != opened:
                raise self._vanished(path)
            sizes[path] = status.st_size
        if self._locks in sizes and self._torn(_read(self._descriptors[0]), sizes[self._named]):
            self._require_whole()

    def _vanished(self, path: str) -> StoreVanished:
        """Return the error for a path, or for its folder if that is why."""
        found, opened = _identity_of(_status(self._folder)), self._opened_folder
        if found == opened:
            found, opened = self._found_at(path), self._opened[path]
        else:
            path = self._folder
        is_there = found is not None and found[:2] != opened[:2]
        return StoreVanished(
            f"{path}: was {'replaced by another' if is_there else 'removed or moved away'} while the API served"
        )

    def _require_whole(self) -> None:
        """Look again, more slowly: files grow, and descriptors that are not ours are closed and used again.

        SQLite writes frames to the log before it counts them, and counts none before it truncates the log. It writes
        the salt of a new log before its first frame, and counts the frames of a checkpoint after it has written them.
        So what it counts before and after a look is in the files if nothing else changes them.
        """
        for _ in range(_ATTEMPTS):
            self._descriptors = self._find_descriptors()
            before = _read(self._descriptors[0])
            database = self._status_at(self._named)
            if database is None or -1 in self._descriptors:
                return  # the next comparison names what is gone
            torn = self._torn(before, database.st_size)
            if torn is None:
                return
            if torn and _read(self._descriptors[0]) == before:
                self.is_torn = True
                raise StoreVanished(f"{torn}: was truncated or overwritten while the API served")

    def _torn(self, start: bytes, database_bytes: int) -> str | None:
        """Return the file that lacks what -shm says, None if there is none, empty if a process is writing -shm."""
        if len(start) < _INDEX.size:
            return self._locks
        if start[:48] != start[48:96]:
            return ""
        page_bytes, frames, pages, salt, written_back = _INDEX.unpack(start)
        page_bytes = page_bytes if page_bytes > 1 else 65536
        frame_bytes = _FRAME_HEADER_BYTES + page_bytes
        if frames:
            # A COMMIT after the end was cut off leaves a hole there, and in it the last frame that was seen.
            if self._last_frame[0] != salt:
                self._last_frame = salt, _SALT_IN_LOG, salt
            _, place, content = self._last_frame
            if _read(self._descriptors[1], len(content), place) != content:
                return self._log
            place = _LOG_HEADER_BYTES + (frames - 1) * frame_bytes
            content = _read(self._descriptors[1], frame_bytes, place)
            if len(content) < frame_bytes:  # the end was cut off
                return self._log
            self._last_frame = salt, place, content
        # The pages since the last complete checkpoint may be in the log alone.
        is_complete = written_back == frames
        return self._named if database_bytes < page_bytes * (pages if is_complete else 1) else None

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
        self._descriptors = self._find_descriptors()

    def _find_descriptors(self) -> tuple[int, int]:
        """Return descriptors of locks and log that SQLite has open, -1 for none."""
        return _descriptor_of(self._opened.get(self._locks)), _descriptor_of(self._opened.get(self._log))

    def _found_at(self, path: str) -> _Identity | None:
        return _identity_of(self._status_at(path))

    def _status_at(self, path: str) -> os.stat_result | None:
        # A link where the file was may lead to it, but the next start would look for the log beside what it leads to.
        return _status(path, follow_links=path != self._named)


def _status(path: str, *, follow_links: bool = True) -> os.stat_result | None:
    """Return what the file system says of a file, None if nothing is there."""
    try:
        return os.stat(path, follow_symlinks=follow_links)  # noqa: PTH116  a Path would cost as much as the call
    except OSError as error:
        if error.errno in _GONE:
            return None
        raise


def _identity_of(status: os.stat_result | None) -> _Identity | None:
    """Return device, inode, and whether a folder still names the file.

    A mount, as of a container, keeps a file at its path whose name is gone.
    """
    return None if status is None else (status.st_dev, status.st_ino, status.st_nlink > 0)


def _read(descriptor: int, count: int = _INDEX.size, place: int = 0) -> bytes:
    """Return what a file holds there, nothing if the descriptor does not lead to a file."""
    try:
        return os.pread(descriptor, count, place)
    except OSError as error:
        if error.errno in {errno.EBADF, errno.ESPIPE, errno.EINVAL, errno.EISDIR}:
            return b""
        raise


def _opened_here(path: str) -> _Identity:
    found = _found(path)
    if not _is_open_here(found):  # otherwise the other file would pass for the open one
        raise StoreVanished(f"{path}: was replaced while the API opened it; start the API again")
    return found


def _found(path: str) -> _Identity:
    found = _identity_of(_status(path))
    if found is None:
        raise StoreVanished(f"{path}: was removed while the API opened it; start the API again")
    return found


def _is_open_here(file: _Identity) -> bool:
    """Return whether a descriptor of this process leads to the file, whatever its name is now."""
    return _descriptor_of(file) >= 0


def _descriptor_of(file: _Identity | None) -> int:
    """Return a descriptor of this process that leads to the file, -1 if there is none."""
    if file is not None:
        for descriptor in os.listdir("/proc/self/fd"):  # noqa: PTH208  names are enough
            with contextlib.suppress(OSError):  # the descriptor of the listing itself
                found = _identity_of(_status(f"/proc/self/fd/{descriptor}"))
                if found is not None and found[:2] == file[:2]:
                    return int(descriptor)
    return -1
