"""Run a command of fraudctl in this process."""

from collections.abc import Callable

from click.testing import CliRunner, Result

from fraudctl.main import main

Fraudctl = Callable[..., Result]
"""The type of the fixture `fraudctl`: `run` in a folder without a token."""


def run(*arguments: object, env: dict[str, str], exit_code: int = 0, answer: str | bytes | None = None) -> Result:
    """Run a command whose exit code must be `exit_code`; `answer` is what the user types."""
    result = CliRunner().invoke(
        main, list(map(str, arguments)), env=env, input=answer, catch_exceptions=False, prog_name="fraudctl"
    )
    assert result.exit_code == exit_code, result.output
    return result
