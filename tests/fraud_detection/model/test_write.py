"""Versions are written and promoted whole, and old ones are deleted."""

import dataclasses
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from fraud_detection.features import FeatureList
from fraud_detection.model.files import CURRENT, JOURNAL, MANIFEST, ONNX, PICKLE, write_whole
from fraud_detection.model.read import (
    ModelRefused,
    current_version,
    journal,
    read_manifest,
    read_version,
    verify_file,
    versions,
)
from fraud_detection.model.write import collect, install_version, promote, record, replace_file
from tests.support.bad_models import file_named, leading

MakeVersion = Callable[..., str]


def test_promotion_is_written_into_the_journal(models_dir: Path, make_version: MakeVersion) -> None:
    first = current_version(models_dir)
    second = make_version(models_dir, seed=1)

    promote(models_dir, second, actor="retrain", reason="drift", verdict={"passed": True})

    last = journal(models_dir)[-1]
    assert (last["event"], last["version"], last["previous"]) == ("promoted", second, first)
    assert last["verdict"] == {"passed": True}
    assert versions(models_dir) == [first, second]


def test_promoting_what_is_not_there_changes_nothing(models_dir: Path) -> None:
    before = current_version(models_dir)

    with pytest.raises(ModelRefused):
        promote(models_dir, "20260101T000000Z-0123456789ab", actor="test", reason="none")

    assert current_version(models_dir) == before


def test_writing_the_same_version_twice_gives_the_same(tmp_path: Path, make_version: MakeVersion) -> None:
    assert make_version(tmp_path) == make_version(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == versions(tmp_path)


def test_a_version_is_installed_from_elsewhere_only_whole(tmp_path: Path, make_version: MakeVersion) -> None:
    version = make_version(tmp_path / "baseline")

    assert install_version(tmp_path / "models", tmp_path / "baseline" / version) == version

    (tmp_path / "baseline" / version / PICKLE).write_bytes(b"")
    with pytest.raises(ModelRefused):
        install_version(tmp_path / "other", tmp_path / "baseline" / version)
    assert not (tmp_path / "other").exists()


@pytest.mark.parametrize("name", ["../outside.txt", "/tmp/outside.txt", "a/b"])  # noqa: S108  never written
def test_a_version_from_elsewhere_is_never_written_outside_its_folder(
    tmp_path: Path, make_version: MakeVersion, name: str
) -> None:
    version = make_version(tmp_path / "baseline")
    file_named(name)(tmp_path / "baseline" / version)
    (tmp_path / "baseline" / "outside.txt").write_text("x")

    with pytest.raises(ModelRefused, match="expected names of other files, not paths"):
        install_version(tmp_path / "models", tmp_path / "baseline" / version)

    assert sorted(path.name for path in tmp_path.rglob("outside.txt")) == ["outside.txt"]
    assert not (tmp_path / "models").exists()


@pytest.mark.parametrize("version", ["../elsewhere/{}", "{}/../{}", "/{}", "..", ".", ""])
def test_only_a_version_of_the_folder_is_promoted(models_dir: Path, make_version: MakeVersion, version: str) -> None:
    before = current_version(models_dir)
    elsewhere = make_version(models_dir.with_name("elsewhere"), seed=1)

    with pytest.raises(ModelRefused, match="is not the name of a version"):
        promote(models_dir, version.format(elsewhere, elsewhere), actor="test", reason="a path")

    assert current_version(models_dir) == before


@pytest.mark.parametrize("make", [os.mkfifo, Path.mkdir, leading("/dev/null")])
def test_a_journal_that_is_no_file_takes_no_line(models_dir: Path, make: Callable[[Path], object]) -> None:
    (models_dir / JOURNAL).unlink()
    make(models_dir / JOURNAL)

    with pytest.raises(OSError, match=r"expected a file, got|Is a directory"):
        record(models_dir, "verified", version="v")


def test_a_link_in_the_place_of_a_partial_file_does_not_lead_elsewhere(models_dir: Path, tmp_path: Path) -> None:
    other = tmp_path / "another program's"
    other.write_text("kept")
    (models_dir / ".note.partial").symlink_to(other)

    write_whole(models_dir / "note", b"ours")

    assert (other.read_text(), (models_dir / "note").read_bytes()) == ("kept", b"ours")


def test_a_folder_in_the_place_of_the_link_is_named(models_dir: Path, make_version: MakeVersion) -> None:
    version = make_version(models_dir, seed=1)
    (models_dir / CURRENT).unlink()
    (models_dir / CURRENT).mkdir()

    with pytest.raises(ModelRefused, match="expected a link to the current version; move it away"):
        promote(models_dir, version, actor="test", reason="better")


def test_collect_keeps_the_newest_the_current_its_parent_and_what_rows_name(
    tmp_path: Path, features: FeatureList, make_version: MakeVersion
) -> None:
    made = [make_version(tmp_path, seed=0), make_version(tmp_path, seed=1)]
    made += [make_version(tmp_path, seed=seed) for seed in (2, 3)]
    made.append(make_version(tmp_path, seed=4, parent=made[3]))
    made += [make_version(tmp_path, seed=seed) for seed in range(5, 10)]
    promote(tmp_path, made[4], actor="test", reason="old but in service")
    named_by_rows = read_manifest(tmp_path / made[1]).digest

    collected = collect(tmp_path, {named_by_rows})

    assert collected == made[:3]
    assert versions(tmp_path) == [made[1], *made[3:]]
    assert read_version(tmp_path / made[1], features).digest == named_by_rows
    assert not (tmp_path / made[1] / PICKLE).exists()
    assert collect(tmp_path, {named_by_rows}) == []


def test_a_damaged_version_stays_and_those_after_it_are_collected(
    models_dir: Path, make_version: MakeVersion, caplog: pytest.LogCaptureFixture
) -> None:
    damaged, useless, *_ = [make_version(models_dir, seed=seed) for seed in range(1, 8)]
    (models_dir / damaged / MANIFEST).write_text("{")

    assert collect(models_dir, set()) == [useless]

    assert damaged in versions(models_dir)
    assert "a damaged version stays: " in caplog.text


def test_what_a_killed_promoter_left_is_collected(models_dir: Path) -> None:
    (models_dir / ".partial-abandoned").mkdir()
    (models_dir / ".partial-abandoned" / ONNX).write_bytes(b"half a mod")

    assert collect(models_dir, set()) == []
    assert not list(models_dir.glob(".partial-*"))


def test_nothing_is_collected_if_nothing_serves(tmp_path: Path) -> None:
    assert collect(tmp_path / "none", set()) == []


def test_replacing_a_file_keeps_the_version_whole(
    tmp_path: Path, features: FeatureList, make_version: MakeVersion
) -> None:
    version = make_version(tmp_path)
    manifest = read_manifest(tmp_path / version)

    replace_file(tmp_path, version, PICKLE, b"another")

    assert verify_file(tmp_path / version, PICKLE).read_bytes() == b"another"
    read_version(tmp_path / version, features)
    assert dataclasses.replace(read_manifest(tmp_path / version), files={}) == dataclasses.replace(manifest, files={})


def test_a_model_of_the_user_is_kept_when_another_is_promoted(tmp_path: Path, make_version: MakeVersion) -> None:
    (tmp_path / PICKLE).write_bytes(b"somebody's own")

    promote(tmp_path, make_version(tmp_path), actor="test", reason="the first one")

    assert (tmp_path / PICKLE).is_symlink()
    assert (tmp_path / f"{PICKLE}.before").read_bytes() == b"somebody's own"
