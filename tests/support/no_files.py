"""What can be at a path where a program expects a file, and how messages name it."""

import os
import socket
from collections.abc import Callable
from pathlib import Path


def _socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind(str(path))


def _link_to_itself(path: Path) -> None:
    path.symlink_to(path.name)


def _link_to_a_device(path: Path) -> None:
    path.symlink_to("/dev/zero")


FOLDER_PIPE_AND_DEVICE: list[tuple[Callable[[Path], object], str]] = [
    (Path.mkdir, "a folder"),
    (os.mkfifo, "a named pipe"),
    (_link_to_a_device, "a device"),
]
NO_FILES = [*FOLDER_PIPE_AND_DEVICE, (_socket, "a socket"), (_link_to_itself, "a link that leads to itself")]
