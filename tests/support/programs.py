"""Find programs that a test needs; without one the test is skipped, and fails in CI."""

import os
import shutil

import pytest


def skip_or_fail(reason: str) -> None:
    """Skip the test; with CI=true, where every part must be installed, fail it."""
    if os.environ.get("CI") == "true":
        pytest.fail(reason)
    pytest.skip(reason)


def program(variable: str, name: str, where: str) -> str:
    """Return the path of the program that the variable names, else of `name` on PATH."""
    found = shutil.which(os.environ.get(variable, name))
    if found is None:
        skip_or_fail(f"{name} is not installed ({where}) nor named by {variable}")
    return str(found)
