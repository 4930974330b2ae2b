"""`fraudctl models` lists, shows, promotes, rolls back and adopts versions."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from click.shell_completion import ShellComplete

from fraud_detection.model.files import CURRENT, PICKLE
from fraud_detection.model.read import Model, current_version, journal, read_manifest
from fraud_detection.model.write import promote
from fraud_detection.store import Store
from fraudctl.main import main
from tests.support.bad_models import BAD_STATES, Spoil
from tests.support.command_line import Fraudctl
from tests.support.terminal import terminal


def test_versions_are_listed_shown_promoted_rolled_back_and_adopted(
    fraudctl: Fraudctl,
    sqlite_store: Store,
    model: Model,
    sqlite_environment: dict[str, str],
    make_version: Callable[..., str],
) -> None:
    models_dir = Path(sqlite_environment["MODEL_PATH"]).parent
    old = models_dir.with_name("old.pkl")
    check = {"name": "recall", "passed": True, "sentence": "It flags more."}
    measured = {"average_precision": 0.8954, "recall": 0.9, "precision": None}
    verdict = {"decision": "promote", "checks": [check], "measured": measured}
    newer = make_version(
        models_dir, seed=1, rows={"fraud": 12, "genuine": 3456}, label_sources={"import": 3468}, verdict=verdict
    )
    (models_dir / "20270101T000000Z-0123456789ab").mkdir()
    old.write_bytes((models_dir / model.version / PICKLE).read_bytes())

    promoted = fraudctl(
        "models", "promote", f"models/{newer}/", "--reason", "it is better\nfor us", env=sqlite_environment
    )
    listed = fraudctl("models", "list", env=sqlite_environment)
    shown = fraudctl("models", "show", env=sqlite_environment)
    manifest = fraudctl("models", "show", "--json", env=sqlite_environment)
    shown_by_path = fraudctl("models", "show", f"{newer}/", env=sqlite_environment)
    back = fraudctl("models", "rollback", env=sqlite_environment)
    nothing = fraudctl("models", "rollback", env=sqlite_environment, exit_code=1)
    adopted = fraudctl("models", "adopt", old, "--trust", env=sqlite_environment)

    not_asked = "No API was asked whether it serves this model (API_URL, ROLLOUT_MODE)."
    assert promoted.stdout == f"{newer} is the current version. {not_asked}\n"
    assert [line.split(maxsplit=8) for line in listed.stdout.splitlines()[1:3]] == [
        [model.version, "2026-01-01", "00:00:00", "-", "-", "-", "-", "labels", "(rows unknown)"],
        ["->", newer, "2026-01-01", "00:00:01", "0.895", "0.900", "-", "promote", "labels (3,468 rows, 12 fraud)"],
    ]
    assert len({line.index("labels") for line in listed.stdout.splitlines()[1:3]}) == 1
    assert "   20270101T000000Z-0123456789ab  damaged: " in listed.stdout
    assert json.loads(manifest.stdout)["label_sources"] == {"import": 3468}
    assert shown_by_path.stdout == shown.stdout
    assert shown.stdout.startswith(f"Version {newer}, the current one\n")
    assert "  measured  average precision 0.895, recall 0.900, precision -\n" in shown.stdout
    assert "  passed    It flags more.\n" in shown.stdout
    assert re.search(r"  journal   .* promoted by fraudctl \(.*\): it is better\\nfor us\n", shown.stdout)
    assert back.stdout == f"{model.version} is the current version again. {not_asked}\n"
    assert "no other version served before" in nothing.stderr
    assert "is the current version: the RandomForestClassifier of old.pkl. On " in adopted.stdout
    assert read_manifest(models_dir / CURRENT).trained_on == "unknown"


def test_the_shell_completes_versions(
    fraudctl: Fraudctl,
    models_dir: Path,
    model: Model,
    sqlite_environment: dict[str, str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    shell = ShellComplete(main, {}, "fraudctl", "_FRAUDCTL_COMPLETE")
    for name, value in sqlite_environment.items():
        monkeypatch.setenv(name, value)

    found = [[item.value for item in shell.get_completions(["models", "show"], begun)] for begun in ("2026", "3")]
    monkeypatch.setenv("FRAUD_THRESHOLD", "much")
    with_a_wrong_setting = shell.get_completions(["models", "promote"], "")

    assert found == [[model.version], []]
    assert with_a_wrong_setting == []


def test_a_model_is_adopted_from_standard_input(
    fraudctl: Fraudctl, sqlite_store: Store, model: Model, sqlite_environment: dict[str, str]
) -> None:
    models_dir = Path(sqlite_environment["MODEL_PATH"]).parent
    content = (models_dir / model.version / PICKLE).read_bytes()

    adopted = fraudctl("models", "adopt", "/dev/stdin", "--trust", env=sqlite_environment, answer=content)

    assert "is the current version: the RandomForestClassifier of stdin. On " in adopted.stdout


def test_without_a_terminal_a_pickle_needs_trust(
    fraudctl: Fraudctl, tmp_path: Path, sqlite_environment: dict[str, str]
) -> None:
    (tmp_path / "old.pkl").write_bytes(b"never read")

    refused = fraudctl("models", "adopt", tmp_path / "old.pkl", env=sqlite_environment, exit_code=2)

    assert refused.stderr == (
        f"fraudctl: {tmp_path}/old.pkl: a pickle can run any code as you, and there is no terminal to ask on; "
        "add --trust if you trust the file\n"
    )


@pytest.mark.parametrize(
    ("answer", "exit_code", "told"),
    [("n", 1, "Aborted!"), ("", 1, "Aborted!"), ("y", 3, "is no pickle that can be loaded here")],
)
def test_on_a_terminal_you_are_asked_first(
    tmp_path: Path, sqlite_environment: dict[str, str], answer: str, exit_code: int, told: str
) -> None:
    (tmp_path / "old.pkl").write_bytes(b"neither a pickle nor compressed")

    with terminal() as (person, program):
        os.write(person, f"{answer}\n".encode())
        ended = subprocess.run(
            [sys.executable, "-m", "fraudctl", "models", "adopt", tmp_path / "old.pkl"],
            env={**os.environ, **sqlite_environment}, stdin=program, capture_output=True, text=True, check=False,
        )  # fmt: skip

    assert ended.returncode == exit_code, ended.stderr
    assert f"{tmp_path}/old.pkl is a pickle, which can run any code as you. Do you trust it? [y/N]: " in ended.stderr
    assert told in ended.stderr


def test_there_is_nothing_to_show_before_a_model_serves(fraudctl: Fraudctl, tmp_path: Path) -> None:
    result = fraudctl("models", "show", env={"MODEL_PATH": str(tmp_path / "models" / "rf_model.pkl")}, exit_code=3)

    assert "there is no current model; `fraudctl bootstrap` installs one" in result.stderr


@pytest.mark.parametrize(
    ("version", "name"),
    [
        ("../20200101T000000Z-0123456789ab", "20200101T000000Z-0123456789ab"),
        ("nothing", "nothing"),
        ("/dev/null", "null"),
        ("a\nb", "'a\\nb'"),
    ],
)
def test_a_version_that_is_not_there_is_named(
    fraudctl: Fraudctl, sqlite_environment: dict[str, str], tmp_path: Path, version: str, name: str
) -> None:
    before = sorted(tmp_path.rglob("*"))
    models_dir = Path(sqlite_environment["MODEL_PATH"]).parent
    told = f"fraudctl: {models_dir}: has no version {name}; `fraudctl models list` shows those that are kept\n"

    for command in ("show", "promote"):
        assert fraudctl("models", command, version, env=sqlite_environment, exit_code=3).stderr == told
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize(("spoil", "reason"), BAD_STATES.values(), ids=BAD_STATES.keys())
def test_commands_say_of_a_bad_state_what_it_is(
    *,
    fraudctl: Fraudctl,
    models_dir: Path,
    sqlite_environment: dict[str, str],
    make_version: Callable[..., str],
    spoil: Spoil,
    reason: str,
) -> None:
    version = make_version(models_dir, seed=1)
    promote(models_dir, version, actor="test", reason="bad")
    spoil(models_dir / version)

    listed = fraudctl("models", "list", env=sqlite_environment)
    checked = fraudctl("db", "check", env=sqlite_environment, exit_code=3)

    _, *lines = listed.stdout.splitlines()
    assert len(lines) == (1 if spoil is shutil.rmtree else 2)
    assert reason != "manifest" or f"{version}  damaged: {version}: manifest.json is not one of ours" in listed.stdout
    assert "model: " in checked.stdout


@pytest.mark.parametrize("state", ["a named pipe as model", "a manifest of lists in lists", "a model of a terabyte"])
def test_what_is_in_a_bad_state_is_neither_promoted_nor_gone_back_to(
    *,
    fraudctl: Fraudctl,
    sqlite_store: Store,
    models_dir: Path,
    model: Model,
    sqlite_environment: dict[str, str],
    make_version: Callable[..., str],
    state: str,
) -> None:
    promote(models_dir, make_version(models_dir, seed=1), actor="test", reason="better")
    BAD_STATES[state][0](models_dir / model.version)
    before = current_version(models_dir)

    for command in (("promote", model.version), ("rollback",)):
        refused = fraudctl("models", *command, env=sqlite_environment, exit_code=3)
        assert refused.stderr.startswith(f"fraudctl: {model.version}: ")
        assert len(refused.stderr.splitlines()) == 1

    assert current_version(models_dir) == before


def test_a_user_without_a_name_is_written_down_by_number(
    fraudctl: Fraudctl, sqlite_store: Store, sqlite_environment: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("LOGNAME", "USER", "LNAME", "USERNAME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("os.getuid", lambda: 4_000_000)
    models_dir = Path(sqlite_environment["MODEL_PATH"]).parent

    fraudctl("models", "promote", str(current_version(models_dir)), env=sqlite_environment)

    assert journal(models_dir)[-1]["actor"] == "fraudctl (uid 4000000)"
