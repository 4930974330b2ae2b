"""MLflow keeps runs, models and the champion, in a file or on a server."""

import socket
from collections.abc import Callable
from pathlib import Path

import pytest
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from fraud_detection.regular_file import NotAFile
from jobs.rollout.tracking import Tracking, TrackingFailed
from tests.support.mlflow_store import mlflow_client

FILES = {"model/model.onnx": b"onnx", "model/rf_model.pkl": b"pickle", "plots/precision_recall.png": b"png"}


@pytest.fixture
def tracking(with_mlflow: Callable[[Path], None], tmp_path: Path) -> Tracking:
    with_mlflow(tmp_path / "data")
    return Tracking(None, tmp_path / "data", experiment="FraudDetection", registered_model="fraud-api")


@pytest.fixture
def client(tmp_path: Path) -> MlflowClient:
    return mlflow_client(tmp_path / "data")


def experiment_id(client: MlflowClient) -> str:
    experiment = client.get_experiment_by_name("FraudDetection")
    assert experiment is not None
    found: str = experiment.experiment_id
    return found


def log(tracking: Tracking, name: str = "a run") -> str:
    return tracking.log_run(
        name,
        params={"n_estimators": 100, "features": "V1," * 5000},
        metrics={"average_precision": 0.87},
        tags={"outcome": "promoted", "digest": name},
        files=FILES,
        description="It now serves.",
    )


def test_a_run_is_kept_with_its_parameters_metrics_and_files(tracking: Tracking, client: MlflowClient) -> None:
    run_id = log(tracking)

    run = client.get_run(run_id)
    assert run.info.status == "FINISHED"
    assert run.data.params["n_estimators"] == "100"
    assert run.data.metrics == {"average_precision": 0.87}
    assert run.data.tags["outcome"] == "promoted"
    assert run.data.tags["mlflow.note.content"] == "It now serves."
    artifacts = Path(run.info.artifact_uri.removeprefix("file://"))
    assert {path: (artifacts / path).read_bytes() for path in FILES} == FILES


def test_the_newest_run_of_a_digest_gets_the_new_description(tracking: Tracking, client: MlflowClient) -> None:
    older, other, newest = log(tracking, "abc"), log(tracking, "def"), log(tracking, "abc")

    tracking.describe("abc", "It was taken back.")
    tracking.describe("never trained here", "Nothing happens.")

    told = [client.get_run(run).data.tags["mlflow.note.content"] for run in (older, other, newest)]
    assert told == ["It now serves.", "It now serves.", "It was taken back."]


def test_the_first_run_makes_a_database_with_everything_beside_it(tmp_path: Path) -> None:
    log(Tracking(None, tmp_path / "data", experiment="FraudDetection", registered_model="fraud-api"))

    assert sorted(path.name for path in (tmp_path / "data").iterdir()) == ["mlartifacts", "mlflow.db"]


def test_a_run_whose_files_cannot_be_kept_is_marked_as_failed(
    tracking: Tracking, client: MlflowClient, tmp_path: Path
) -> None:
    (tmp_path / "data" / "mlartifacts").write_text("a file where the folder should be")

    with pytest.raises(TrackingFailed, match="MLflow: "):
        log(tracking)

    (run,) = client.search_runs([experiment_id(client)])
    assert run.info.status == "FAILED"


def test_a_registered_model_is_found_by_its_digest_and_is_no_champion_yet(
    tracking: Tracking, client: MlflowClient
) -> None:
    run_id = log(tracking)

    number = tracking.register(run_id, digest="abc", version="20260101T000000Z-abc")

    registered = client.get_model_version("fraud-api", number)
    assert registered.tags == {"digest": "abc", "version": "20260101T000000Z-abc"}
    assert (registered.run_id, registered.source) == (run_id, f"{client.get_run(run_id).info.artifact_uri}/model")
    assert tracking.champion() is None


def test_registering_the_same_digest_again_gives_the_same_number(tracking: Tracking) -> None:
    run_id = log(tracking)
    first = tracking.register(run_id, digest="abc", version="one")

    assert tracking.register(log(tracking), digest="abc", version="one") == first
    assert tracking.register(log(tracking), digest="def", version="two") != first


def test_the_champion_moves_there_and_back(tracking: Tracking) -> None:
    numbers = [tracking.register(log(tracking), digest=digest, version=digest) for digest in ("abc", "def")]

    assert tracking.move_champion("def") == numbers[1]
    assert tracking.champion() == "def"
    assert tracking.move_champion("abc") == numbers[0]
    assert tracking.champion() == "abc"


def test_a_model_that_was_never_registered_removes_the_alias(tracking: Tracking) -> None:
    tracking.register(log(tracking), digest="abc", version="one")
    tracking.move_champion("abc")

    assert tracking.move_champion("0000000000000000000000000000000000000000000000000000000000000000") is None
    assert tracking.champion() is None


def test_without_any_registered_model_there_is_no_champion(tracking: Tracking) -> None:
    assert tracking.champion() is None
    assert tracking.move_champion("abc") is None


def test_a_second_process_continues_the_same_experiment(tracking: Tracking, tmp_path: Path) -> None:
    tracking.register(log(tracking), digest="abc", version="one")

    again = Tracking(None, tmp_path / "data", experiment="FraudDetection", registered_model="fraud-api")

    assert again.move_champion("abc") == "1"


def test_a_deleted_experiment_is_named(tracking: Tracking, client: MlflowClient, tmp_path: Path) -> None:
    client.delete_experiment(experiment_id(client))

    with pytest.raises(TrackingFailed, match="'FraudDetection' was deleted: restore it or set MLFLOW_EXPER"):
        Tracking(None, tmp_path / "data", experiment="FraudDetection", registered_model="fraud-api")


def test_a_server_that_is_away_is_a_failure_and_nothing_local_is_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        uri = f"http://127.0.0.1:{silent.getsockname()[1]}"

        with pytest.raises(TrackingFailed, match="MLflow: "):
            Tracking(uri, tmp_path / "data", experiment="FraudDetection", registered_model="fraud-api")

    assert not (tmp_path / "data").exists()


def test_a_registry_that_breaks_is_no_missing_champion(
    tracking: Tracking, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise MlflowException("the disk is on fire")

    monkeypatch.setattr(MlflowClient, "get_model_version_by_alias", broken)

    with pytest.raises(TrackingFailed, match="the disk is on fire"):
        tracking.champion()


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()

    with pytest.raises(NotAFile, match="file: expected a folder, got a file"):
        Tracking(None, tmp_path / "file" / "data", experiment="FraudDetection", registered_model="fraud-api")


@pytest.mark.parametrize(("host", "reason"), [("127.0.0.1", "Connection refused"), ("nowhere.invalid", ".*")])
def test_a_database_that_does_not_answer_is_named_with_its_port(tmp_path: Path, host: str, reason: str) -> None:
    uri = f"postgresql+psycopg://someone:passw0rd@{host}:1/runs"

    with pytest.raises(
        TrackingFailed, match=rf"^MLflow: {host}, port 1, does not answer \({reason}\); look at MLFLOW_TRACKING_URI$"
    ):
        Tracking(uri, tmp_path, experiment="FraudDetection", registered_model="fraud-api")


def test_a_database_that_rejects_the_connection_is_asked_once(tmp_path: Path, postgresql_database: str) -> None:
    with pytest.raises(TrackingFailed, match=r"rejects the connection; look at user, password and database in MLFLOW"):
        Tracking(
            f"{postgresql_database}_of_another", tmp_path, experiment="FraudDetection", registered_model="fraud-api"
        )


def test_the_driver_of_a_database_that_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(TrackingFailed, match="the driver MySQLdb is not installed; install it, or look at MLFLOW_"):
        Tracking("mysql:///runs", tmp_path, experiment="FraudDetection", registered_model="fraud-api")
