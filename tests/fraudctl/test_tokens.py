"""`fraudctl token` makes tokens that it shows once, and its file never holds one."""

import hashlib
import re
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from fraud_detection.token_file import read_tokens
from tests.support.command_line import Fraudctl
from tests.support.project import ROOT
from tests.support.tokens import new_token


@pytest.fixture
def env(tmp_path: Path) -> dict[str, str]:
    return {"API_TOKENS_FILE": str(tmp_path / "tokens")}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "tokens"


def test_new_prints_the_token_alone_and_stores_its_digest(fraudctl: Fraudctl, env: dict[str, str], file: Path) -> None:
    made = fraudctl("token", "new", "helpdesk", "--scope", "label", "--scope", "read", env=env)

    token = made.stdout.removesuffix("\n")
    (stored,) = read_tokens(file)
    assert re.fullmatch(r"[\w-]{43}", token)
    assert (stored.name, stored.scopes) == ("helpdesk", frozenset({"label", "read"}))
    assert stored.digest == hashlib.sha256(token.encode()).digest()
    assert token not in file.read_text()
    assert token not in made.stderr
    assert made.stderr.splitlines()[-2:] == [
        f"Added helpdesk to {file}. Only an API that was started with this variable accepts the token:",
        f"  export API_TOKENS_FILE={file}",
    ]


def test_without_a_file_the_variable_is_named(fraudctl: Fraudctl) -> None:
    refused = fraudctl("token", "list", env={}, exit_code=2)

    assert "Missing option '--file' (env var: 'API_TOKENS_FILE')" in refused.stderr


def test_a_new_file_is_of_its_owner_alone_and_an_open_one_is_warned_of(
    fraudctl: Fraudctl, env: dict[str, str], file: Path
) -> None:
    made = fraudctl("token", "new", "shop", "--scope", "predict", env=env)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert "Warning" not in made.stderr

    file.chmod(0o644)

    listed = fraudctl("token", "list", env=env)
    assert (
        listed.stderr == f"Warning: API_TOKENS_FILE: {file} is open to other users (mode 0644); run chmod 600 on it\n"
    )


def test_a_rotation_by_name(fraudctl: Fraudctl, env: dict[str, str], file: Path) -> None:
    file.write_text("# kept\n")
    first = fraudctl("token", "new", "shop", "--scope", "predict", env=env).stdout.strip()
    again = fraudctl("token", "new", "shop", "--scope", "predict", env=env, exit_code=2)
    second = fraudctl("token", "rotate", "shop", env=env).stdout.strip()
    third = fraudctl("token", "rotate", "shop", env=env, exit_code=2)
    listed = fraudctl("token", "list", env=env)
    fraudctl("token", "remove", "shop", "--previous", env=env)
    (left,) = read_tokens(file)
    no_previous = fraudctl("token", "remove", "shop", "--previous", env=env, exit_code=2)

    assert "`fraudctl token rotate shop` adds its successor" in again.stderr
    assert "first run `fraudctl token remove shop --previous`" in third.stderr
    assert [row.split() for row in listed.stdout.splitlines()] == [["shop", "predict", "previous"], ["shop", "predict"]]
    assert first not in listed.output
    assert second not in listed.output
    assert left.digest == hashlib.sha256(second.encode()).digest()
    assert "without --previous the command removes it" in no_previous.stderr
    assert fraudctl("token", "remove", "shop", env=env).stdout == f"Removed 1 token of shop from {file}\n"
    assert file.read_text() == "# kept\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["new", "Shop", "--scope", "read"], "the name of a token: expected 1 to 64 small letters"),
        (["new", "current", "--scope", "read"], "and another word than current, none, previous"),
        (["new", "shop", "--scope", "everything"], "is not one of 'predict', 'label', 'read', 'metrics'"),
        (["new", "shop"], "Missing option '--scope'"),
        (["rotate", "shop"], "cannot be read (No such file or directory)"),
        (["remove", "shop"], "cannot be read (No such file or directory)"),
        (["list"], "cannot be read (No such file or directory)"),
    ],
)
def test_what_cannot_be_done_changes_no_file(
    fraudctl: Fraudctl, env: dict[str, str], tmp_path: Path, arguments: list[str], message: str
) -> None:
    refused = fraudctl("token", *arguments, env=env, exit_code=2)

    assert message in " ".join(refused.stderr.split())
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("command", "stdout", "why"),
    [
        ("new desk --scope read", ">/dev/full", "No space left on device"),
        ("rotate shop", ">&-", "standard output is closed"),
    ],
)
def test_a_token_that_could_not_be_shown_is_not_added(file: Path, command: str, stdout: str, why: str) -> None:
    new_token(file, "shop", ["predict"])
    before = file.read_text()

    done = subprocess.run(
        ["sh", "-c", f"{sys.executable} -m fraudctl token {command} --file {file} {stdout}"],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip

    assert done.returncode == 1
    assert f"Error: the token cannot be shown ({why}), so none was added\n" in done.stderr
    assert file.read_text() == before


def test_a_wrong_file_is_not_touched(fraudctl: Fraudctl, env: dict[str, str], file: Path) -> None:
    file.write_text("shop predict a-token-in-the-wrong-place\n")

    refused = fraudctl("token", "new", "other", "--scope", "read", env=env, exit_code=2)

    assert "line 1: expected sha256: and 64 hexadecimal digits" in refused.stderr
    assert "a-token-in-the-wrong-place" not in refused.output
    assert file.read_text() == "shop predict a-token-in-the-wrong-place\n"


def test_mode_and_link_of_the_file_stay(fraudctl: Fraudctl, env: dict[str, str], tmp_path: Path, file: Path) -> None:
    real = tmp_path / "real"
    real.write_text("")
    real.chmod(0o604)
    file.symlink_to(real)

    fraudctl("token", "new", "shop", "--scope", "read", env=env)

    assert file.is_symlink()
    assert stat.S_IMODE(real.stat().st_mode) == 0o604
    assert len(read_tokens(real)) == 1


def test_tokens_that_are_made_at_the_same_time_are_all_there(file: Path) -> None:
    file.write_text("")
    at_once = [threading.Thread(target=new_token, args=(file, f"client-{each}", ["read"])) for each in range(8)]
    for thread in at_once:
        thread.start()
    for thread in at_once:
        thread.join()

    assert {token.name for token in read_tokens(file)} == {f"client-{each}" for each in range(8)}
