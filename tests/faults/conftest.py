"""What the fault tests share: strace, which Debian has as a package."""

import shutil

import pytest

from tests.support.programs import skip_or_fail


@pytest.fixture(scope="session")
def strace() -> str:
    """Path of strace, which can see and kill a process at its system calls."""
    found = shutil.which("strace")
    if found is None:
        skip_or_fail("strace is not installed (Debian: apt-get install strace)")
    return str(found)
