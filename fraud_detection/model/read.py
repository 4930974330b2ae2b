"""Reads the model directory: find the current version, verify it whole, score with it."""

import contextlib
import hashlib
import json
import os
import re
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from fraud_detection.features import FeatureList, Matrix
from fraud_detection.model.files import CURRENT, JOURNAL, MANIFEST, ONNX, PICKLE
from fraud_detection.model.manifest import Manifest

# The official builds report to their maker and keep a device id; a switch after the import has no effect.
os.environ["ORT_DISABLE_TELEMETRY"] = "1"

import onnxruntime

from fraud_detection.exit_codes import ExitCode, ExpectedError

GOLDEN_TOLERANCE = 1e-6
_VERSION_NAME = re.compile(r"\d{8}T\d{6}Z-[0-9a-f]{12}")
RefusalReason = Literal["missing", "manifest", "digest", "features", "unreadable", "golden"]


class ModelRefused(ExpectedError):
    """A model version that must not serve; `reason` comes from a fixed set, the message says what was found."""

    exit_code = ExitCode.UNUSABLE

    def __init__(self, reason: RefusalReason, message: str) -> None:
        super().__init__(message)
        self.reason: RefusalReason = reason


class Model:
    """A verified version, ready to score."""

    def __init__(self, version: str, manifest: Manifest, session: onnxruntime.InferenceSession) -> None:
        self.version = version
        self.manifest = manifest
        self.digest = manifest.digest
        self._session = session
        self._input: str = session.get_inputs()[0].name

    def score(self, matrix: Matrix) -> NDArray[np.float64]:
        """Return the fraud probability of each row, shape (n,), from 0 to 1."""
        (probabilities,) = self._session.run(["probabilities"], {self._input: matrix.astype(np.float32)})
        # float32 sums may end at 1.0000001
        scores: NDArray[np.float64] = np.minimum(probabilities[:, 1], 1.0, dtype=np.float64)
        return scores


def open_session(onnx: bytes) -> onnxruntime.InferenceSession:
    """Return a session for the bytes of a model; one thread keeps the order of summation, and so the scores, fixed."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.log_severity_level = 4
    return onnxruntime.InferenceSession(onnx, options, providers=["CPUExecutionProvider"])


def load(model_path: Path, features: FeatureList) -> Model:
    """Read and verify the version that MODEL_PATH leads to.

    Raises ModelRefused.
    """
    # Resolve once, because a second look could find the next version.
    resolved = model_path.resolve()
    if not resolved.exists():
        raise ModelRefused("missing", f"{model_path}: no model there; `fraudctl bootstrap` installs the first one")
    if not (resolved.parent / MANIFEST).exists():
        raise ModelRefused(
            "missing",
            f"{model_path}: a model without {MANIFEST} is never served; `fraudctl models adopt {model_path}` "
            "verifies and installs a pickle",
        )
    return read_version(resolved.parent, features)


def read_version(directory: Path, features: FeatureList) -> Model:
    """Verify a version whole (digests first, then features, then golden scores) and return it ready to score.

    Raises ModelRefused.
    """
    manifest = read_manifest(directory)
    onnx = verified_bytes(directory, ONNX, manifest)
    if (directory / PICKLE).exists():  # `collect` deletes it from old versions
        verified_bytes(directory, PICKLE, manifest)
    if manifest.features_digest != features.digest or tuple(manifest.features) != features.names:
        raise ModelRefused(
            "features",
            f"{directory.name}: belongs to another feature list ({len(manifest.features)} features from "
            f"{manifest.features[0]}), this installation has {len(features)} from {features.names[0]}; "
            "set FEATURES_FILE to the model's list or retrain",
        )
    try:
        session = open_session(onnx)
        model = Model(directory.name, manifest, session)
        scores = model.score(np.array(manifest.golden.rows, dtype=np.float64))
    except Exception as error:  # ONNX Runtime raises a dozen types
        raise ModelRefused(
            "unreadable", f"{directory.name}: ONNX Runtime cannot use {ONNX} ({type(error).__name__})"
        ) from error
    expected = np.array(manifest.golden.scores)
    if len(expected) == 0 or scores.shape != expected.shape or not (abs(scores - expected) <= GOLDEN_TOLERANCE).all():
        raise ModelRefused("golden", f"{directory.name}: scores its golden rows differently from when it was made")
    return model


def read_manifest(directory: Path) -> Manifest:
    """Read manifest.json of a version; raises ModelRefused."""
    try:
        return Manifest.from_json((directory / MANIFEST).read_text(encoding="utf-8"))
    except OSError as error:
        raise ModelRefused("missing", f"{directory.name}: {MANIFEST} cannot be read ({error.strerror})") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ModelRefused("manifest", f"{directory.name}: {MANIFEST} is not one of ours ({error})") from error


def verify_file(directory: Path, name: str) -> Path:
    """Return the path of a file of a version after comparing it with the manifest.

    Raises ModelRefused.
    """
    verified_bytes(directory, name, read_manifest(directory))
    return directory / name


def verified_bytes(directory: Path, name: str, manifest: Manifest) -> bytes:
    """Return the bytes of a file of a version after comparing them with the manifest; raises ModelRefused."""
    expected = manifest.files.get(name)
    if expected is None:
        raise ModelRefused("manifest", f"{directory.name}: {MANIFEST} does not list {name}")
    try:
        content = (directory / name).read_bytes()
    except OSError as error:
        raise ModelRefused("missing", f"{directory.name}: {name} cannot be read ({error.strerror})") from error
    if len(content) != expected.size or hashlib.sha256(content).hexdigest() != expected.sha256:
        raise ModelRefused("digest", f"{directory.name}: {name} is not the file that the manifest describes")
    return content


def current_version(models_dir: Path) -> str | None:
    """Return the name of the current version, None if there is none."""
    try:
        return (models_dir / CURRENT).readlink().name
    except FileNotFoundError:
        return None


def versions(models_dir: Path) -> list[str]:
    """Return the names of all versions, the oldest first."""
    if not models_dir.is_dir():
        return []
    return sorted(entry.name for entry in models_dir.iterdir() if _VERSION_NAME.fullmatch(entry.name))


def journal(models_dir: Path) -> list[dict[str, Any]]:
    """Return what happened to the models, the oldest first; a line torn by a crash is left out."""
    path = models_dir / JOURNAL
    entries = []
    if path.exists():
        for line in path.read_text(encoding="utf-8").splitlines():
            with contextlib.suppress(ValueError):
                entries.append(json.loads(line))
    return entries
