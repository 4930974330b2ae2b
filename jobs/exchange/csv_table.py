"""Reads CSV in chunks with pandas, exactly as the csv module and float() would read it."""

import csv
import io
import itertools
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from fraud_detection.counted import counted
from jobs.exchange.cell import from_spreadsheet, read_number
from jobs.exchange.table import (
    CHUNK_ROWS,
    MAX_CELL,
    MAX_LINE,
    Chunk,
    bad_row,
    require_plausible_size,
)

_BLOCK_LINES = 5 * CHUNK_ROWS  # per call of pandas; a call costs as much as some hundred lines
_BLOCK_CHARACTERS = 8 * MAX_LINE  # so that long lines need no more memory than many
_MARK = "\x1f"
_OUR_COLUMNS = {"request_id", "row"}

_IN_A_CELL = "; if a comma belongs to a cell, write a point in its number, or quotes around its text"
_TOO_LONG = f"expected a row of at most {MAX_LINE:,} characters; perhaps a quote that begins here has no end"

csv.field_size_limit(MAX_LINE)  # of a process; a longer cell is refused below, with its place


class CsvTable:
    """CSV text with a header line.

    pandas pads short lines, drops surplus fields of long lines, and reads a column of "True" as numbers. Therefore each
    line gets one more field, which must come out last. Each block gets a first row that is not boolean. A block that
    does not come out as expected is read again with the csv module, which also finds the line to name.
    """

    unit = "line"

    def __init__(self, path: Path, text: io.TextIOWrapper, raw: io.BufferedReader, *, is_packed: bool) -> None:
        self.path, self._raw, self._is_packed = path, raw, is_packed
        self.header: tuple[str, ...] = ()
        self.header_place = f"{path}, line 1"
        self._lines = _Lines(text)
        self._done = 0
        for line, row in self._rows(self._lines):
            self.header = tuple(name.strip() for name in row)
            self._done = line
            break

    def holds_numbers(self, place: int) -> bool:  # noqa: ARG002  a file of texts
        """Return False, because every cell is a text."""
        return False

    def chunks(self, numbers: Sequence[int], texts: Sequence[int]) -> Iterator[Chunk]:
        """Give the columns in chunks, as Table describes."""
        while lines := _block(self._lines, _BLOCK_LINES):
            if self._is_packed:
                require_plausible_size(self.path, self._lines.characters, self._raw.tell())
            if not any(line.rstrip("\r\n") for line in lines):
                self._done += len(lines)
                continue
            block = self._read_with_pandas(lines, numbers, texts)
            if block is not None:
                yield from _parts(block)
                continue
            source = itertools.chain(lines, self._lines)  # a field in quotes may end beyond the block
            end = self._done + len(lines)
            while self._done < end:
                few = _block(source, CHUNK_ROWS)
                chunk = self._read_with_pandas(few, numbers, texts)
                if chunk is None:
                    chunk = self._read_with_csv(few, source, numbers, texts)
                if chunk.lines:
                    yield chunk

    def _read_with_pandas(self, lines: list[str], numbers: Sequence[int], texts: Sequence[int]) -> Chunk | None:
        """Read lines that hold one row each; return None if a line is blank or a row has another form."""
        width = len(self.header)
        end = f",{_MARK}\n"
        body = end.join([line.rstrip("\r\n") for line in lines])
        if "\0" in body or "\t" in body or body.count(_MARK) >= len(lines):
            return None  # pandas ends a field at a NUL and drops a tab before a text; csv does neither
        if any(len(line) > MAX_CELL and ('"' in line or max(map(len, line.split(","))) > MAX_CELL) for line in lines):
            return None  # csv tells how long each cell is
        try:
            # pandas 3.1 rounds to the nearest float64 by default and deprecates `float_precision`. pyproject.toml
            # bounds pandas for this reason; a test compares 10,000 numbers with float().
            frame = pd.read_csv(
                io.StringIO(f"{'0.5,' * width}{_MARK}\n{body}{end}"),
                header=None,
                index_col=False,
                usecols=[*{*numbers, *texts, width}],
                dtype={place: np.float64 if place in numbers else object for place in (*numbers, *texts, width)},
                skipinitialspace=True,
                skip_blank_lines=False,
                keep_default_na=False,
                na_filter=False,
                low_memory=False,  # otherwise pandas decides the type of a column for each part of the block
            )
        except ValueError:  # a cell that float() may still read, or a quote that ends further down
            return None
        if len(frame) != len(lines) + 1 or not (frame[width] == _MARK).all():
            return None
        first = self._done + 1
        self._done += len(lines)
        return Chunk(
            list(range(first, first + len(lines))),
            frame[list(numbers)].to_numpy(dtype=np.float64)[1:],
            np.zeros((len(lines), len(numbers)), dtype=np.bool_),
            [self._texts(frame[place].tolist()[1:]) for place in texts],
            self._raw.tell(),
        )

    def _read_with_csv(
        self, lines: list[str], rest: Iterator[str], numbers: Sequence[int], texts: Sequence[int]
    ) -> Chunk:
        """Read lines, and from the rest the lines that belong to their last row."""
        rows: list[list[str]] = []
        row_lines: list[int] = []
        line = self._done
        for line, row in self._rows(itertools.chain(lines, rest)):
            if row:  # csv gives an empty list for a blank line
                if len(row) != len(self.header):
                    surplus = _IN_A_CELL if len(row) > len(self.header) else ""
                    expected = counted(len(self.header), "column")
                    raise bad_row(self, line, f"expected {expected}, got {len(row)}{surplus}")
                rows.append(row)
                row_lines.append(line)
            if line >= self._done + len(lines):
                break
        self._done = line
        found = [[_number(row[place]) for place in numbers] for row in rows]
        return Chunk(
            row_lines,
            np.array(found, dtype=np.float64).reshape(len(rows), len(numbers)),
            np.array([[number is None for number in row] for row in found], dtype=np.bool_).reshape(
                len(rows), len(numbers)
            ),
            [self._texts([row[place] for row in rows]) for place in texts],
            self._raw.tell(),
        )

    def _texts(self, cells: list[str]) -> list[str]:
        """Return the cells without the apostrophes that only our own files have; they name a request and its row."""
        return [from_spreadsheet(cell) for cell in cells] if set(self.header) >= _OUR_COLUMNS else cells

    def _rows(self, lines: Iterable[str]) -> Iterator[tuple[int, list[str]]]:
        """Give each row of lines that follow those that are done, with the number of its last line."""
        length = done = 0

        def counted() -> Iterator[str]:
            nonlocal length
            for line in lines:
                length += len(line)
                if length > MAX_LINE:
                    raise bad_row(self, self._done + done + 1, _TOO_LONG)
                yield line

        reader = csv.reader(counted(), skipinitialspace=True)
        for row in reader:
            length, done = 0, reader.line_num
            for place, cell in enumerate(row):
                if len(cell) > MAX_CELL:
                    name = self.header[place] if place < len(self.header) else place + 1
                    expected = f"column {name}: expected at most {MAX_CELL:,} characters, got {len(cell):,}"
                    raise bad_row(self, self._done + done, expected)
            yield self._done + done, row


class _Lines:
    """The lines of a text, one after the other, and how many characters they had.

    A line that is longer than a row may be comes in pieces, the first of which is too long for a row as well.
    """

    def __init__(self, text: io.TextIOWrapper) -> None:
        self._text = text
        self.characters = 0

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        line = self._text.readline(MAX_LINE + 1)
        if not line:
            raise StopIteration
        self.characters += len(line)
        return line


def _block(source: Iterator[str], most: int) -> list[str]:
    lines: list[str] = []
    length = 0
    for line in source:
        lines.append(line)
        length += len(line)
        if len(lines) == most or length >= _BLOCK_CHARACTERS:
            break
    return lines


def _number(text: str) -> float | None:
    try:
        return read_number(text)
    except ValueError:
        return None


def _parts(block: Chunk) -> Iterator[Chunk]:
    for start in range(0, len(block.lines), CHUNK_ROWS):
        part = slice(start, start + CHUNK_ROWS)
        yield Chunk(
            block.lines[part],
            block.numbers[part],
            block.unreadable[part],
            [column[part] for column in block.texts],
            block.bytes_read,
        )
