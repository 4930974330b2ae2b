"""Reads CSV in chunks with pandas, exactly as the csv module and float() would read it."""

import csv
import io
import itertools
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from jobs.exchange.cell import read_number
from jobs.exchange.table import CHUNK_ROWS, Chunk, bad_row

_BLOCK_LINES = 5 * CHUNK_ROWS  # per call of pandas; a call costs as much as some hundred lines
_MARK = "\x1f"


class CsvTable:
    """CSV text with a header line.

    pandas pads short lines, drops surplus fields of long lines, and reads a column of "True" as numbers. Therefore each
    line gets one more field, which must come out last. Each block gets a first row that is not boolean. A block that
    does not come out as expected is read again with the csv module, which also finds the line to name.
    """

    unit = "line"

    def __init__(self, path: Path, text: io.TextIOWrapper, raw: io.BufferedReader) -> None:
        self.path, self._text, self._raw = path, text, raw
        reader = _reader(text)
        self.header = tuple(name.strip() for name in next(reader, []))
        self.header_place = f"{path}, line 1"
        self._done = reader.line_num

    def chunks(self, numbers: Sequence[int], texts: Sequence[int]) -> Iterator[Chunk]:
        """Give the columns in chunks, as Table describes."""
        while lines := list(itertools.islice(self._text, _BLOCK_LINES)):
            block = self._read_with_pandas(lines, numbers, texts)
            if block is not None:
                yield from _parts(block)
                continue
            source = itertools.chain(lines, self._text)  # a field in quotes may end beyond the block
            end = self._done + len(lines)
            while self._done < end:
                few = list(itertools.islice(source, CHUNK_ROWS))
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
            [frame[place].tolist()[1:] for place in texts],
            self._raw.tell(),
        )

    def _read_with_csv(
        self, lines: list[str], rest: Iterator[str], numbers: Sequence[int], texts: Sequence[int]
    ) -> Chunk:
        """Read lines, and from the rest the lines that belong to their last row."""
        reader = _reader(itertools.chain(lines, rest))
        rows: list[list[str]] = []
        row_lines: list[int] = []
        while reader.line_num < len(lines):
            row = next(reader)
            if not row:  # csv gives an empty list for a blank line
                continue
            line = self._done + reader.line_num
            if len(row) != len(self.header):
                raise bad_row(self, line, f"expected {len(self.header)} columns, got {len(row)}")
            rows.append(row)
            row_lines.append(line)
        self._done += reader.line_num
        found = [[_number(row[place]) for place in numbers] for row in rows]
        return Chunk(
            row_lines,
            np.array(found, dtype=np.float64).reshape(len(rows), len(numbers)),
            np.array([[number is None for number in row] for row in found], dtype=np.bool_).reshape(
                len(rows), len(numbers)
            ),
            [[row[place] for row in rows] for place in texts],
            self._raw.tell(),
        )


def _reader(lines: Iterable[str]) -> Any:  # csv has no public name for its type
    return csv.reader(lines, skipinitialspace=True)


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
