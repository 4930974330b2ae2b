"""Whatever state a model version is in: it is refused and counted, the old one serves, and the next good one serves."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from api import served_model
from api.metrics import Metrics
from api.served_model import ServedModel
from fraud_detection.features import FeatureList
from fraud_detection.model.files import ONNX, PICKLE
from fraud_detection.model.write import promote
from tests.support.bad_models import BAD_STATES, Spoil, sized
from tests.support.waiting import wait_until

MakeVersion = Callable[..., str]


@pytest.fixture
def metrics() -> Metrics:
    return Metrics()


@pytest.fixture
def served(
    models_dir: Path, features: FeatureList, metrics: Metrics, monkeypatch: pytest.MonkeyPatch
) -> Iterator[ServedModel]:
    """A good model serves; `watch` starts the thread, which is fast enough for a test."""
    monkeypatch.setattr(served_model, "LOOK_EVERY_SECONDS", 0.01)
    opened = ServedModel(models_dir / PICKLE, features, metrics)
    yield opened
    opened.close()


def refused(metrics: Metrics, reason: str | None = None) -> float:
    """How many refusals were counted, for one reason or in all."""
    return sum(
        sample.value
        for family in metrics.registry.collect()
        for sample in family.samples
        if sample.name == "fraud_model_refused_total" and reason in {None, sample.labels["reason"]}
    )


def expect_refusal_and_then_the_next_model(
    served: ServedModel, models_dir: Path, make_version: MakeVersion, metrics: Metrics, reason: str
) -> None:
    before = served.current
    served.watch()
    wait_until(lambda: refused(metrics))
    assert (refused(metrics), refused(metrics, reason)) == (1, 1)
    assert served.current is before

    good = make_version(models_dir, seed=2)
    promote(models_dir, good, actor="test", reason="good")
    wait_until(lambda: served.current.version == good)
    assert refused(metrics) == 1


@pytest.mark.parametrize(("spoil", "reason"), BAD_STATES.values(), ids=BAD_STATES.keys())
def test_a_version_in_a_bad_state_is_refused_and_the_next_one_serves(
    *,
    served: ServedModel,
    models_dir: Path,
    make_version: MakeVersion,
    metrics: Metrics,
    caplog: pytest.LogCaptureFixture,
    spoil: Spoil,
    reason: str,
) -> None:
    version = make_version(models_dir, seed=1)
    promote(models_dir, version, actor="test", reason="bad")
    spoil(models_dir / version)

    expect_refusal_and_then_the_next_model(served, models_dir, make_version, metrics, reason)

    (complaint,) = [record for record in caplog.records if record.levelname == "ERROR"]
    assert complaint.exc_info is None  # foreseen
    assert "\n" not in complaint.getMessage()
    assert len(complaint.getMessage()) < 1000
    assert not (models_dir / "outside.txt").exists()


def test_the_pause_before_the_next_attempt_doubles_up_to_an_hour(
    served: ServedModel, models_dir: Path, make_version: MakeVersion, monkeypatch: pytest.MonkeyPatch
) -> None:
    version = make_version(models_dir, seed=1)
    promote(models_dir, version, actor="test", reason="bad")
    (models_dir / version / ONNX).unlink()
    now, pauses = 0.0, []
    monkeypatch.setattr("time.monotonic", lambda: now)

    for _ in range(9):
        served.look()
        pauses.append(served._try_again_at - now)
        now = served._try_again_at

    assert pauses == [60, 120, 240, 480, 960, 1920, 3600, 3600, 3600]


def test_a_version_that_is_repaired_in_its_place_serves_without_another_promotion(
    served: ServedModel, models_dir: Path, make_version: MakeVersion
) -> None:
    version = make_version(models_dir, seed=1)
    whole = (models_dir / version / "manifest.json").read_bytes()
    promote(models_dir, version, actor="test", reason="bad")
    sized(7)(models_dir / version)
    served.look()
    (models_dir / version / "manifest.json").write_bytes(whole)
    served._try_again_at = 0.0

    served.look()

    assert served.current.version == version
