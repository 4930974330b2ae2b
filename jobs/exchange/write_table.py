"""Writes tables in chunks with pandas: CSV that spreadsheets may open, or Parquet."""

import io
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any, BinaryIO, Self, TextIO

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from jobs.exchange.cell import for_spreadsheet

_CHUNK_ROWS = 10_000  # also the rows of a row group
_TYPES = {str: ("string", pa.string()), int: ("Int64", pa.int64()), float: ("float64", pa.float64())}


class TableWriter:
    """An open table, which is complete when its block ends without an error.

    >>> out = io.StringIO()
    >>> with TableWriter(out, {"name": str, "row": int, "score": float}) as table:
    ...     table.add(("a", None, 0.1))
    >>> out.getvalue()
    'name,row,score\\r\\na,,0.1\\r\\n'
    """

    def __init__(self, out: TextIO | BinaryIO, columns: Mapping[str, type]) -> None:
        self._out, self._columns = out, columns
        self._rows: list[Sequence[object]] = []
        self._schema = pa.schema([(name, _TYPES[kind][1]) for name, kind in columns.items()])
        self._parquet = (
            None if isinstance(out, io.TextIOBase) else pq.ParquetWriter(out, self._schema, write_page_checksum=True)
        )

    def __enter__(self) -> Self:
        if self._parquet is None:
            pd.DataFrame(columns=list(self._columns)).to_csv(self._out, index=False, lineterminator="\r\n")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if error is None and self._rows:
                self._write()
        finally:
            if self._parquet is not None:
                self._parquet.close()

    def add(self, row: Sequence[object]) -> None:
        """Write a row, its values in the order of the columns; None leaves a cell empty."""
        self._rows.append(row)
        if len(self._rows) == _CHUNK_ROWS:
            self._write()

    def _write(self) -> None:
        values = zip(*self._rows, strict=True)
        frame = pd.DataFrame(
            {
                name: pd.Series(self._cells(kind, column), dtype=_TYPES[kind][0])
                for (name, kind), column in zip(self._columns.items(), values, strict=True)
            }
        )
        if self._parquet is None:
            frame.to_csv(self._out, header=False, index=False, lineterminator="\r\n")
        else:
            self._parquet.write_table(pa.Table.from_pandas(frame, schema=self._schema, preserve_index=False))
        self._rows = []

    def _cells(self, kind: type, column: Sequence[Any]) -> Sequence[Any]:
        if kind is not str or self._parquet is not None:
            return column
        return [None if text is None else for_spreadsheet(text) for text in column]
