"""Every command explains itself, and an expected error is one line."""

import os
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
import sqlalchemy as sa
from click.testing import CliRunner

from fraud_detection.environment import BadSetting
from fraudctl.main import Fraudctl, main
from tests.support import command_line
from tests.support.project import ROOT


def failing(error: Exception) -> Fraudctl:
    """Return a program whose one command raises."""

    @click.group(cls=Fraudctl)
    def program() -> None:
        pass

    @program.command()
    def work() -> None:
        raise error

    return program


@pytest.mark.parametrize(
    ("error", "exit_code", "message"),
    [
        (BadSetting("PORT: expected a number"), 2, "fraudctl: PORT: expected a number\n"),
        (
            FileNotFoundError(2, "No such file", "x.csv"),
            1,
            "fraudctl: x.csv: No such file; make its folder first, or give another path\n",
        ),
        (
            NotADirectoryError(20, "Not a directory", "x/current"),
            1,
            "fraudctl: x/current: Not a directory; a folder was expected there; give another path, or move it away\n",
        ),
        (OSError("x.csv: is there already"), 1, "fraudctl: x.csv: is there already\n"),
        (
            sa.exc.OperationalError("SELECT 1", {}, Exception("disk full")),
            1,
            "fraudctl: the database says: disk full\n",
        ),
    ],
)
def test_an_expected_error_is_one_line_and_an_exit_code(error: Exception, exit_code: int, message: str) -> None:
    result = CliRunner().invoke(failing(error), ["work"])

    assert (result.exit_code, result.stderr, result.stdout) == (exit_code, message, "")


@pytest.mark.parametrize(
    "arguments",
    [
        ["db", "query", ""],
        ["db", "backup", ""],
        ["db", "backup", "--into", ""],
        ["forget", "--yes", ""],
        ["lineage", ""],
        ["models", "show", ""],
        ["export", "--out="],
        ["import", "--ignore", "shop", ""],
    ],
    ids=" ".join,
)
def test_an_empty_argument_is_refused_and_nothing_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str]
) -> None:
    monkeypatch.chdir(tmp_path)

    result = CliRunner().invoke(main, arguments)

    assert (result.exit_code, result.stdout) == (2, "")
    assert "an argument is empty; leave it out, or look whether a variable of your shell is set" in result.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "arguments",
    [
        ["features", "init", "h.csv", "--leave-out", ""],
        ["features", "init", "h.csv", "--leave-out="],
        ["import", "h.csv", "--ignore", ""],
        ["import", "h.csv", "--ignore="],
    ],
    ids=" ".join,
)
def test_a_column_without_a_name_is_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str]
) -> None:
    (tmp_path / "h.csv").write_text(",amount,Class\n0,10,0\n1,30,1\n")
    (tmp_path / "f.json").write_text('{"features": [{"name": "amount"}]}')
    monkeypatch.chdir(tmp_path)

    result = CliRunner().invoke(main, arguments, env={"FEATURES_FILE": "f.json"})

    assert (result.exit_code, result.stderr) == (0, "")


def test_the_version_is_that_of_the_project() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]

    result = CliRunner().invoke(main, ["--version"])

    assert result.stdout == f"fraudctl, version {project['version']}\n"


def test_the_shell_completes_commands() -> None:
    asked = {"_FRAUDCTL_COMPLETE": "bash_complete", "COMP_WORDS": "fraudctl models pro", "COMP_CWORD": "2"}

    completed = subprocess.run(
        [sys.executable, "-m", "fraudctl"], env={**os.environ, **asked}, capture_output=True, text=True, check=True
    )

    assert completed.stdout == "plain,promote\n"


def test_a_bug_shows_its_traceback() -> None:
    result = CliRunner().invoke(failing(ZeroDivisionError("our mistake")), ["work"])

    assert isinstance(result.exception, ZeroDivisionError)


def commands(group: click.Group, words: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    for name, command in group.commands.items():
        yield (*words, name)
        if isinstance(command, click.Group):
            yield from commands(command, (*words, name))


@pytest.mark.parametrize("words", list(commands(main)), ids=" ".join)
def test_every_command_explains_itself(words: tuple[str, ...]) -> None:
    result = CliRunner().invoke(main, [*words, "--help"], prog_name="fraudctl")

    assert result.exit_code == 0
    assert result.stdout.startswith(f"Usage: fraudctl {' '.join(words)} ")


def test_help_does_not_wait_for_large_libraries() -> None:
    large = {"sklearn", "mlflow", "scipy", "matplotlib", "pandas", "pyarrow"}
    code = f"import sys, fraudctl.main; print({large} & set(sys.modules))"

    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert printed.stdout == "set()\n"


@pytest.mark.parametrize("module", ["jobs.exchange.import_db", "jobs.describe"])
def test_a_command_loads_pandas_only_to_read_a_table(module: str) -> None:
    code = f"import sys, {module}; print({{'pandas', 'pyarrow'}} & set(sys.modules))"

    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert printed.stdout == "set()\n"


def test_runs_as_a_module_too(tmp_path: Path) -> None:
    ran = subprocess.run([sys.executable, "-m", "fraudctl", "-h"], capture_output=True, text=True, check=True)

    assert ran.stdout.startswith("Usage: fraudctl [OPTIONS] COMMAND")


@pytest.mark.parametrize(
    ("command", "place"),
    [
        ("export", "data/requests.db"),
        ("lineage x", "data/requests.db"),
        ("drift", "models"),
        ("db check", "models/rf_model.pkl"),
    ],
)
def test_in_another_folder_than_that_of_the_installation_it_says_where_it_looked(
    fraudctl: command_line.Fraudctl, tmp_path: Path, command: str, place: str
) -> None:
    result = fraudctl(*command.split(), env={}, exit_code=3)

    assert f"{tmp_path / place}:" in result.output


def test_the_environment_of_make_setup_finds_the_checkout_from_every_folder(tmp_path: Path) -> None:
    checkout = tmp_path / "a checkout"
    (checkout / "requirements").mkdir(parents=True)
    for name in ("api.txt", "jobs.txt"):
        (checkout / "requirements" / name).touch()
    for name in ("Makefile", "fraudctl", "fraud_detection"):
        (checkout / name).symlink_to(ROOT / name)
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", checkout / ".venv"], check=True)
    subprocess.run(
        ["make", "--quiet", ".venv/runtime", "PIP_INSTALL=true"], cwd=checkout, check=True, capture_output=True
    )

    found = subprocess.run(
        [checkout / ".venv" / "bin" / "python", "-c", "import fraudctl; print(fraudctl.__file__)"],
        cwd=tmp_path, env={}, capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip

    assert found == f"{checkout}/fraudctl/__init__.py\n"
