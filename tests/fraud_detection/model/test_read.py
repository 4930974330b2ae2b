"""Only a model that matches its manifest and the feature list is loaded."""

import json
import resource
from collections.abc import Callable
from pathlib import Path

import joblib
import numpy as np
import pytest

from fraud_detection.features import Feature, FeatureList
from fraud_detection.model import read
from fraud_detection.model.files import CURRENT, JOURNAL, MANIFEST, ONNX, PICKLE, REFERENCE
from fraud_detection.model.read import (
    JOURNAL_LIMIT_BYTES,
    Model,
    ModelRefused,
    ModelUndecided,
    current_version,
    journal,
    load,
    read_manifest,
    read_version,
    verify_file,
)
from fraud_detection.model.write import record, write_version

MakeVersion = Callable[..., str]


def refusal(models_dir: Path, features: FeatureList) -> ModelRefused:
    with pytest.raises(ModelRefused) as refused:
        load(models_dir / PICKLE, features)
    return refused.value


def edit_manifest(models_dir: Path, **fields: object) -> None:
    path = models_dir / CURRENT / MANIFEST
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))


def test_serves_what_was_promoted(models_dir: Path, features: FeatureList) -> None:
    model = load(models_dir / "rf_model.pkl", features)

    assert model.version == current_version(models_dir)
    assert model.version.endswith(model.digest[:12])


def test_the_contracts_pickle_is_the_current_model(models_dir: Path, model: Model) -> None:
    rows = np.random.default_rng(1).normal(size=(50, 29))

    forest = joblib.load(models_dir / "rf_model.pkl")

    assert abs(forest.predict_proba(rows.astype(np.float32))[:, 1] - model.score(rows)).max() <= 1e-6


def test_a_row_scores_the_same_alone_and_among_others(model: Model) -> None:
    rows = np.random.default_rng(1).normal(size=(1000, 29))

    alone = np.concatenate([model.score(rows[index : index + 1]) for index in range(1000)])

    assert (alone == model.score(rows)).all()


def test_no_model_says_how_to_get_one(tmp_path: Path, features: FeatureList) -> None:
    refused = refusal(tmp_path, features)

    assert refused.reason == "missing"
    assert "fraudctl bootstrap" in str(refused)


def test_a_bare_pickle_is_refused_with_the_command_that_adopts_it(tmp_path: Path, features: FeatureList) -> None:
    (tmp_path / "rf_model.pkl").write_bytes(b"anything")

    refused = refusal(tmp_path, features)

    assert refused.reason == "missing"
    assert "fraudctl models adopt" in str(refused)


@pytest.mark.parametrize("name", [ONNX, PICKLE])
@pytest.mark.parametrize("damage", ["flipped bit", "truncated"])
def test_a_damaged_file_is_refused(models_dir: Path, features: FeatureList, name: str, damage: str) -> None:
    path = models_dir / CURRENT / name
    content = bytearray(path.read_bytes())
    if damage == "truncated":
        del content[-1]
    else:
        content[len(content) // 2] ^= 1
    path.write_bytes(content)

    assert refusal(models_dir, features).reason == "digest"


def test_a_missing_file_is_refused(models_dir: Path, features: FeatureList) -> None:
    (models_dir / CURRENT / ONNX).unlink()

    assert refusal(models_dir, features).reason == "missing"


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"format": 99}, "manifest"),
        ({"golden": {"rows": [], "scores": []}}, "unreadable"),
        ({"golden": {"rows": [[0.0] * 29], "scores": [0.123456]}}, "golden"),
        ({"golden": {"rows": [[0.0] * 29], "scores": [float("nan")]}}, "manifest"),
        ({"golden": {"rows": [[0.0] * 29], "scores": [0.1, 0.2]}}, "golden"),
        ({"golden": None}, "manifest"),
        ({"files": {}}, "manifest"),
        ({"created": "yesterday"}, "manifest"),
        ({"unheard_of": 1}, "manifest"),
        ({"features": ["a"]}, "features"),
    ],
)
def test_a_manifest_that_does_not_fit_is_refused(
    models_dir: Path, features: FeatureList, fields: dict[str, object], reason: str
) -> None:
    edit_manifest(models_dir, **fields)

    assert refusal(models_dir, features).reason == reason


def test_no_manifest_to_read_is_a_refusal(tmp_path: Path) -> None:
    with pytest.raises(ModelRefused, match="cannot be read"):
        read_manifest(tmp_path)


def test_bytes_that_are_no_model_are_refused(tmp_path: Path, features: FeatureList, make_version: MakeVersion) -> None:
    version = make_version(tmp_path)
    manifest = read_manifest(tmp_path / version)
    damaged = write_version(tmp_path, {ONNX: b"not a model"}, manifest)

    with pytest.raises(ModelRefused) as refused:
        read_version(tmp_path / damaged, features)

    assert refused.value.reason == "unreadable"


def test_memory_that_runs_out_says_nothing_about_the_model(
    models_dir: Path, features: FeatureList, monkeypatch: pytest.MonkeyPatch
) -> None:
    def run_out(_: bytes) -> None:
        raise MemoryError

    load(models_dir / PICKLE, features)  # needs no trial after this
    monkeypatch.setattr(read, "Session", run_out)

    with pytest.raises(ModelUndecided, match="memory ran out") as undecided:
        load(models_dir / PICKLE, features)

    assert (undecided.value.reason, undecided.value.exit_code) == ("untried", 1)


def test_descriptors_that_run_out_say_nothing_about_the_model(models_dir: Path, features: FeatureList) -> None:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, before[1]))
    try:
        with pytest.raises(ModelUndecided, match="Too many open files") as undecided:
            load(models_dir / PICKLE, features)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)

    assert undecided.value.reason == "unreadable"


def test_a_model_of_another_feature_list_is_refused(models_dir: Path) -> None:
    refused = refusal(models_dir, FeatureList((Feature("amount"), Feature("age_days"))))

    assert refused.reason == "features"
    assert "set FEATURES_FILE" in str(refused)


def test_verify_file_reads_only_what_the_manifest_lists(models_dir: Path) -> None:
    current = models_dir / CURRENT

    assert verify_file(current, PICKLE) == current / PICKLE
    with pytest.raises(ModelRefused, match="does not list"):
        verify_file(current, REFERENCE)


@pytest.mark.parametrize(
    "line",
    [
        b'{"event": "prom',
        b"[" * 100_000,
        b"\xff",
        b"5",
        b"{}",
        b'{"at": "yesterday", "event": "promoted", "version": "v"}',
        b'{"at": "2026-01-01T00:00:00", "event": "promoted", "version": "v"}',
        b'{"at": "2026-01-01T00:00:00+00:00", "event": "promoted"}',
        b'{"at": "2026-01-01T00:00:00+00:00", "event": "restored", "version": "../../elsewhere"}',
        b'{"at": "2026-01-01T00:00:00+00:00", "event": "judged", "verdict": "good"}',
        b'{"at": "2026-01-01T00:00:00+00:00", "event": ["judged"]}',
    ],
)
def test_a_line_of_the_journal_that_is_not_ours_spoils_no_other(models_dir: Path, line: bytes) -> None:
    with (models_dir / JOURNAL).open("ab") as file:
        file.write(line + b"\n")

    record(models_dir, "verified", version="v")

    assert [entry["event"] for entry in journal(models_dir)] == ["promoted", "verified"]


def test_a_torn_line_of_the_journal_spoils_no_other(models_dir: Path) -> None:
    with (models_dir / JOURNAL).open("a") as file:
        file.write('{"event": "prom')

    record(models_dir, "verified", version="v")

    assert [entry["event"] for entry in journal(models_dir)] == ["promoted", "verified"]


def test_a_journal_of_any_size_is_not_read_whole(models_dir: Path) -> None:
    with (models_dir / JOURNAL).open("wb") as file:
        file.truncate(JOURNAL_LIMIT_BYTES + 1)  # a hole, which takes no space

    with pytest.raises(ModelRefused, match=r"promotions\.jsonl") as refused:
        journal(models_dir)

    assert refused.value.reason == "unreadable"
