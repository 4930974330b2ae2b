"""A fresh installation gets its first model and its store, and an existing one keeps what it has."""

import errno
import json
import logging
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from api import bootstrap as program
from api.bootstrap import bootstrap
from fraud_detection import logs
from fraud_detection.exit_codes import ExitCode
from fraud_detection.features import FeatureList
from fraud_detection.lock import promoter
from fraud_detection.model.files import ONNX, REFERENCE
from fraud_detection.model.manifest import AmountScaling
from fraud_detection.model.read import ModelRefused, current_version, journal, load, versions
from fraud_detection.settings import SharedSettings
from fraud_detection.store import Store
from fraud_detection.vanished import Mark
from tests.support.environment import TOKEN
from tests.support.project import ROOT


@pytest.fixture
def fresh(location: str | Path, tmp_path: Path, make_version: Callable[..., str]) -> dict[str, str]:
    """The variables of an installation that has only a baseline, on each database in turn."""
    version = make_version(tmp_path / "made")
    (tmp_path / "made" / version).rename(tmp_path / "baseline")
    environment = {
        "MODEL_PATH": str(tmp_path / "models" / "rf_model.pkl"),
        "LATEST_DB": str(tmp_path / "data" / "requests.db"),
        "BASELINE_DIR": str(tmp_path / "baseline"),
    }
    return environment | ({"DATABASE_URL": location} if isinstance(location, str) else {})


@pytest.fixture
def settings(fresh: dict[str, str]) -> SharedSettings:
    return SharedSettings.from_env(fresh)


def test_an_installation_can_serve_after_it(settings: SharedSettings, features: FeatureList) -> None:
    bootstrap(settings)

    model = load(settings.model_path, features)
    Store.open(settings.store_location, features).close()
    (line,) = journal(settings.models_dir)
    assert (line["event"], line["version"], line["actor"]) == ("promoted", model.version, "bootstrap")


def test_the_reference_of_the_current_model_has_its_classic_path(settings: SharedSettings) -> None:
    bootstrap(settings)

    link = settings.latest_db.parent / REFERENCE
    if settings.database_url is None:
        assert str(link.readlink()) == "../models/current/reference_data.db"
    else:
        assert not link.is_symlink()


def test_repeating_it_changes_nothing(settings: SharedSettings) -> None:
    bootstrap(settings)
    before = journal(settings.models_dir), current_version(settings.models_dir)

    bootstrap(settings)

    assert (journal(settings.models_dir), current_version(settings.models_dir)) == before


def test_it_finishes_a_first_promotion_that_was_killed(settings: SharedSettings, features: FeatureList) -> None:
    bootstrap(settings)
    settings.model_path.unlink()

    bootstrap(settings)

    assert load(settings.model_path, features).version == current_version(settings.models_dir)


def test_a_current_model_stays(settings: SharedSettings, models_dir: Path, make_version: Callable[..., str]) -> None:
    before = current_version(models_dir)

    bootstrap(settings)

    assert current_version(models_dir) == before


def test_the_baseline_takes_over_the_scaling_that_the_store_has_fixed(
    settings: SharedSettings, features: FeatureList
) -> None:
    store = Store.create_or_migrate(settings.store_location, features)
    with store.begin() as connection:
        store.set_meta(connection, "amount_scaling", json.dumps({"mean": 12.5, "standard_deviation": 3.0}))
    store.close()

    bootstrap(settings)

    model = load(settings.model_path, features)
    assert model.manifest.amount_scaling == AmountScaling(12.5, 3.0)


def test_a_reference_file_of_the_user_stays(settings: SharedSettings) -> None:
    link = settings.latest_db.parent / REFERENCE
    link.parent.mkdir(exist_ok=True)
    link.write_text("precious")

    bootstrap(settings)

    assert link.read_text() == "precious"


def test_without_a_baseline_the_next_step_is_named(settings: SharedSettings, tmp_path: Path) -> None:
    (tmp_path / "baseline").rename(tmp_path / "elsewhere")

    with pytest.raises(ModelRefused, match=r"python -m jobs\.seed --out .*baseline"):
        bootstrap(settings)


def test_a_baseline_that_could_not_serve_is_not_installed(settings: SharedSettings, tmp_path: Path) -> None:
    (tmp_path / "baseline" / ONNX).write_bytes(b"something else")

    with pytest.raises(ModelRefused):
        bootstrap(settings)

    assert current_version(settings.models_dir) is None
    assert versions(settings.models_dir) == []


@pytest.fixture
def run(fresh: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    """Run the program itself; its log stays with pytest."""

    def main(**variables: str) -> int:
        for name, value in (fresh | variables).items():
            monkeypatch.setenv(name, value)
        monkeypatch.setattr(logs, "configure", lambda *_: None)
        return program.main()

    return main


def test_it_says_what_it_did(run: Callable[..., int], caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        assert run() == 0

    said = "\n".join(record.getMessage() for record in caplog.records)
    assert "29 features" in said
    assert "is the current version" in said
    assert "the API can start" in said


@pytest.mark.parametrize(
    ("wrong", "status", "message"),
    [
        ({"FRAUD_THRESHOLD": "2"}, 2, "FRAUD_THRESHOLD"),
        ({"FEATURES_FILE": "nowhere.json"}, 2, "nowhere.json"),
        ({"BASELINE_DIR": "nowhere"}, 3, "BASELINE_DIR"),
        ({"BASELINE_DIR": __file__}, 3, f"BASELINE_DIR: {__file__}: expected a folder, got a file"),
        ({"BASELINE_DIR": "/dev/null/baseline"}, 3, "BASELINE_DIR: /dev/null: expected a folder, got a device"),
        (
            {"MODEL_PATH": f"{__file__}/rf_model.pkl"},
            3,
            f"{__file__}: expected a folder, got a file; give another path",
        ),
        ({"MODEL_PATH": f"{__file__}/a/rf_model.pkl"}, 3, f"{__file__}: expected a folder, got a file; give another"),
    ],
)
def test_what_is_wrong_is_one_line_and_an_exit_code(
    run: Callable[..., int], caplog: pytest.LogCaptureFixture, wrong: dict[str, str], status: int, message: str
) -> None:
    assert run(**wrong) == status

    assert message in caplog.records[-1].getMessage()
    assert caplog.records[-1].exc_info is None


@pytest.mark.parametrize("location", ["sqlite"], indirect=True)
def test_a_database_below_a_file_is_named(run: Callable[..., int], caplog: pytest.LogCaptureFixture) -> None:
    assert run(LATEST_DB=f"{__file__}/requests.db") == 3

    assert caplog.records[-1].getMessage().startswith(f"{__file__}: expected a folder, got a file; give another path")


def test_a_full_volume_may_have_room_at_the_next_attempt(
    run: Callable[..., int],
    caplog: pytest.LogCaptureFixture,
    settings: SharedSettings,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def is_full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", is_full)

    assert run() == 1

    assert f"{settings.models_dir}: No space left on device, for uid" in caplog.records[-1].getMessage()
    assert "free space there" in caplog.records[-1].getMessage()


def test_a_volume_that_is_read_only_is_answered_by_another(tmp_path: Path) -> None:
    error = OSError(errno.EROFS, os.strerror(errno.EROFS), str(tmp_path / "models"))

    refused = program.CannotWrite(tmp_path, error)

    assert (refused.exit_code, "mount a writable volume there" in str(refused)) == (ExitCode.UNUSABLE, True)


@pytest.fixture
def volumes(make_version: Callable[..., str]) -> Iterator[dict[str, str]]:
    """A fresh installation in which any user may work; its data and models belong to group 0, which may write."""
    if os.geteuid() != 0:
        pytest.skip("only root can run programs as several users; run this test as root")
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        version = make_version(Path(folder, "made"))
        Path(folder, "made", version).rename(Path(folder, "baseline"))
        subprocess.run(["chmod", "-R", "a+rX", folder], check=True)
        for name in ("data", "models"):
            Path(folder, name).mkdir()
            Path(folder, name).chmod(0o775)
        yield {
            "API_TOKEN": TOKEN,
            "MODEL_PATH": f"{folder}/models/rf_model.pkl",
            "LATEST_DB": f"{folder}/data/requests.db",
            "TRAIN_DB": f"{folder}/data/requests.db",
            "DRIFT_RESULT": f"{folder}/data/drift_result.json",
            "BASELINE_DIR": f"{folder}/baseline",
        }


def run_as(uid: int, gid: int, *module: str, env: dict[str, str]) -> subprocess.CompletedProcess[str]:
    user = ["setpriv", f"--reuid={uid}", f"--regid={gid}", "--clear-groups"]
    if not is_readable_by_all(Path(sys.executable)):  # such as a Python in root's own folder
        user += [
            "--inh-caps=+dac_read_search",
            "--ambient-caps=+dac_read_search",
        ]  # to read anything, and write nothing
    return subprocess.run(
        [*user, sys.executable, "-m", *module],
        cwd=ROOT, env={"PATH": os.environ["PATH"], "HOME": "/nonexistent", "PYTHONDONTWRITEBYTECODE": "1", **env},
        umask=0o022, capture_output=True, text=True, check=False,
    )  # fmt: skip


def is_readable_by_all(path: Path) -> bool:
    return all(parent.stat().st_mode & 0o001 for parent in (*path.absolute().parents, *path.resolve().parents))


def test_what_one_user_of_the_group_made_another_may_write(volumes: dict[str, str]) -> None:
    first = run_as(12345, 0, "api.bootstrap", env=volumes)
    second = run_as(54321, 0, "api.bootstrap", env=volumes)
    drift = run_as(54321, 0, "jobs.detect_drift", env=volumes)
    again = run_as(12345, 0, "jobs.detect_drift", env=volumes)
    trained = run_as(54321, 0, "jobs.retrain", "--force", env=volumes)

    retrained = run_as(12345, 0, "jobs.retrain", "--force", env=volumes)

    for ended in (first, second, trained, retrained):
        assert ended.returncode == 0, ended.stderr
    for ended in (drift, again):  # this baseline has no reference; the job writes its finding even so
        assert (ended.returncode, "does not list reference_data.db" in ended.stderr) == (3, True), ended.stderr
    assert (Path(volumes["LATEST_DB"]).parent / "mlflow.db").exists()
    for folder in (Path(volumes["LATEST_DB"]).parent, Path(volumes["MODEL_PATH"]).parent):
        modes = {path.name: path.stat().st_mode & 0o077 for path in folder.rglob("*") if not path.is_symlink()}
        assert len(modes) > 1
        assert {name: oct(mode) for name, mode in modes.items() if mode not in {0o060, 0o070}} == {}


def test_a_volume_of_another_user_is_one_line(volumes: dict[str, str]) -> None:
    ended = run_as(12345, 12345, "api", env=volumes)

    assert ended.returncode == 3, ended.stderr
    assert "Permission denied, for uid 12345 and gid 12345; " in ended.stderr
    assert "set fsGroup" in ended.stderr
    assert "Traceback" not in ended.stderr


@pytest.mark.parametrize("location", ["sqlite"], indirect=True)
def test_a_store_that_vanished_is_not_replaced_by_an_empty_one(
    run: Callable[..., int], settings: SharedSettings, caplog: pytest.LogCaptureFixture
) -> None:
    mark = Mark.of(settings)
    assert mark is not None
    settings.models_dir.mkdir()
    mark.leave("requests.db: was removed")

    assert run() == 3

    assert "restore a backup (`fraudctl db restore`), or accept" in caplog.records[-1].getMessage()
    assert not settings.latest_db.parent.exists()


def test_it_does_not_disturb_another_promoter(run: Callable[..., int], settings: SharedSettings) -> None:
    with promoter(settings.models_dir):
        assert run() == 1

    assert current_version(settings.models_dir) is None


def test_a_pod_starts_while_a_promoter_waits_for_it(run: Callable[..., int], settings: SharedSettings) -> None:
    bootstrap(settings)

    with promoter(settings.models_dir):
        assert run() == 0


def test_a_model_of_the_user_is_neither_served_nor_replaced(settings: SharedSettings) -> None:
    settings.models_dir.mkdir()
    settings.model_path.write_bytes(b"somebody's own")

    with pytest.raises(ModelRefused, match="fraudctl models adopt"):
        bootstrap(settings)

    assert settings.model_path.read_bytes() == b"somebody's own"
