"""What the readers of tables have in common: a chunk of rows, and the error that says what is wrong with a file."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from fraud_detection.exit_codes import ExitCode, ExpectedError

CHUNK_ROWS = 1000


class BadTransactionFile(ExpectedError):
    """A file that cannot be read as transactions or labels; the message names file, line or row, and column."""

    exit_code = ExitCode.UNUSABLE


@dataclass(frozen=True)
class Chunk:
    """Rows that stand together in a table, at most CHUNK_ROWS: the columns that were asked for, by kind."""

    lines: list[int]
    """Where each row ends: the line of a CSV file, the row of a Parquet file, counted from 1."""
    numbers: NDArray[np.float64]
    """One column for each column of numbers; NaN in cells that hold no number."""
    unreadable: NDArray[np.bool_]
    """The cells of `numbers` that hold no number; an empty cell is one of them."""
    texts: list[list[str]]
    """One list for each column of text; an empty text in cells without a value."""
    bytes_read: int
    """How much of the file, in bytes on disk, was read so far."""


class Table(Protocol):
    """An open table, read once from its first row to its last."""

    path: Path
    header: tuple[str, ...]
    """The names of the columns, without the spaces around them; they may repeat."""
    unit: str
    """What `Chunk.lines` counts: "line" or "row"."""
    header_place: str
    """The file and, if the format has lines, the line of the header: the beginning of a message about columns."""

    def chunks(self, numbers: Sequence[int], texts: Sequence[int]) -> Iterator[Chunk]:
        """Give the columns at these places in chunks; no column may be both a number and a text.

        Raises BadTransactionFile at a row that has more or fewer columns than the header, and for a type of column
        that cannot be read as asked.
        """
        ...


def bad_row(table: Table, number: int, what: str) -> BadTransactionFile:
    """Return the error of one row, which the caller raises."""
    return BadTransactionFile(f"{table.path}, {table.unit} {number}: {what}")
