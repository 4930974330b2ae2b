"""Argument types, files and questions that several commands share."""

import errno
import filecmp
import gzip
import io
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from datetime import datetime
from pathlib import Path
from typing import BinaryIO, TextIO

import click

from fraud_detection.clock import parse_timestamp
from fraud_detection.exit_codes import ExitCode, ExpectedError

FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
FORCE = click.option("--force", is_flag=True, help="Replace the file of --out if it exists.")


class Moment(click.ParamType[datetime]):
    """A time, in UTC if it has no offset."""

    name = "time"

    def convert(self, value: object, param: click.Parameter | None, context: click.Context | None) -> datetime:
        """Parse a time."""
        if isinstance(value, datetime):
            return value
        try:
            return parse_timestamp(str(value).strip())
        except ValueError:
            self.fail("expected a time such as 2026-08-22 or 2026-08-22T10:15:30", param, context)


class NotConfirmed(ExpectedError):
    """Something that you were not asked about, and that no option confirms."""

    exit_code = ExitCode.BAD_CONFIGURATION


class WouldReplace(ExpectedError):
    """A file that stands where a command would write, and that no option gives up; the message says how to."""

    exit_code = ExitCode.BAD_CONFIGURATION

    def __init__(self, file: Path, found: str) -> None:
        super().__init__(f"{file}: {found}; add --force to replace it, or give --out another name")


def ask(question: str, *, otherwise: str) -> None:
    """Ask on a terminal, and end the command unless the answer is yes.

    Raises NotConfirmed with the message `otherwise` if there is no terminal.
    """
    if not sys.stdin.isatty():
        raise NotConfirmed(otherwise)
    click.confirm(question, abort=True, err=True)


STDIN = Path("/dev/stdin")
_GZIP, _PARQUET = b"\x1f\x8b", b"PAR1"


@contextmanager
def seekable(path: Path, suffix: str = ".csv") -> Iterator[Path]:
    """Give a file that can be read more than once: the path itself or, for a pipe, a copy of its content.

    The copy is in the folder that TMPDIR names. Its name ends in `suffix`, followed by .gz if it is gzipped, or in
    .parquet if it is Parquet.
    """
    if path != STDIN and not path.is_fifo():
        yield path
        return
    with tempfile.TemporaryDirectory(prefix="fraudctl-") as folder:
        copy = Path(folder) / f"{path.name}{suffix}"
        try:
            # Standard input is not opened by its name, because its file may belong to another user.
            with nullcontext(sys.stdin.buffer) if path == STDIN else path.open("rb") as pipe, copy.open("wb") as file:
                shutil.copyfileobj(pipe, file)
        except OSError as error:
            if error.errno not in {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}:
                raise
            raise click.ClickException(
                f"{tempfile.gettempdir()}: no room for standard input after {_megabytes(copy)}; set TMPDIR to a "
                "folder with more room, such as one on the volume of the backups"
            ) from error
        click.echo(f"read {_megabytes(copy)} from standard input", err=True)
        with copy.open("rb") as file:
            begin = file.read(4)
        if begin.startswith(_GZIP):
            copy = copy.rename(copy.with_name(f"{copy.name}.gz"))
        elif begin == _PARQUET:
            copy = copy.rename(copy.with_suffix(".parquet"))
        yield copy


@contextmanager
def opened(out: Path | None, *, force: bool) -> Iterator[TextIO | BinaryIO]:
    """Give the stream for a table: binary for .parquet, gzipped text for .gz, else plain text.

    None is the terminal. A file appears as `in_place_of` says.
    """
    if out is None:
        yield sys.stdout
        return
    with in_place_of(out, force=force) as file, _stream(file, out) as stream:
        yield stream


@contextmanager
def in_place_of(out: Path, *, force: bool) -> Iterator[Path]:
    """Give the path to write instead of a file, which appears, or is replaced, only if the block ends without an error.

    Raises WouldReplace at the end if the file exists with other content; `force` replaces it.
    """
    if out.exists() and not out.is_file():  # a pipe or a device is written to, never replaced
        yield out
        return
    # Only a whole result replaces an existing file, because that may be the input, or the only result.
    target = Path(os.path.realpath(out))  # a link stays a link; resolve() raises RuntimeError if it leads to itself
    partial = target.with_name(f".{target.name}.partial")
    try:
        yield partial
        if not force and target.is_file() and not filecmp.cmp(partial, target, shallow=False):
            raise WouldReplace(out, "exists and differs from what would be written, perhaps because someone edited it")
        partial.replace(target)
    finally:
        partial.unlink(missing_ok=True)


@contextmanager
def _stream(file: Path, out: Path) -> Iterator[TextIO | BinaryIO]:
    with file.open("wb") as binary:
        ending = out.suffix.lower()
        if ending == ".parquet":
            yield binary
            return
        with (
            # Without a name and a time, so that equal content is equal bytes.
            gzip.GzipFile("", "wb", fileobj=binary, mtime=0) if ending == ".gz" else nullcontext(binary) as unpacked,
            io.TextIOWrapper(unpacked, encoding="utf-8", newline="") as text,
        ):
            yield text


def _megabytes(path: Path) -> str:
    return f"{path.stat().st_size / 1e6:.1f} MB"
