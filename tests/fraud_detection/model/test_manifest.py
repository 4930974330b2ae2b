"""A manifest is read back as it was written."""

from pathlib import Path

from fraud_detection.model.files import CURRENT
from fraud_detection.model.manifest import Manifest
from fraud_detection.model.read import (
    read_manifest,
)


def test_a_manifest_is_read_as_it_was_written(models_dir: Path) -> None:
    manifest = read_manifest(models_dir / CURRENT)

    assert Manifest.from_json(manifest.to_json().encode()) == manifest
