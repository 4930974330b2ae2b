"""Reads Parquet in chunks with pyarrow, as numbers and as the text that a CSV file would hold."""

import contextlib
import io
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray
from pyarrow import types

from jobs.exchange.cell import read_number, text_of
from jobs.exchange.table import (
    CHUNK_ROWS,
    MAX_CELL,
    BadTransactionFile,
    Chunk,
    WrongColumnType,
    bad_row,
    repeated_column,
    require_plausible_size,
)

_BUFFER_BYTES = 1 << 20  # read a column a piece at a time; the default loads a whole row group
_MAX_COLUMN = 128 * 1024 * 1024  # bytes of a column in a row group; a page of it is in memory at once
# Bytes of the texts of a row group that are read: if one page holds them all, up to six times as much is in memory.
_MAX_TEXTS = 80 * 1024 * 1024
# Bytes of the columns of a row group that are read; as pandas writes it, of 2**20 rows, it takes 256 MiB in the public
# layout.
_MAX_GROUP = 512 * 1024 * 1024
_TIMES = 1000  # Parquet packs equal values of a column into nearly nothing
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_STRINGS = (types.is_string, types.is_large_string, types.is_string_view)
_MICROSECONDS = {"s": (1_000_000, 1), "ms": (1000, 1), "us": (1, 1), "ns": (1, 1000)}  # numerator, denominator


class ParquetTable:
    """A Parquet file, read as a Table."""

    unit = "row"

    def __init__(self, path: Path, raw: io.BufferedReader) -> None:
        self.path = path
        self._size = path.stat().st_size
        schema = pq.read_schema(raw)
        # As a dictionary, because a long text that repeats would be copied into each row before its length is known.
        self._text_names = [field.name for field in schema if any(is_kind(field.type) for is_kind in _STRINGS)]
        self._file = pq.ParquetFile(
            raw,
            buffer_size=_BUFFER_BYTES,
            pre_buffer=False,
            page_checksum_verification=True,
            read_dictionary=self._text_names,
        )
        self.header = tuple(name.strip() for name in self._file.schema_arrow.names)
        self.header_place = f"{path}"

    def holds_numbers(self, place: int) -> bool:
        """Return whether the type of a column is a number, which a text may hold, too."""
        kind = self._file.schema_arrow.field(place).type
        return _is_number(kind) and self._file.schema_arrow.names[place] not in self._text_names

    def chunks(self, numbers: Sequence[int], texts: Sequence[int]) -> Iterator[Chunk]:
        """Give the columns in chunks, as Table describes."""
        schema = self._file.schema_arrow
        for place in (*numbers, *texts):
            if self.header.count(self.header[place]) > 1:
                raise repeated_column(self.header_place, self.header[place])
        for place in numbers:
            if not _is_number(schema.field(place).type):
                raise self._wrong_type(place, "numbers")
        for place in texts:
            if not _is_text(schema.field(place).type):
                raise self._wrong_type(place, "text, whole numbers or times")
        names = [schema.names[place] for place in (*numbers, *texts)]
        self._require_plausible_sizes(set(names))
        done, rows = 0, self._file.metadata.num_rows
        for batch in self._batches(names):
            columns = [self._decoded(name, batch.column(name)) for name in names]
            found = [_numbers(column) for column in columns[: len(numbers)]]
            shape = (len(numbers), batch.num_rows)
            yield Chunk(
                list(range(done + 1, done + batch.num_rows + 1)),
                np.array([values for values, _ in found], dtype=np.float64).reshape(shape).T,
                np.array([unreadable for _, unreadable in found], dtype=np.bool_).reshape(shape).T,
                [
                    self._texts(place, done, column)
                    for place, column in zip(texts, columns[len(numbers) :], strict=True)
                ],
                self._size * (done + batch.num_rows) // rows,
            )
            done += batch.num_rows

    def _batches(self, names: list[str]) -> Iterator[Any]:
        # One row group after the other, because a batch across small ones would load them all before a cell is checked.
        for group in range(self._file.metadata.num_row_groups):
            yield from self._file.iter_batches(CHUNK_ROWS, row_groups=[group], columns=names)

    def _require_plausible_sizes(self, names: set[str]) -> None:
        """Raise BadTransactionFile if columns would fill memory, or hold more rows than such a file can."""
        metadata = self._file.metadata
        require_plausible_size(self.path, 8 * metadata.num_rows * len(names), self._size, _TIMES)
        for group in range(metadata.num_row_groups):
            columns = [metadata.row_group(group).column(place) for place in range(metadata.num_columns)]
            sizes = {
                column.path_in_schema: column.total_uncompressed_size
                for column in columns
                if column.path_in_schema in names
            }
            for name, size in sizes.items():
                if size > _MAX_COLUMN:
                    raise self._too_large(group, f"column {name}", _MAX_COLUMN, size)
            texts = [size for name, size in sizes.items() if name in self._text_names]
            if sum(texts) > _MAX_TEXTS:
                raise self._too_large(group, f"{len(texts)} columns of text", _MAX_TEXTS, sum(texts))
            if sum(sizes.values()) > _MAX_GROUP:
                raise self._too_large(group, f"{len(sizes)} columns", _MAX_GROUP, sum(sizes.values()))

    def _too_large(self, group: int, what: str, limit: int, size: int) -> BadTransactionFile:
        return BadTransactionFile(
            f"{self.path}, row group {group + 1}: {what}: expected at most {limit >> 20} MiB, got {size >> 20}; "
            "write smaller row groups"
        )

    def _decoded(self, name: str, column: Any) -> Any:
        if not types.is_dictionary(column.type):
            return column
        if any(is_kind(column.type.value_type) for is_kind in _STRINGS):
            longest = pc.max(pc.utf8_length(column.dictionary)).as_py() or 0
            if longest > MAX_CELL:
                raise BadTransactionFile(
                    f"{self.path}: column {name}: expected at most {MAX_CELL:,} characters, got {longest:,}"
                )
        return column.dictionary_decode()

    def _texts(self, place: int, done: int, column: Any) -> list[str]:
        texts = []
        for row, text in enumerate(_texts(column), done + 1):
            if text is None:
                name = self.header[place]
                raise bad_row(self, row, f"column {name}: expected a text, a whole number or a time")
            texts.append(text)
        return texts

    def _wrong_type(self, place: int, expected: str) -> WrongColumnType:
        kind, name = self._file.schema_arrow.field(place).type, self.header[place]
        return WrongColumnType(f"{self.path}: column {name}: expected {expected}, the file holds {kind}", name)


@contextlib.contextmanager
def parquet_errors(path: Path) -> Iterator[None]:
    """Turn the errors of pyarrow into BadTransactionFile for the length of the block."""
    try:
        yield
    except (pa.ArrowException, OSError) as error:  # an OSError of pyarrow has a text but no strerror
        reason = str(error).splitlines()[0]
        raise BadTransactionFile(
            f"{path}: cannot be read as Parquet ({reason}); copy it once more, or write it as CSV"
        ) from error


def _is_number(kind: pa.DataType) -> bool:
    kind = kind.value_type if types.is_dictionary(kind) else kind
    numbers = (types.is_integer, types.is_floating, types.is_decimal, types.is_null)
    return any(is_kind(kind) for is_kind in (*numbers, *_STRINGS))


def _numbers(column: Any) -> tuple[Any, Any]:
    """Return the number of each cell, and which cells hold none."""
    if any(is_kind(column.type) for is_kind in (types.is_decimal, *_STRINGS)):
        # Through text: float() rounds to the nearest float64, arrow's cast does not always.
        found = [_number(value) for value in column.to_pylist()]
        return found, [number is None for number in found]
    if _is_short_float(column.type):
        return _shortest(column), column.is_null().to_numpy(zero_copy_only=False)
    # A safe cast refuses whole numbers beyond 2**53; this one gives the nearest float64, as float() of the digits does.
    values = column.cast(pa.float64(), safe=False).to_numpy(zero_copy_only=False)
    return values, column.is_null().to_numpy(zero_copy_only=False)


def _is_short_float(kind: pa.DataType) -> bool:
    return bool(types.is_float32(kind) or types.is_float16(kind))


def _shortest(column: Any) -> NDArray[np.float64]:
    """Return numbers through their shortest text, as CSV holds them: 144.05 stays 144.05, and is the same in both."""
    values: NDArray[np.float64] = column.to_numpy(zero_copy_only=False).astype(np.str_).astype(np.float64)
    return values


def _number(value: object) -> float | None:
    try:
        return None if value is None else read_number(str(value))
    except ValueError:
        return None


def _is_text(kind: pa.DataType) -> bool:
    kind = kind.value_type if types.is_dictionary(kind) else kind
    return any(is_kind(kind) for is_kind, _ in _TEXT_OF)


def _texts(column: Any) -> list[str | None]:
    """Return the text of each value: empty if it is missing, None if it has no exact text."""
    text_of = next(text_of for is_kind, text_of in _TEXT_OF if is_kind(column.type))
    values = _microseconds(column) if types.is_temporal(column.type) else column.to_pylist()
    if _is_short_float(column.type):
        shortest = _shortest(column).tolist()
        values = [None if value is None else number for value, number in zip(values, shortest, strict=True)]
    return ["" if value is None else text_of(value) for value in values]


def _microseconds(column: Any) -> list[int | None]:
    """Return times as whole microseconds since 1970, finer digits cut off."""
    if types.is_date(column.type):
        column = column.cast(pa.timestamp("s" if types.is_date32(column.type) else "ms"))
    numerator, denominator = _MICROSECONDS[column.type.unit]
    # Python's integers have no bounds; arrow's unsafe casts and its floor_temporal wrap around at those of an int64.
    counts = column.cast(pa.int64()).to_pylist()
    return [None if count is None else count * numerator // denominator for count in counts]


def _time_text(microseconds: int) -> str | None:
    try:
        return (_EPOCH + timedelta(microseconds=microseconds)).isoformat(" ")
    except OverflowError:  # before the year 1 or after 9999
        return None


def _date_text(microseconds: int) -> str | None:
    text = _time_text(microseconds)
    return None if text is None else text.partition(" ")[0]


_TEXT_OF: tuple[tuple[Callable[[pa.DataType], bool], Callable[[Any], str | None]], ...] = (
    *((is_kind, text_of) for is_kind in _STRINGS),
    (types.is_boolean, text_of),
    (types.is_integer, text_of),
    (types.is_floating, text_of),
    (types.is_decimal, str),
    (types.is_timestamp, _time_text),
    (types.is_date, _date_text),
    (types.is_null, str),
)
"""For each type that may be read as text, the function that gives the text of a value."""
