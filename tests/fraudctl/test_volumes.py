"""`fraudctl` on volumes as a container has them: mount points that cannot be moved, on file systems of their own."""

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from fraud_detection.features import FeatureList
from fraud_detection.model.files import PICKLE
from fraud_detection.model.read import current_version, versions
from fraud_detection.model.write import promote
from fraud_detection.store import Store
from tests.fraudctl.history_csv import history
from tests.support.programs import skip_or_fail
from tests.support.project import ROOT

MOUNT = 'for folder in "$MODELS" "$DATA"; do mount --bind "$folder" "$folder" || exit 100; done; exec "$@"'


@pytest.fixture
def volumes(make_version: Callable[..., str], features: FeatureList) -> Iterator[dict[str, str]]:
    """An installation whose data and models cannot be moved or removed, and whose parent folder is read-only."""
    with tempfile.TemporaryDirectory() as app, tempfile.TemporaryDirectory(dir="/dev/shm") as other:
        data, models_dir, backups = Path(app, "data"), Path(other, "models"), Path(app, "backups")
        for folder in (data, models_dir, backups):
            folder.mkdir()
        promote(models_dir, make_version(models_dir), actor="test", reason="the first one")
        Store.create_or_migrate(data / "requests.db", features).close()
        for parent in (app, other):
            Path(parent).chmod(0o555)  # stops every user but root, whom a mount stops
        yield {
            "PATH": os.environ["PATH"],
            "DATA": str(data),
            "MODELS": str(models_dir),
            "BACKUPS": str(backups),
            "MODEL_PATH": str(models_dir / PICKLE),
            "LATEST_DB": str(data / "requests.db"),
            "TRAIN_DB": str(data / "history.db"),
        }
        for parent in (app, other):
            Path(parent).chmod(0o755)


def run(*command: str | Path, env: dict[str, str]) -> str:
    mounted = ["unshare", "--mount", "sh", "-c", MOUNT, "sh"] if os.geteuid() == 0 else []
    ended = subprocess.run(
        [*mounted, sys.executable, "-m", "fraudctl", *command],
        env=env, cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    if mounted and "fraudctl" not in ended.stderr and ended.returncode in {1, 100}:
        skip_or_fail(f"root may not mount here (Docker: --cap-add SYS_ADMIN): {ended.stderr}")
    assert ended.returncode == 0, ended.stderr
    return ended.stdout


@pytest.mark.stories
def test_everything_that_changes_an_installation_stays_within_its_volumes(
    volumes: dict[str, str], tmp_path: Path
) -> None:
    data, models_dir, backups = (Path(volumes[name]) for name in ("DATA", "MODELS", "BACKUPS"))
    before = [data.stat().st_ino, models_dir.stat().st_ino]
    first = current_version(models_dir)
    theirs = shutil.copy(models_dir / str(first) / PICKLE, tmp_path / "theirs.pkl")

    run("import-csv", history(tmp_path), env=volumes)
    run("db", "backup", "--into", backups, "--keep", "1", env=volumes)
    run("models", "adopt", theirs, "--trust", env=volumes)
    adopted = current_version(models_dir)
    run("models", "rollback", env=volumes)
    run("models", "promote", str(adopted), env=volumes)
    (backup,) = backups.iterdir()
    restored = run("db", "restore", backup, "--replace", env=volumes)

    assert adopted not in {first, None}
    assert f"0 transactions (requests.db) and 2 transactions (history.db); the current version is {first}." in restored
    assert versions(models_dir) == [first]
    assert [data.stat().st_ino, models_dir.stat().st_ino] == before
    # The API may run as another user of the group.
    assert {Path(volumes[name]).stat().st_mode & 0o777 for name in ("LATEST_DB", "TRAIN_DB")} == {0o660}
