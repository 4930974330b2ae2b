"""Kinds of arguments that several commands take."""

import errno
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

import click

from fraud_detection.clock import parse_timestamp
from jobs.exchange.transaction_file import stored_time

FILE = click.Path(exists=True, dir_okay=False, path_type=Path)


class Moment(click.ParamType[datetime]):
    """A time; without an offset it is UTC."""

    name = "time"

    def convert(self, value: object, param: click.Parameter | None, context: click.Context | None) -> datetime:
        """Read it."""
        if isinstance(value, datetime):
            return value
        try:
            return parse_timestamp(stored_time(str(value)))
        except ValueError:
            self.fail("expected a time such as 2026-08-22 or 2026-08-22T10:15:30", param, context)


STDIN = Path("/dev/stdin")
_GZIP = b"\x1f\x8b"


@contextmanager
def seekable(path: Path, suffix: str) -> Iterator[Path]:
    """Give a file that can be read more than once: the path itself or, for /dev/stdin, a copy of what comes in there.

    The copy's name ends in `suffix`, and in .gz when it is packed. It lies where TMPDIR says.
    """
    if path != STDIN:
        yield path
        return
    with tempfile.TemporaryDirectory(prefix="fraudctl-") as folder:
        copy = Path(folder) / f"stdin{suffix}"
        try:
            with copy.open("wb") as file:
                shutil.copyfileobj(sys.stdin.buffer, file)  # not opened by its name: that may be somebody else's
        except OSError as error:
            if error.errno not in {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}:
                raise
            raise click.ClickException(
                f"{tempfile.gettempdir()}: no room for standard input after {_megabytes(copy)}; let TMPDIR name a "
                "folder with more, such as one on the volume of the backups"
            ) from error
        click.echo(f"read {_megabytes(copy)} from standard input", err=True)
        with copy.open("rb") as file:
            is_packed = file.read(len(_GZIP)) == _GZIP
        yield copy.rename(copy.with_name(f"{copy.name}.gz")) if is_packed else copy


def _megabytes(path: Path) -> str:
    return f"{path.stat().st_size / 1e6:.1f} MB"
