"""MLflow's artefacts are found wherever the installation was moved or copied."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from jobs.rollout.artifacts import have_moved
from jobs.rollout.tracking import Tracking
from tests.support.mlflow_store import mlflow_client


def open_tracking(folder: Path) -> Tracking:
    return Tracking(None, folder, experiment="FraudDetection", registered_model="fraud-api")


def log(tracking: Tracking) -> str:
    files = {"model/model.onnx": b"onnx"}
    return tracking.log_run("a run", params={}, metrics={}, tags={}, files=files, description="a test")


def location_of(folder: Path, experiment: str) -> str:
    found = mlflow_client(folder).get_experiment_by_name(experiment)
    assert found is not None
    return str(found.artifact_location)


@pytest.fixture
def born(tmp_path: Path, with_mlflow: Callable[[Path], None]) -> tuple[Path, str]:
    """A folder, and its run, which is registered."""
    folder = tmp_path / "born 100% here"
    with_mlflow(folder)
    tracking = open_tracking(folder)
    run_id = log(tracking)
    tracking.register(run_id, digest="abc", version="v")
    return folder, run_id


def test_everything_that_is_recorded_follows_the_folder(born: tuple[Path, str], tmp_path: Path) -> None:
    folder, run_id = born
    moved = folder.rename(tmp_path / "moved #1")
    assert have_moved(moved)

    tracking = open_tracking(moved)

    client = mlflow_client(moved)
    assert not have_moved(moved)
    assert location_of(moved, "FraudDetection") == (moved / "mlartifacts").as_uri()
    assert client.get_run(run_id).info.artifact_uri == f"{(moved / 'mlartifacts').as_uri()}/{run_id}/artifacts"
    assert str(client.get_model_version("fraud-api", "1").source).startswith(f"{(moved / 'mlartifacts').as_uri()}/")
    (tmp_path / "download").mkdir()
    for run in (run_id, log(tracking)):
        assert Path(client.download_artifacts(run, "model/model.onnx", str(tmp_path / "download"))).exists()
    assert {path.name for path in tmp_path.iterdir()} == {"moved #1", "download"}


def test_a_copy_follows_while_the_first_one_stays_where_it_is(born: tuple[Path, str], tmp_path: Path) -> None:
    folder, run_id = born
    shutil.copytree(folder, tmp_path / "copy")

    open_tracking(tmp_path / "copy")

    assert not have_moved(folder)
    uri = mlflow_client(tmp_path / "copy").get_run(run_id).info.artifact_uri
    assert uri == f"{(tmp_path / 'copy' / 'mlartifacts').as_uri()}/{run_id}/artifacts"


def test_files_that_an_earlier_program_left_in_the_former_folder_are_brought_here(
    born: tuple[Path, str], tmp_path: Path
) -> None:
    folder, run_id = born
    (tmp_path / "moved").mkdir()
    (folder / "mlflow.db").rename(tmp_path / "moved" / "mlflow.db")

    open_tracking(tmp_path / "moved")

    artifacts = tmp_path / "moved" / "mlartifacts" / run_id / "artifacts"
    assert (artifacts / "model" / "model.onnx").read_bytes() == b"onnx"
    assert [path.name for path in artifacts.parent.iterdir()] == ["artifacts"]


def test_files_that_cannot_be_brought_here_stop_nothing(
    born: tuple[Path, str], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder, run_id = born
    (tmp_path / "moved").mkdir()
    (folder / "mlflow.db").rename(tmp_path / "moved" / "mlflow.db")
    (tmp_path / "moved" / "mlartifacts").write_text("a file where the folder should be")

    open_tracking(tmp_path / "moved")

    assert f"{run_id}/artifacts could not be copied here" in caplog.text


@pytest.mark.parametrize(
    "location",
    ["s3://bucket/mlartifacts", "mlflow-artifacts:/1", "file:///mnt/nas/runs", "/mlruns/2"],
)
def test_locations_outside_of_the_installation_stay(born: tuple[Path, str], tmp_path: Path, location: str) -> None:
    folder, _ = born
    run = mlflow_client(folder).create_run(
        mlflow_client(folder).create_experiment("theirs", artifact_location=location)
    )
    moved = folder.rename(tmp_path / "moved")

    open_tracking(moved)

    assert location_of(moved, "theirs") == location
    assert mlflow_client(moved).get_run(run.info.run_id).info.artifact_uri == run.info.artifact_uri


def test_a_folder_without_a_database_or_with_an_empty_one_has_not_moved(tmp_path: Path) -> None:
    assert not have_moved(tmp_path)
    (tmp_path / "mlflow.db").touch()
    assert not have_moved(tmp_path)
