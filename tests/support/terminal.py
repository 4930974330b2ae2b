"""Give a program a terminal, with a person at its other end."""

import os
import pty
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def terminal() -> Iterator[tuple[int, int]]:
    """Give the descriptors of the person and of the program, until the block ends."""
    person, program = pty.openpty()
    try:
        yield person, program
    finally:
        os.close(person)
        os.close(program)
