"""Whatever state a model version is in: it is refused and counted, the old one serves, and the next good one serves."""

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from api import served_model
from api.app import Api
from api.metrics import Metrics
from api.served_model import ServedModel
from fraud_detection.features import FeatureList
from fraud_detection.model import read, trial
from fraud_detection.model.files import ONNX, PICKLE
from fraud_detection.model.read import ModelRefused, ModelUndecided
from fraud_detection.model.write import promote
from fraud_detection.settings import ApiSettings
from tests.support.bad_models import BAD_STATES, Spoil, endless_graph, greedy_graph, sized, with_onnx
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


@pytest.mark.parametrize(
    ("content", "reason"),
    [(endless_graph(), "timeout"), (greedy_graph(), "unreadable"), (b"no graph", "unreadable")],
    ids=["endless", "greedy", "no graph"],
)
def test_a_hostile_graph_is_refused_and_the_next_model_serves(
    *,
    served: ServedModel,
    models_dir: Path,
    features: FeatureList,
    make_version: MakeVersion,
    metrics: Metrics,
    monkeypatch: pytest.MonkeyPatch,
    content: bytes,
    reason: str,
) -> None:
    hostile = with_onnx(content, models_dir / served.current.version)
    promote(models_dir, hostile, actor="test", reason="hostile")
    if reason == "timeout":
        read.read_version(models_dir / make_version(models_dir, seed=2), features)  # needs no trial after this
        monkeypatch.setattr(trial, "TRIAL_SECONDS", 3.0)

    expect_refusal_and_then_the_next_model(served, models_dir, make_version, metrics, reason)


def test_a_version_that_could_not_be_tried_is_tried_again_after_a_while(
    *,
    served: ServedModel,
    models_dir: Path,
    make_version: MakeVersion,
    metrics: Metrics,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(read, "_tried", set())
    version = make_version(models_dir, seed=1)
    promote(models_dir, version, actor="test", reason="better")
    with monkeypatch.context() as no_process_left:
        no_process_left.setattr(sys, "executable", str(models_dir / "no-python"))
        served.look()
        served.look()
        too_early = refused(metrics, "untried")
        served._try_again_at = 0.0
        served.look()
    served.look()
    still_too_early = served.current.version
    served._try_again_at = 0.0

    served.look()

    assert (too_early, refused(metrics, "untried"), refused(metrics)) == (1, 2, 2)
    assert still_too_early != version == served.current.version
    assert len([record for record in caplog.records if record.levelname == "ERROR"]) == 1


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


# -- at start --------------------------------------------------------------------------------------------------------


def test_a_model_that_served_before_needs_no_trial_when_the_api_starts_again(
    *,
    start_api: Callable[[ApiSettings], Api],
    sqlite_environment: dict[str, str],
    authorized: dict[str, str],
    models_dir: Path,
    make_version: MakeVersion,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    settings = ApiSettings.from_env(sqlite_environment)
    first = start_api(settings)
    stored = first.test_client().post("/predict", json={"data": [[0.5] * 29]}, headers=authorized)
    first.close()
    monkeypatch.setattr(read, "_tried", set())  # another process
    monkeypatch.setattr(sys, "executable", str(models_dir / "no-python"))

    again = start_api(settings)

    assert stored.status_code == 200
    assert again.served.current.digest == first.served.current.digest
    monkeypatch.setattr(read, "_tried", set())
    promote(models_dir, make_version(models_dir, seed=3), actor="test", reason="never served here")
    with pytest.raises(ModelUndecided, match="gave no verdict: a new process could not be started"):
        start_api(settings)


def test_a_model_that_never_ends_does_not_keep_the_api_from_saying_why_it_cannot_start(
    models_dir: Path, features: FeatureList, metrics: Metrics, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trial, "TRIAL_SECONDS", 1.0)
    hostile = with_onnx(endless_graph(), models_dir / "current")
    promote(models_dir, hostile, actor="test", reason="hostile")

    with pytest.raises(ModelUndecided, match=f"{hostile}: loading model.onnx .* gave no verdict") as undecided:
        ServedModel(models_dir / PICKLE, features, metrics)

    assert (undecided.value.reason, undecided.value.exit_code) == ("timeout", 1)


def test_bytes_that_are_not_those_that_served_are_no_known_model(
    models_dir: Path, features: FeatureList, metrics: Metrics
) -> None:
    digest = ServedModel(models_dir / PICKLE, features, metrics).current.digest
    (models_dir / "current" / ONNX).write_bytes(endless_graph())

    with pytest.raises(ModelRefused) as refusal:
        ServedModel(models_dir / PICKLE, features, Metrics(), served_before=digest)

    assert refusal.value.reason == "digest"
