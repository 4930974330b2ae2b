"""Defines what all readers of tables share: a chunk of rows, and the error for a file that cannot be read."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from fraud_detection.exit_codes import ExitCode, ExpectedError

CHUNK_ROWS = 1000
_NUMBER = re.compile(r"[+-]?\d+(\.\d*)?([eE][+-]?\d+)?", re.ASCII)

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

    def holds_numbers(self, place: int) -> bool:
        """Return whether the file says that a column holds numbers; CSV says it of none."""
        ...

    def chunks(self, numbers: Sequence[int], texts: Sequence[int]) -> Iterator[Chunk]:
        """Give the columns at these places in chunks; no column may be both a number and a text.

        Raises BadTransactionFile at a row that has more or fewer columns than the header, and for a Parquet column that
        repeats; raises WrongColumnType for a column whose type cannot be read as requested.
        """
        ...


def repeated_column(header_place: str, name: str) -> BadTransactionFile:
    """Return the error for a name that several columns have, which the caller raises."""
    return BadTransactionFile(f"{header_place}: a column name appears twice: {name!r}")


def instead_of_names(table: Table) -> str:
    """Return, as the end of a sentence, what stands where names belong with commas between, and what to do.

    Return nothing if these are names.
    """
    names = [name for name in table.header if name]
    marks = None if len(names) != 1 or table.unit != "line" else _separated_by(names[0])
    if marks is not None:
        return f", got {marks} between the names; save the file with commas, and with points in numbers"
    if not _are_numbers(names):
        return ""
    no_names = "add a line with the names above" if table.unit == "line" else "write the table with names"
    return f", got numbers; if this is the first transaction, {no_names}, otherwise rename the columns"


def _separated_by(header: str) -> str | None:
    """Return what separates names that came as one, None if it is one name.

    >>> _separated_by("transaction_id;is_fraud")
    'semicolons'
    """
    separators = ((";", "semicolons"), ("\t", "tabs"), ("|", "bars"), (" ", "spaces"))
    return next((name for mark, name in separators if mark in header), None)


def _are_numbers(names: Sequence[str]) -> bool:
    """Return whether names are rather the cells of a row: one is a fraction, or most are numbers.

    >>> _are_numbers(["2026-01-01", "12.5", "corner"]), _are_numbers(["amount", "2025", "Class"])
    (True, False)
    """
    numbers = [name for name in names if _NUMBER.fullmatch(name)]
    return 2 * len(numbers) > len(names) or any(not number.isdecimal() for number in numbers)


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
