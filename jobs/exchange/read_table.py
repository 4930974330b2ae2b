"""Opens tables in files: CSV, plain or gzipped, and Parquet."""

import contextlib
import csv
import gzip
import io
import zlib
from collections.abc import Iterator
from pathlib import Path

from jobs.exchange.file_kind import kind_of
from jobs.exchange.table import BadTransactionFile, Table

_GZIP = b"\x1f\x8b"
_PARQUET = b"PAR1"
_BEGIN = 4096


@contextlib.contextmanager
def open_table(path: Path) -> Iterator[Table]:
    """Give the table of a file; its ending or first bytes decide the format: Parquet, gzipped CSV, else CSV.

    Raises BadTransactionFile, also for errors while the block reads.
    """
    try:
        with path.open("rb") as raw:
            begin = raw.peek(_BEGIN)[:_BEGIN]
            if begin.startswith(_PARQUET) or path.suffix.lower() == ".parquet":
                from jobs.exchange.parquet_table import ParquetTable, parquet_errors  # noqa: PLC0415  as below

                if begin and not begin.startswith(_PARQUET):
                    raise BadTransactionFile(
                        f"{path}: cannot be read as Parquet (it begins otherwise); if it is CSV, rename it to .csv, or "
                        "to .csv.gz if it is gzipped"
                    )
                with parquet_errors(path):
                    yield ParquetTable(path, raw)
                return
            # Here, because pandas takes a second to load: most commands import this module and read no table.
            from jobs.exchange.csv_table import CsvTable  # noqa: PLC0415

            is_packed = begin.startswith(_GZIP) or path.suffix.lower() == ".gz"
            with (
                gzip.GzipFile(fileobj=raw) if is_packed else contextlib.nullcontext(raw) as unpacked,
                io.TextIOWrapper(unpacked, encoding="utf-8-sig", newline="") as text,
            ):
                kind = kind_of(unpacked.peek(_BEGIN)[:_BEGIN])
                if kind is not None:
                    raise BadTransactionFile(f"{path}: {kind}")
                yield CsvTable(path, text, raw, is_packed=is_packed)
    except UnicodeDecodeError as error:
        raise BadTransactionFile(
            f"{path}: is not UTF-8 text ({error.reason}), but perhaps Latin-1 or Windows-1252; "
            "convert it, for example with `iconv -f WINDOWS-1252 -t UTF-8`"
        ) from error
    except (gzip.BadGzipFile, zlib.error, EOFError) as error:
        raise BadTransactionFile(
            f"{path}: cannot be read as CSV ({error}): expected gzipped CSV, not damaged, cut off or followed by other "
            "bytes; copy it once more, or rename it to .csv if it is not gzipped"
        ) from error
    except csv.Error as error:
        raise BadTransactionFile(f"{path}: cannot be read as CSV ({error})") from error
    except OSError as error:
        raise BadTransactionFile(f"{path}: cannot be read ({error.strerror})") from error
