"""Declaring a variable with the wrong type fails mypy, and secrets come from the environment or from a file."""

import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from fraud_detection.environment import BadSetting, open_file_warning
from fraud_detection.model.files import NAMED_LIMIT_BYTES
from fraud_detection.settings import ApiSettings
from tests.support.no_files import FOLDER_PIPE_AND_DEVICE
from tests.support.project import ROOT

TOKEN = {"API_TOKEN": "t0k3n"}

DECLARATIONS = """\
from dataclasses import dataclass
from pathlib import Path

from fraud_detection.environment import REQUIRED, Boolean, Choice, Integer, Number, Settings, text, variable


@dataclass(frozen=True, kw_only=True)
class Right(Settings):
    share: float = variable("SHARE", Number(0, 1), 0.4, "")
    days: float = variable("DAYS", Integer(0, 9), 4, "")
    rows: int = variable("ROWS", Integer(0, 9), 4, "")
    path: Path = variable("PATH", Path, "a/b", "")
    mode: str = variable("MODE", Choice("a", "b"), "a", "")
    on: bool = variable("ON", Boolean(), "false", "")
    token: str = variable("TOKEN", text, REQUIRED, "")
    file: Path | None = variable("FILE", Path, None, "")


@dataclass(frozen=True, kw_only=True)
class Wrong(Settings):
    share: float = variable("SHARE", text, 0.4, "")  # str for float
    days: float = variable("DAYS", text, "4", "")  # str for float
    rows: int = variable("ROWS", Number(0, 9), 4, "")  # float for int
    path: Path = variable("PATH", text, "a/b", "")  # str for Path
    on: bool = variable("ON", Integer(0, 1), 0, "")  # int for bool
    token: str = variable("TOKEN", Path, REQUIRED, "")  # Path for str
    file: Path = variable("FILE", Path, None, "")  # Path | None for Path
    name: Path | None = variable("NAME", text, None, "")  # str | None for Path | None
"""


def test_mypy_refuses_a_parser_of_the_wrong_type(tmp_path: Path) -> None:
    file = tmp_path / "declarations.py"
    file.write_text(DECLARATIONS)
    expected = [
        f'{number}: expression has type "{got}", variable has type "{field}"'
        for number, line in enumerate(DECLARATIONS.splitlines(), 1)
        for got, field in re.findall(r"# (.+) for (.+)$", line)
    ]

    command = [sys.executable, "-m", "mypy", "--strict", f"--cache-dir={tmp_path / 'cache'}", str(file)]
    said = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)

    found = re.findall(r"declarations\.py:(\d+): error: .*?\((.*?)\)  \[assignment\]", said.stdout)
    assert [f"{number}: {types}" for number, types in found] == expected, said.stdout + said.stderr
    assert "Found 8 errors in 1 file" in said.stdout


@pytest.mark.parametrize(
    ("name", "value"), [("API_TOKEN", "two words"), ("DATABASE_URL", "mysql://user:password@host/database")]
)
def test_the_value_of_a_secret_is_never_in_the_message(name: str, value: str) -> None:
    with pytest.raises(BadSetting, match=name) as refused:
        ApiSettings.from_env(TOKEN | {name: value})

    assert value not in str(refused.value)
    assert refused.value.__cause__ is None


def test_a_secret_comes_from_its_file_without_the_last_newline(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("from-a-file\n")

    settings = ApiSettings.from_env({"API_TOKEN_FILE": str(tmp_path / "token")})

    assert (settings.api_token, settings.api_token_file) == ("from-a-file", tmp_path / "token")


def test_a_secret_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(BadSetting, match=r"API_TOKEN_FILE: .*none cannot be read"):
        ApiSettings.from_env({"API_TOKEN_FILE": str(tmp_path / "none")})


@pytest.mark.parametrize(("make", "kind"), FOLDER_PIPE_AND_DEVICE)
def test_a_secret_file_that_is_no_file_is_named_and_never_waited_for(
    tmp_path: Path, make: Callable[[Path], object], kind: str
) -> None:
    file = tmp_path / "token"
    make(file)

    for name in ("API_TOKEN", "METRICS_TOKEN", "DATABASE_URL"):
        others = {} if name == "API_TOKEN" else TOKEN
        with pytest.raises(BadSetting, match=rf"{name}_FILE: {file} cannot be read \(expected a file, got {kind}\)"):
            ApiSettings.from_env({**others, f"{name}_FILE": str(file)})


def test_a_secret_file_without_an_end_is_not_read_into_memory(tmp_path: Path) -> None:
    with (tmp_path / "token").open("wb") as file:
        file.truncate(10 * NAMED_LIMIT_BYTES)

    with pytest.raises(BadSetting, match=r"token cannot be read \(larger than 1,048,576 bytes\)"):
        ApiSettings.from_env({"API_TOKEN_FILE": str(tmp_path / "token")})


@pytest.mark.parametrize("optional", ["DATABASE_URL", "API_TOKEN_PREVIOUS"])
def test_an_optional_secret_whose_file_cannot_be_read_is_refused(tmp_path: Path, optional: str) -> None:
    file = tmp_path / ("none" if optional == "DATABASE_URL" else "")  # a folder is there, and no file to read

    with pytest.raises(BadSetting, match=f"{optional}_FILE: .* cannot be read"):
        ApiSettings.from_env(TOKEN | {f"{optional}_FILE": str(file)})


def test_the_file_of_the_previous_token_may_come_later(tmp_path: Path) -> None:
    settings = ApiSettings.from_env(TOKEN | {"API_TOKEN_PREVIOUS_FILE": str(tmp_path / "none")})

    assert (settings.api_token_previous, settings.api_token_previous_file) == (None, tmp_path / "none")


def test_a_secret_comes_from_one_place(tmp_path: Path) -> None:
    with pytest.raises(BadSetting, match="API_TOKEN and API_TOKEN_FILE are both set"):
        ApiSettings.from_env(TOKEN | {"API_TOKEN_FILE": str(tmp_path / "token")})


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o644])
def test_a_file_of_secrets_that_is_open_to_others_is_warned_of(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "secret"
    path.touch()
    path.chmod(mode)

    assert open_file_warning("BACKUP_KEY_FILE", path) == (
        f"BACKUP_KEY_FILE: {path} is open to other users (mode {mode:04o}); run chmod 600 on it"
    )


def test_a_file_of_secrets_that_is_closed_or_of_another_user_or_missing_is_not_warned_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "secret"
    assert open_file_warning("BACKUP_KEY_FILE", path) is None
    path.touch(mode=0o600)
    assert open_file_warning("BACKUP_KEY_FILE", path) is None
    path.chmod(0o640)
    monkeypatch.setattr("os.geteuid", lambda: path.stat().st_uid + 1)  # as in a pod, where root owns the file
    assert open_file_warning("BACKUP_KEY_FILE", path) is None


def test_describes_each_variable_for_the_tables() -> None:
    described = {variable.name: variable for variable in ApiSettings.variables()}

    assert described["API_TOKEN"].required
    assert described["API_TOKEN"].secret
    assert described["PORT"].default == "5000"
    assert described["DATABASE_URL"].default is None
