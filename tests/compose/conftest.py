"""What the tests of compose.yaml share."""

import re
import subprocess
from pathlib import Path

import pytest

from tests.compose.project import Project, run, write_env
from tests.support.programs import skip_or_fail
from tests.support.project import ROOT


@pytest.fixture(scope="session")
def docker_compose() -> None:
    """Docker with its Compose plugin."""
    try:
        found = run("docker", "compose", "version").returncode == 0
    except FileNotFoundError:
        found = False
    if not found:
        skip_or_fail("Docker Compose is not installed (https://docs.docker.com/compose/install)")


@pytest.fixture(scope="session")
def token_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A token beside that of Prometheus, both made by the commands that .env.example names."""
    folder = tmp_path_factory.mktemp("compose")
    commands = re.findall(r"^#   (.* secrets/\w+_token)$", (ROOT / ".env.example").read_text(), re.MULTILINE)
    assert len(commands) == 2
    for command in commands:
        subprocess.run(command, shell=True, cwd=folder, check=True)  # noqa: S602  our own documented line
    return folder / "secrets" / "api_token"


@pytest.fixture
def project(docker_compose: None, token_file: Path, tmp_path: Path) -> Project:
    """A project whose configuration is read and which never starts."""
    return Project("fraud-only-read", write_env(tmp_path / "env", {"API_TOKEN_FILE": str(token_file)}))
