"""Make named tokens in the file of an installation."""

from collections.abc import Sequence
from pathlib import Path

from fraud_detection.token_file import Scope, add_token, rotate_token


def new_token(path: Path, name: str, scopes: Sequence[Scope]) -> str:
    """Add a token and return it."""
    shown: list[str] = []
    add_token(path, name, scopes, shown.append)
    return shown[0]


def successor(path: Path, name: str) -> str:
    """Add a second token of a name and return it."""
    shown: list[str] = []
    rotate_token(path, name, shown.append)
    return shown[0]
