"""Draws on a terminal how far a command is; elsewhere, and where the log goes, it draws nothing."""

import logging
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from tqdm import tqdm


def bar(
    iterable: Iterable[Any] | None = None,
    *,
    desc: str,
    unit: str,
    total: int | None = None,
    unit_scale: bool = False,
) -> "tqdm[Any]":
    """Draw a bar if the work takes more than a second; `total` says how much there is without an iterable."""
    return tqdm(
        iterable, desc=desc, unit=unit, total=total, unit_scale=unit_scale, delay=1, disable=_is_hidden(), leave=False
    )


@contextmanager
def step(what: str) -> Iterator[None]:
    """Name work whose amount is unknown, until the block ends."""
    with tqdm(desc=f"{what} …", bar_format="{desc}", disable=_is_hidden(), leave=False):
        yield


def _is_hidden() -> bool | None:
    """Return True if the log tells the story on the same stream; None leaves it to tqdm, which looks for a terminal."""
    log = logging.getLogger()
    return True if log.handlers and log.isEnabledFor(logging.ERROR) else None
