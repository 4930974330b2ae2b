"""A manifest is read back as it was written."""

from dataclasses import replace
from pathlib import Path

import pytest

from fraud_detection.model.files import CURRENT
from fraud_detection.model.manifest import Manifest
from fraud_detection.model.read import read_manifest


def test_a_manifest_is_read_as_it_was_written(models_dir: Path) -> None:
    manifest = read_manifest(models_dir / CURRENT)

    assert Manifest.from_json(manifest.to_json().encode()) == manifest


@pytest.mark.parametrize("parent", ["../elsewhere", "/etc", "", "a\nb"])
def test_a_parent_is_the_name_of_a_version_and_no_path(models_dir: Path, parent: str) -> None:
    manifest = replace(read_manifest(models_dir / CURRENT), parent=parent)  # which a failed promotion would restore

    with pytest.raises(ValueError, match="expected parent to be the name of a version"):
        Manifest.from_json(manifest.to_json().encode())
