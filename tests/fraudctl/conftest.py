"""What the tests of the command line share: a way to run it in this process, in a folder of its own."""

import logging
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fraudctl.command import Fraudctl, run


@pytest.fixture
def fraudctl(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Fraudctl]:
    """Run a command: fraudctl("db", "check", env=…, exit_code=3); its exit code is 0 unless said otherwise."""
    monkeypatch.chdir(tmp_path)  # where no .api_token lies
    for name in ("API_TOKEN", "API_TOKEN_FILE", "API_URL", "FEATURES_FILE", "LOG_LEVEL", "DATABASE_URL"):
        monkeypatch.delenv(name, raising=False)
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level

    yield run
    root.handlers[:] = handlers  # a command sends the log to the streams that the runner has closed
    root.setLevel(level)
