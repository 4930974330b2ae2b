"""Defines what all readers of tables share: a chunk of rows, and the error for a file that cannot be read."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from fraud_detection.exit_codes import ExitCode, ExpectedError

CHUNK_ROWS = 1000


MAX_LINE = 1024 * 1024
"""Maximum characters of a line of CSV, with the lines that its cells in quotes go on in."""
MAX_CELL = 4096
"""Maximum characters of a cell."""
UNPACKED_BYTES, UNPACKED_TIMES = 16 * 1024 * 1024, 100
"""A compressed file may unpack to so many bytes, and so many times its own size more."""


class BadTransactionFile(ExpectedError):
    """A file that cannot be read as transactions or labels; the message names file, line or row, and column."""

    exit_code = ExitCode.UNUSABLE


class WrongColumnType(BadTransactionFile):
    """A column whose type cannot be read as requested."""

    def __init__(self, message: str, column: str) -> None:
        super().__init__(message)
        self.column = column


@dataclass(frozen=True)
class Chunk:
    """Consecutive rows of a table, at most CHUNK_ROWS: the requested columns, by kind."""

    lines: list[int]
    """Where each row ends: the line of a CSV file, the row of a Parquet file, counted from 1."""
    numbers: NDArray[np.float64]
    """One column for each column of numbers; NaN in cells without a number."""
    unreadable: NDArray[np.bool_]
    """The cells of `numbers` without a number; this includes empty cells."""
    texts: list[list[str]]
    """One list for each column of text; an empty text in cells without a value."""
    bytes_read: int
    """Bytes of the file (as on disk) that were read so far."""


class Table(Protocol):
    """An open table, read once from its first row to its last."""

    path: Path
    header: tuple[str, ...]
    """The names of the columns, without the spaces around them; they may repeat."""
    unit: str
    """What `Chunk.lines` counts: "line" or "row"."""
    header_place: str
    """The file and, if the format has lines, the line of the header. Messages about columns start with it."""

    def chunks(self, numbers: Sequence[int], texts: Sequence[int]) -> Iterator[Chunk]:
        """Give the columns at these places in chunks; no column may be both a number and a text.

        Raises BadTransactionFile at a row that has more or fewer columns than the header, and for a Parquet column that
        repeats; raises WrongColumnType for a column whose type cannot be read as requested.
        """
        ...


def repeated_column(header_place: str, name: str) -> BadTransactionFile:
    """Return the error for a name that several columns have, which the caller raises."""
    return BadTransactionFile(f"{header_place}: a column name appears twice: {name!r}")


def other_separator(table: Table) -> str:
    """Return, as the end of a sentence, what to do if other marks than commas separate the names, else nothing.

    >>> _separated_by("transaction_id;is_fraud")
    'semicolons'
    """
    marks = None if len(table.header) != 1 or table.unit != "line" else _separated_by(table.header[0])
    return (
        ""
        if marks is None
        else f", got {marks} between the names; save the file with commas, and with points in numbers"
    )


def _separated_by(header: str) -> str | None:
    return next((name for mark, name in ((";", "semicolons"), ("\t", "tabs"), ("|", "bars")) if mark in header), None)


def require_plausible_size(path: Path, unpacked: int, packed: int, times: int = UNPACKED_TIMES) -> None:
    """Raise BadTransactionFile if a compressed file unpacks to more than tables do, as one made to fill memory does."""
    if unpacked > UNPACKED_BYTES + times * packed:
        raise BadTransactionFile(
            f"{path}: unpacks to more than {times} times its size, which tables of transactions do not; "
            "if it is one, unpack it yourself, and import it as plain CSV"
        )


def bad_row(table: Table, number: int, what: str) -> BadTransactionFile:
    """Return the error for one row, which the caller raises."""
    return BadTransactionFile(f"{table.path}, {table.unit} {number}: {what}")
