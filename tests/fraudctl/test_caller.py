"""The token file of `serve --first-time` counts only if no token is set."""

import os
from pathlib import Path

import pytest

from fraud_detection.environment import BadSetting
from fraudctl.caller import TOKEN_FILE, client_settings, environment
from tests.support.command_line import Fraudctl


@pytest.fixture(autouse=True)
def folder_with_a_token(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A working directory in which `serve --first-time` created a token."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("API_TOKEN", raising=False)
    monkeypatch.delenv("API_TOKEN_FILE", raising=False)
    TOKEN_FILE.write_text("a-token\n")


@pytest.mark.parametrize("name", ["API_TOKEN", "API_TOKEN_FILE"])
def test_a_token_that_is_set_is_kept(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, "set-by-the-user")

    found = environment()

    assert {key: found.get(key) for key in ("API_TOKEN", "API_TOKEN_FILE")} == {
        "API_TOKEN": None,
        "API_TOKEN_FILE": None,
        name: "set-by-the-user",
    }


def test_a_token_that_is_set_is_kept_even_beside_an_empty_file(monkeypatch: pytest.MonkeyPatch) -> None:
    TOKEN_FILE.write_text("")
    monkeypatch.setenv("API_TOKEN", "set-by-the-user")

    assert environment()["API_TOKEN"] == "set-by-the-user"


@pytest.mark.parametrize("set_to", [None, ""])
def test_without_one_the_file_is_named(set_to: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    if set_to is not None:
        monkeypatch.setenv("API_TOKEN", set_to)

    assert environment()["API_TOKEN_FILE"] == ".api_token"


@pytest.mark.parametrize("content", ["", " \n"])
def test_an_empty_file_is_refused(content: str) -> None:
    TOKEN_FILE.write_text(content)

    with pytest.raises(BadSetting, match=r"^\.api_token: is empty; `fraudctl serve --first-time` creates a new token$"):
        environment()


def test_without_the_file_the_environment_is_unchanged(monkeypatch: pytest.MonkeyPatch) -> None:
    TOKEN_FILE.unlink()

    assert "API_TOKEN_FILE" not in environment()


@pytest.mark.parametrize(
    ("token", "warning"),
    [
        (
            "fifteen-letters",
            "Warning: API_TOKEN: has fewer than 16 characters. It works, and version 0.3.0 will refuse it",
        ),
        ("sixteen-letters!", ""),
    ],
)
def test_a_short_token_works_with_a_warning(
    token: str, warning: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("API_TOKEN", token)

    assert client_settings().api_token == token
    printed = capsys.readouterr()
    assert printed.err.startswith(warning)
    assert bool(printed.err) == bool(warning)
    assert token not in printed.err + printed.out


def test_a_key_file_that_is_open_to_others_is_warned_of(
    tmp_path: Path, fraudctl: Fraudctl, sqlite_environment: dict[str, str]
) -> None:
    key = tmp_path / "backup.key"
    key.touch()
    key.chmod(0o640)

    checked = fraudctl("features", "check", env=sqlite_environment | {"BACKUP_KEY_FILE": str(key)})

    assert (
        checked.stderr == f"Warning: BACKUP_KEY_FILE: {key} is open to other users (mode 0640); run chmod 600 on it\n"
    )


def test_a_token_file_that_is_no_file_is_named() -> None:
    TOKEN_FILE.unlink()
    os.mkfifo(TOKEN_FILE)

    with pytest.raises(BadSetting, match=r"^API_TOKEN: \.api_token cannot be read \(expected a file, got a named"):
        environment()
