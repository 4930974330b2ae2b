"""Names the files of a version, and writes files so that a power cut leaves the old or the new content."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

MANIFEST = "manifest.json"
ONNX = "model.onnx"
PICKLE = "rf_model.pkl"
REFERENCE = "reference_data.db"
CURRENT = "current"
JOURNAL = "promotions.jsonl"


def write_whole(path: Path, content: bytes) -> None:
    """Write a file so that a reader, or a power cut, finds the old content or the new one."""
    partial = path.with_name(f".{path.name}.partial")
    write_synced(partial, content)
    partial.replace(path)
    sync_folder(path.parent)


def sync_folder(directory: Path) -> None:
    """Make the names in a directory survive a power cut."""
    with _descriptor(directory) as descriptor:
        os.fsync(descriptor)


@contextlib.contextmanager
def _descriptor(directory: Path) -> Iterator[int]:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def write_synced(path: Path, content: bytes) -> None:
    """Write a file and wait until its content is on the disk."""
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
