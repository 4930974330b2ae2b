import dataclasses
import json
from collections.abc import Callable
from pathlib import Path

import joblib
import numpy as np
import pytest

from fraud_detection import model as models
from fraud_detection.features import Feature, FeatureList
from fraud_detection.model import ModelRefused

MakeVersion = Callable[..., str]


def refusal(models_dir: Path, features: FeatureList) -> ModelRefused:
    with pytest.raises(ModelRefused) as refused:
        models.load(models_dir / models.PICKLE, features)
    return refused.value


def edit_manifest(models_dir: Path, **fields: object) -> None:
    path = models_dir / models.CURRENT / models.MANIFEST
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))


def test_serves_what_was_promoted(models_dir: Path, features: FeatureList) -> None:
    model = models.load(models_dir / "rf_model.pkl", features)

    assert model.version == models.current_version(models_dir)
    assert model.version.endswith(model.digest[:12])


def test_the_contracts_pickle_is_the_model_in_service(models_dir: Path, model: models.Model) -> None:
    rows = np.random.default_rng(1).normal(size=(50, 29))

    forest = joblib.load(models_dir / "rf_model.pkl")

    assert abs(forest.predict_proba(rows.astype(np.float32))[:, 1] - model.score(rows)).max() <= 1e-6


def test_a_row_scores_the_same_alone_and_among_others(model: models.Model) -> None:
    rows = np.random.default_rng(1).normal(size=(1000, 29))

    alone = np.concatenate([model.score(rows[index : index + 1]) for index in range(1000)])

    assert (alone == model.score(rows)).all()


def test_a_manifest_is_read_as_it_was_written(models_dir: Path) -> None:
    manifest = models.read_manifest(models_dir / models.CURRENT)

    assert models.Manifest.from_json(manifest.to_json()) == manifest


def test_no_model_says_how_to_get_one(tmp_path: Path, features: FeatureList) -> None:
    refused = refusal(tmp_path, features)

    assert refused.reason == "missing"
    assert "fraudctl bootstrap" in str(refused)


def test_a_bare_pickle_is_refused_with_the_command_that_adopts_it(tmp_path: Path, features: FeatureList) -> None:
    (tmp_path / "rf_model.pkl").write_bytes(b"anything")

    refused = refusal(tmp_path, features)

    assert refused.reason == "missing"
    assert "fraudctl models adopt" in str(refused)


@pytest.mark.parametrize("name", [models.ONNX, models.PICKLE])
@pytest.mark.parametrize("damage", ["flipped bit", "truncated"])
def test_a_damaged_file_is_refused(models_dir: Path, features: FeatureList, name: str, damage: str) -> None:
    path = models_dir / models.CURRENT / name
    content = bytearray(path.read_bytes())
    if damage == "truncated":
        del content[-1]
    else:
        content[len(content) // 2] ^= 1
    path.write_bytes(content)

    assert refusal(models_dir, features).reason == "digest"


def test_a_missing_file_is_refused(models_dir: Path, features: FeatureList) -> None:
    (models_dir / models.CURRENT / models.ONNX).unlink()

    assert refusal(models_dir, features).reason == "missing"


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"format": 99}, "manifest"),
        ({"golden": {"rows": [], "scores": []}}, "unreadable"),
        ({"golden": {"rows": [[0.0] * 29], "scores": [0.123456]}}, "golden"),
        ({"golden": {"rows": [[0.0] * 29], "scores": [float("nan")]}}, "golden"),
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
        models.read_manifest(tmp_path)


def test_bytes_that_are_no_model_are_refused(tmp_path: Path, features: FeatureList, make_version: MakeVersion) -> None:
    version = make_version(tmp_path)
    manifest = models.read_manifest(tmp_path / version)
    damaged = models.write_version(tmp_path, {models.ONNX: b"not a model"}, manifest)

    with pytest.raises(ModelRefused) as refused:
        models.read_version(tmp_path / damaged, features)

    assert refused.value.reason == "unreadable"


def test_a_model_of_another_feature_list_is_refused(models_dir: Path) -> None:
    refused = refusal(models_dir, FeatureList((Feature("amount"), Feature("age_days"))))

    assert refused.reason == "features"
    assert "set FEATURES_FILE" in str(refused)


def test_verify_file_reads_only_what_the_manifest_lists(models_dir: Path) -> None:
    current = models_dir / models.CURRENT

    assert models.verify_file(current, models.PICKLE) == current / models.PICKLE
    with pytest.raises(ModelRefused, match="does not list"):
        models.verify_file(current, models.REFERENCE)


def test_promotion_is_written_into_the_journal(models_dir: Path, make_version: MakeVersion) -> None:
    first = models.current_version(models_dir)
    second = make_version(models_dir, seed=1)

    models.promote(models_dir, second, actor="retrain", reason="drift", verdict={"passed": True})

    last = models.journal(models_dir)[-1]
    assert (last["event"], last["version"], last["previous"]) == ("promoted", second, first)
    assert last["verdict"] == {"passed": True}
    assert models.versions(models_dir) == [first, second]


def test_a_torn_line_of_the_journal_spoils_no_other(models_dir: Path) -> None:
    with (models_dir / models.JOURNAL).open("a") as file:
        file.write('{"event": "prom')

    models.record(models_dir, "verified", version="v")

    assert [entry["event"] for entry in models.journal(models_dir)] == ["promoted", "verified"]


def test_promoting_what_is_not_there_changes_nothing(models_dir: Path) -> None:
    before = models.current_version(models_dir)

    with pytest.raises(ModelRefused):
        models.promote(models_dir, "20260101T000000Z-0123456789ab", actor="test", reason="none")

    assert models.current_version(models_dir) == before


def test_writing_the_same_version_twice_gives_the_same(tmp_path: Path, make_version: MakeVersion) -> None:
    assert make_version(tmp_path) == make_version(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == models.versions(tmp_path)


def test_a_version_is_installed_from_elsewhere_only_whole(tmp_path: Path, make_version: MakeVersion) -> None:
    version = make_version(tmp_path / "baseline")

    assert models.install_version(tmp_path / "models", tmp_path / "baseline" / version) == version

    (tmp_path / "baseline" / version / models.PICKLE).write_bytes(b"")
    with pytest.raises(ModelRefused):
        models.install_version(tmp_path / "other", tmp_path / "baseline" / version)
    assert not (tmp_path / "other").exists()


def test_collect_keeps_the_newest_the_current_its_parent_and_what_rows_name(
    tmp_path: Path, features: FeatureList, make_version: MakeVersion
) -> None:
    made = [make_version(tmp_path, seed=0), make_version(tmp_path, seed=1)]
    made += [make_version(tmp_path, seed=seed) for seed in (2, 3)]
    made.append(make_version(tmp_path, seed=4, parent=made[3]))
    made += [make_version(tmp_path, seed=seed) for seed in range(5, 10)]
    models.promote(tmp_path, made[4], actor="test", reason="old but in service")
    named_by_rows = models.read_manifest(tmp_path / made[1]).digest

    collected = models.collect(tmp_path, {named_by_rows})

    assert collected == made[:3]
    assert models.versions(tmp_path) == [made[1], *made[3:]]
    assert models.read_version(tmp_path / made[1], features).digest == named_by_rows
    assert not (tmp_path / made[1] / models.PICKLE).exists()
    assert models.collect(tmp_path, {named_by_rows}) == []


def test_what_a_killed_promoter_left_is_collected(models_dir: Path) -> None:
    (models_dir / ".partial-abandoned").mkdir()
    (models_dir / ".partial-abandoned" / models.ONNX).write_bytes(b"half a mod")

    assert models.collect(models_dir, set()) == []
    assert not list(models_dir.glob(".partial-*"))


def test_nothing_is_collected_where_nothing_serves(tmp_path: Path) -> None:
    assert models.collect(tmp_path / "none", set()) == []


def test_replacing_a_file_keeps_the_version_whole(
    tmp_path: Path, features: FeatureList, make_version: MakeVersion
) -> None:
    version = make_version(tmp_path)
    manifest = models.read_manifest(tmp_path / version)

    models.replace_file(tmp_path, version, models.PICKLE, b"another")

    assert models.verify_file(tmp_path / version, models.PICKLE).read_bytes() == b"another"
    models.read_version(tmp_path / version, features)
    assert dataclasses.replace(models.read_manifest(tmp_path / version), files={}) == dataclasses.replace(
        manifest, files={}
    )


def test_somebodys_own_model_is_kept_when_another_is_promoted(tmp_path: Path, make_version: MakeVersion) -> None:
    (tmp_path / models.PICKLE).write_bytes(b"somebody's own")

    models.promote(tmp_path, make_version(tmp_path), actor="test", reason="the first one")

    assert (tmp_path / models.PICKLE).is_symlink()
    assert (tmp_path / f"{models.PICKLE}.before").read_bytes() == b"somebody's own"
