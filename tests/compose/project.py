"""Run Docker Compose on compose.yaml, as a project that belongs to the test."""

import os
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from tests.support.project import ROOT


def run(*command: str, stdin: Path | None = None) -> "subprocess.CompletedProcess[str]":
    """Run a command in the project's folder; variables of this shell do not reach Compose."""
    environment = {name: value for name, value in os.environ.items() if name.startswith(("PATH", "HOME", "DOCKER_"))}
    with (stdin or Path(os.devnull)).open() as given:
        return subprocess.run(
            command, cwd=ROOT, env=environment, stdin=given, capture_output=True, text=True, check=False, timeout=900
        )


@dataclass(frozen=True)
class Project:
    """A project of Docker Compose: its name, and the file that takes the place of .env."""

    name: str
    env_file: Path

    def try_to(self, *arguments: str, stdin: Path | None = None) -> "subprocess.CompletedProcess[str]":
        """Run `docker compose` and say how it ended."""
        command = ("docker", "compose", "--project-name", self.name, "--env-file", str(self.env_file))
        return run(*command, "--file", "compose.yaml", *arguments, stdin=stdin)

    def compose(self, *arguments: str, stdin: Path | None = None) -> str:
        """Run `docker compose`, which must succeed, and return what it printed."""
        ended = self.try_to(*arguments, stdin=stdin)
        assert ended.returncode == 0, f"docker compose {' '.join(arguments)}\n{ended.stdout}\n{ended.stderr}"
        return ended.stdout


def write_env(path: Path, variables: Mapping[str, str]) -> Path:
    """Write the file that takes the place of .env."""
    path.write_text("".join(f"{name}={value}\n" for name, value in variables.items()))
    return path
