"""Replaces golden rows of earlier releases, whose cells are values of transactions, in versions and in MLflow."""

import dataclasses
import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from fraud_detection.child import NoAnswer
from fraud_detection.features import Feature, FeatureList, Matrix
from fraud_detection.model.files import ONNX, REFERENCE
from fraud_detection.model.manifest import Golden
from fraud_detection.model.read import ModelRefused, read_manifest, read_version, verified_bytes, versions
from fraud_detection.model.trial import problem_with
from fraud_detection.model.write import replace_golden
from jobs.drift.reference import read_reference
from jobs.installation import Installation
from jobs.rollout.artifacts import DATABASE
from jobs.rollout.promotion import tracking_of
from jobs.rollout.tracking import TrackingFailed
from jobs.training.golden import golden, is_synthetic

_SEED = 1


@dataclass
class Renewed:
    """Where golden rows were replaced."""

    versions: list[str] = field(default_factory=list)
    runs: int = 0
    """Runs of MLflow."""
    failed: list[str] = field(default_factory=list)
    """Places that still hold the old rows, with the reason."""


def renew_golden(here: Installation) -> Renewed:
    """Replace the golden rows that earlier releases made, scored by the model beside them.

    Digests, links and everything else in a manifest stay. The caller holds the promoter's lock.
    """
    done, known = Renewed(), dict[str, Golden]()
    for version in versions(here.models_dir):
        try:
            if _renew(here.models_dir, version):
                done.versions.append(version)
            manifest = read_manifest(here.models_dir / version)
        except ModelRefused as error:
            done.failed.append(f"{version} ({error})")
        else:
            known[manifest.digest] = manifest.golden
    _renew_runs(here, known, done)
    return done


def _renew(models_dir: Path, version: str) -> bool:
    directory = models_dir / version
    manifest = read_manifest(directory)
    if is_synthetic(manifest.golden):
        return False
    features = FeatureList(tuple(Feature(name) for name in manifest.features))
    read_version(directory, features)  # a model that scores differently now must not pass with new golden rows
    rows: Matrix = np.array(manifest.golden.rows)
    if (directory / REFERENCE).exists():  # `collect` takes it out of old versions
        rows = np.vstack([rows, read_reference(directory, features)])
    replace_golden(models_dir, version, golden(verified_bytes(directory, ONNX, manifest), rows, _SEED))
    return True


def _renew_runs(here: Installation, known: dict[str, Golden], done: Renewed) -> None:
    if here.settings.mlflow_tracking_uri is None and not (here.mlflow_folder / DATABASE).exists():
        return

    def renewed(content: bytes, read_model: Callable[[], bytes]) -> bytes | None:
        try:
            document = json.loads(content)
            old = Golden(**document["golden"])
            if is_synthetic(old):
                return None
            onnx = read_model()
            new = known.get(hashlib.sha256(onnx).hexdigest()) or _of_a_run(onnx, old)
        except (ValueError, KeyError, TypeError, NoAnswer) as error:
            done.failed.append(f"a run of MLflow ({type(error).__name__}: {error})")
            return None
        return (json.dumps({**document, "golden": dataclasses.asdict(new)}, indent=2) + "\n").encode()

    try:
        done.runs = tracking_of(here).renew_manifests(renewed)
    except TrackingFailed as error:
        done.failed.append(str(error))


def _of_a_run(onnx: bytes, old: Golden) -> Golden:
    """Return new golden rows of a model that is in no version, such as a rejected one; raises ValueError, NoAnswer."""
    problem = problem_with(onnx, old.rows)
    if problem is not None:
        raise ValueError(f"ONNX Runtime cannot use {ONNX} ({problem})")
    return golden(onnx, np.array(old.rows), _SEED)
