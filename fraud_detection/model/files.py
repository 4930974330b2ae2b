"""Names the files of a version, reads them bounded, and writes them so that a power cut leaves old or new content."""

import contextlib
import errno
import os
from collections.abc import Iterator
from pathlib import Path

from fraud_detection.regular_file import kind_of

MANIFEST = "manifest.json"
ONNX = "model.onnx"
PICKLE = "rf_model.pkl"
REFERENCE = "reference_data.db"
CURRENT = "current"
JOURNAL = "promotions.jsonl"

NAMED_LIMIT_BYTES = 1024 * 1024
"""Limit of a small file that a variable or an argument names: a secret, a list of features, a table."""
_PIECE_BYTES = 1024 * 1024


def is_plain_name(name: str) -> bool:
    """Return whether this can be the name of a version or of a file in it: no path, and only printable characters.

    >>> names = ("model.onnx", "..", "../x", "/etc/x", "", "a\\nb", "\\udcff", "x" * 256)
    >>> [name for name in names if is_plain_name(name)]
    ['model.onnx']
    """
    return name not in {"", ".", ".."} and "/" not in name and name.isprintable() and len(name.encode()) <= 255


def shown(name: str) -> str:
    """Return a name as a message may show it: as it is, or quoted and escaped if it is no plain name.

    >>> shown("20260101T000000Z-0123456789ab"), shown("a\\nb"), shown("\\udcff")
    ('20260101T000000Z-0123456789ab', "'a\\\\nb'", "'\\\\udcff'")
    """
    return name if is_plain_name(name) else ascii(name)


def read_regular(path: Path, limit_bytes: int) -> bytes:
    """Return the content of a file of at most `limit_bytes`; raises as `pieces`."""
    return b"".join(pieces(path, limit_bytes))


def pieces(path: Path, limit_bytes: int) -> Iterator[bytes]:
    """Yield the content of a file piece by piece; reading anything else than a file could wait or go on for ever.

    Raises OSError, also if it is no regular file or larger than `limit_bytes`.
    """
    with _descriptor(path, os.O_RDONLY | os.O_NONBLOCK) as descriptor:
        _require_regular(descriptor, path)
        if os.fstat(descriptor).st_size > limit_bytes:
            raise _too_large(path, limit_bytes)
        left = limit_bytes
        while piece := os.read(descriptor, min(_PIECE_BYTES, left + 1)):
            left -= len(piece)
            if left < 0:  # it is still growing
                raise _too_large(path, limit_bytes)
            yield piece


def append_line(path: Path, line: bytes) -> None:
    """Append one line to a file and wait until it is on the disk; raises OSError, also if it is no regular file."""
    with _descriptor(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_NONBLOCK) as descriptor:
        _require_regular(descriptor, path)
        size = os.fstat(descriptor).st_size
        is_torn = size > 0 and os.pread(descriptor, 1, size - 1) != b"\n"  # by a crash
        with open(descriptor, "ab", closefd=False) as file:
            file.write(b"\n" + line + b"\n" if is_torn else line + b"\n")
        os.fsync(descriptor)


def write_whole(path: Path, content: bytes) -> None:
    """Write a file so that a reader, or a power cut, finds the old content or the new one."""
    partial = path.with_name(f".{path.name}.partial")
    write_synced(partial, content)
    partial.replace(path)
    sync_folder(path.parent)


def link_whole(link: Path, target: str | Path) -> None:
    """Make a link, or let it lead elsewhere, so that a reader finds where it led before or where it leads now."""
    partial = link.with_name(f".{link.name}.partial")
    partial.unlink(missing_ok=True)
    partial.symlink_to(target)
    partial.replace(link)


def sync_folder(directory: Path) -> None:
    """Make the names in a directory survive a power cut."""
    with _descriptor(directory, os.O_RDONLY | os.O_DIRECTORY) as descriptor:
        os.fsync(descriptor)


def write_synced(path: Path, content: bytes) -> None:
    """Write a new file in place of any other and wait until its content is on the disk."""
    path.unlink(missing_ok=True)  # a link there would lead the content elsewhere
    with path.open("xb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


@contextlib.contextmanager
def _descriptor(path: Path, flags: int) -> Iterator[int]:
    descriptor = os.open(path, flags | os.O_CLOEXEC, 0o666)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _require_regular(descriptor: int, path: Path) -> None:
    kind = kind_of(os.fstat(descriptor).st_mode)
    if kind is not None:
        raise OSError(errno.EINVAL, f"expected a file, got {kind}", str(path))


def _too_large(path: Path, limit_bytes: int) -> OSError:
    return OSError(errno.EFBIG, f"larger than {limit_bytes:,} bytes", str(path))
