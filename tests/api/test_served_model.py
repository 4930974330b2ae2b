"""A valid promoted model replaces the current one, and an invalid one never does."""

import logging
import shutil
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from flask.testing import FlaskClient

from api import served_model
from api.app import Api
from api.metrics import Metrics
from api.served_model import ServedModel
from fraud_detection.features import FeatureList
from fraud_detection.model.files import MANIFEST, ONNX, PICKLE
from fraud_detection.model.read import ModelRefused
from fraud_detection.model.write import promote
from fraud_detection.settings import ApiSettings
from tests.support.waiting import wait_until


@pytest.fixture
def metrics() -> Metrics:
    return Metrics()


@pytest.fixture
def served(models_dir: Path, features: FeatureList, metrics: Metrics) -> Iterator[ServedModel]:
    opened = ServedModel(models_dir / PICKLE, features, metrics)
    yield opened
    opened.close()


def refused(metrics: Metrics, reason: str) -> float | None:
    return metrics.registry.get_sample_value("fraud_model_refused_total", {"reason": reason})


def test_a_promoted_version_replaces_the_old_one(
    served: ServedModel, models_dir: Path, make_version: Callable[..., str], metrics: Metrics
) -> None:
    before = served.current
    version = make_version(models_dir, seed=1)
    served.look()
    unpromoted = served.current
    promote(models_dir, version, actor="test", reason="better")

    served.look()

    assert unpromoted is before
    assert (served.current.version, before.version == version) == (version, False)
    facts = {"version": version, "digest": served.current.digest, "trained_on": "labels"}
    assert metrics.registry.get_sample_value("fraud_model_info", facts) == 1
    created = datetime(2026, 1, 1, 0, 0, 1, tzinfo=UTC)
    assert metrics.registry.get_sample_value("fraud_model_created_timestamp_seconds") == created.timestamp()


def spoil_digest(version: Path) -> None:
    (version / ONNX).write_bytes(b"something else")


def remove_manifest(version: Path) -> None:
    (version / MANIFEST).unlink()


def empty_manifest(version: Path) -> None:
    (version / MANIFEST).write_text("{}")


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [(spoil_digest, "digest"), (remove_manifest, "missing"), (empty_manifest, "manifest"), (shutil.rmtree, "missing")],
)
def test_a_bad_version_is_refused_once_and_the_old_one_keeps_serving(
    *,
    served: ServedModel,
    models_dir: Path,
    make_version: Callable[..., str],
    metrics: Metrics,
    caplog: pytest.LogCaptureFixture,
    spoil: Callable[[Path], None],
    reason: str,
) -> None:
    before = served.current
    version = make_version(models_dir, seed=1)
    promote(models_dir, version, actor="test", reason="better")
    spoil(models_dir / version)

    with caplog.at_level(logging.ERROR):
        for _ in range(3):
            served.look()

    assert served.current is before
    assert refused(metrics, reason) == 1
    assert [before.version in record.getMessage() for record in caplog.records] == [True]


def test_damage_of_the_version_that_serves_is_noticed_at_the_next_start(
    served: ServedModel, models_dir: Path, features: FeatureList, metrics: Metrics
) -> None:
    before = served.current
    spoil_digest(models_dir / before.version)

    served.look()

    assert served.current is before
    assert refused(metrics, "digest") == 0
    with pytest.raises(ModelRefused, match=r"model\.onnx is not the file that the manifest describes"):
        ServedModel(models_dir / PICKLE, features, metrics)


def test_a_refused_version_does_not_keep_the_next_one_out(
    served: ServedModel, models_dir: Path, make_version: Callable[..., str]
) -> None:
    bad, good = make_version(models_dir, seed=1), make_version(models_dir, seed=2)
    spoil_digest(models_dir / bad)
    promote(models_dir, bad, actor="test", reason="bad")
    served.look()
    promote(models_dir, good, actor="test", reason="good")

    served.look()

    assert served.current.version == good


def test_a_model_that_raises_an_unexpected_error_is_refused_too(
    served: ServedModel,
    models_dir: Path,
    make_version: Callable[..., str],
    metrics: Metrics,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail(*_: object) -> None:
        raise MemoryError

    promote(models_dir, make_version(models_dir, seed=1), actor="test", reason="better")
    monkeypatch.setattr(served_model, "load", fail)

    served.look()

    assert refused(metrics, "unreadable") == 1


def test_the_watcher_serves_a_promoted_version_from_its_next_check_on(
    served: ServedModel, models_dir: Path, make_version: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    served_after_check: list[str] = []
    look = served.look

    def look_and_note() -> None:
        look()
        served_after_check.append(served.current.version)

    assert served_model.LOOK_EVERY_SECONDS == 1.0  # as docs/operations.md says
    monkeypatch.setattr(served_model, "LOOK_EVERY_SECONDS", 0.01)
    monkeypatch.setattr(served, "look", look_and_note)
    version = make_version(models_dir, seed=1)
    promote(models_dir, version, actor="test", reason="better")

    served.watch()
    wait_until(lambda: served_after_check)

    assert served_after_check[0] == version


def test_there_is_no_service_without_a_model(tmp_path: Path, features: FeatureList, metrics: Metrics) -> None:
    with pytest.raises(ModelRefused, match="fraudctl bootstrap"):
        ServedModel(tmp_path / "none.pkl", features, metrics)


def test_get_model_says_what_serves(client: FlaskClient, authorized: dict[str, str], api: Api) -> None:
    answer = client.get("/model", headers=authorized)

    said = answer.get_json()
    assert answer.status_code == 200
    assert (said["version"], said["digest"]) == (api.served.current.version, api.served.current.digest)
    assert said["amount_scaling"] == {"mean": 88.35, "standard_deviation": 250.12}
    assert (said["threshold"], said["trained_on"], said["golden_rows_verified"]) == (0.4, "labels", 20)
    assert (said["features"][0], len(said["features"])) == ("V1", 29)
    assert said["onnxruntime"].startswith("1.")
    assert "model_threshold" not in said


def test_get_model_names_the_models_own_threshold_when_another_decides(
    start_api: Callable[[ApiSettings], Api],
    sqlite_environment: dict[str, str],
    authorized: dict[str, str],
    models_dir: Path,
    make_version: Callable[..., str],
) -> None:
    version = make_version(models_dir, seed=1, amount_scaling=None)
    promote(models_dir, version, actor="test", reason="without an amount")
    app = start_api(ApiSettings.from_env(sqlite_environment | {"FRAUD_THRESHOLD": "0.7"}))

    said = app.test_client().get("/model", headers=authorized).get_json()

    assert (said["threshold"], said["model_threshold"], said["amount_scaling"]) == (0.7, 0.4, None)
