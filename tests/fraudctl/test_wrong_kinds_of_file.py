"""Commands name what is no file, or no folder, where an installation keeps one, and change nothing."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from fraud_detection.database import DatabaseRefused
from fraud_detection.model.files import JOURNAL
from fraud_detection.model.read import Model
from fraud_detection.store import Store
from tests.support.command_line import Fraudctl


@dataclass(frozen=True)
class Kind:
    """A kind that is no file: its name in messages, and how one is made."""

    name: str
    make: Callable[[Path], object]


@pytest.fixture(
    params=[
        Kind("a folder", Path.mkdir),
        Kind("a named pipe", os.mkfifo),
        Kind("a device", lambda path: path.symlink_to("/dev/null")),
        Kind("a link that leads to itself", lambda path: path.symlink_to(path.name)),
    ],
    ids=lambda kind: kind.name,
)
def kind(request: pytest.FixtureRequest) -> Kind:
    wrong: Kind = request.param
    return wrong


@pytest.fixture
def version(fraudctl: Fraudctl, sqlite_store: Store, model: Model, sqlite_environment: dict[str, str]) -> str:
    """The current version of an installation that has a backup `good`."""
    sqlite_store.close()
    fraudctl("db", "backup", "good", env=sqlite_environment)
    return model.version


def _paths(folder: Path) -> list[tuple[str, int]]:
    """Every path in the folder with its inode, but for locks and for the record of how a retraining ended."""
    return sorted(
        (str(path), path.lstat().st_ino)
        for path in folder.rglob("*")
        if path.suffix != ".in-use" and path.name != "retrain_result.json"
    )


def test_a_database_that_is_no_file(
    fraudctl: Fraudctl, version: str, sqlite_environment: dict[str, str], tmp_path: Path, kind: Kind
) -> None:
    database = Path(sqlite_environment["LATEST_DB"])
    database.unlink()
    kind.make(database)
    expected = f"{database}: expected a file, got {kind.name}; give the path of a file"
    before = _paths(tmp_path)

    for arguments, exit_code in (
        (["db", "backup", "other"], 3),
        (["db", "restore", "good", "--replace"], 3),
        (["db", "query", "SELECT 1"], 3),
        (["models", "promote", version], 3),
        (["retrain"], 2),
    ):
        assert expected in fraudctl(*arguments, env=sqlite_environment, exit_code=exit_code).output
    assert "expected a file, got" in fraudctl("db", "check", env=sqlite_environment, exit_code=3).stdout
    assert _paths(tmp_path) == before


def test_the_api_creates_no_store_over_what_is_no_file(sqlite_store: Store, kind: Kind) -> None:
    database = Path(str(sqlite_store.location))
    database.unlink()
    kind.make(database)

    with pytest.raises(DatabaseRefused, match=f"expected a file, got {kind.name}") as refused:
        Store.create_or_migrate(database, sqlite_store.features)

    assert refused.value.reason == "not_a_file"


@pytest.mark.parametrize("name", [".lock", JOURNAL])
def test_a_lock_or_a_journal_that_is_no_file(
    fraudctl: Fraudctl, version: str, sqlite_environment: dict[str, str], name: str, kind: Kind
) -> None:
    models_dir = Path(sqlite_environment["MODEL_PATH"]).parent
    (models_dir / name).unlink()
    kind.make(models_dir / name)
    expected = f"{models_dir / name}: expected a file, got {kind.name}; move it away, the next job makes the file"
    before = _paths(models_dir)

    for arguments in (
        ["db", "backup", "other"],
        ["db", "restore", "good", "--replace"],
        ["db", "check"],
        ["models", "promote", version],
        ["models", "rollback"],
        ["retrain"],
    ):
        assert expected in fraudctl(*arguments, env=sqlite_environment, exit_code=3).output
    assert _paths(models_dir) == before


def test_a_drift_result_that_is_no_file(
    fraudctl: Fraudctl, version: str, sqlite_environment: dict[str, str], tmp_path: Path, kind: Kind
) -> None:
    drift_result = tmp_path / "result.json"
    kind.make(drift_result)
    environment = {**sqlite_environment, "DRIFT_RESULT": str(drift_result)}
    before = drift_result.lstat()

    refused = fraudctl("drift", env=environment, exit_code=2)
    fraudctl("retrain", env=environment)  # it reads the file, and takes what is none for no finding

    assert f"DRIFT_RESULT: {drift_result}: expected a file, got {kind.name}; give the path of a file" in refused.stderr
    assert drift_result.lstat().st_ino == before.st_ino


@pytest.mark.parametrize(
    ("variable", "name", "exit_codes"),
    [
        (
            "MODEL_PATH",
            "rf_model.pkl",
            {"bootstrap": 3, "drift": 3, "retrain": 3, "models list": 3, "models rollback": 3, "status": 3},
        ),
        ("LATEST_DB", "requests.db", {"retrain": 2, "status": 3, "db check": 3, "db backup b": 3, "reset --yes": 3}),
        ("DRIFT_RESULT", "result.json", {"drift": 2}),
    ],
)
def test_a_file_in_the_place_of_a_folder(
    fraudctl: Fraudctl, sqlite_environment: dict[str, str], variable: str, name: str, exit_codes: dict[str, int]
) -> None:
    Path("file").touch()

    for folder in ("file", "file/below"):
        for command, exit_code in exit_codes.items():
            environment = {**sqlite_environment, variable: f"{folder}/{name}"}
            said = fraudctl(*command.split(), env=environment, exit_code=exit_code).output
            expected = "file: expected a folder, got a file; give another path, or move it away"
            assert expected in " ".join(said.split()), command
