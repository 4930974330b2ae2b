"""Kinds of arguments that several commands take."""

from datetime import datetime
from pathlib import Path

import click

from fraud_detection.clock import parse_timestamp
from jobs.transaction_file import stored_time

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
