"""Reads the model directory: find the current version, verify it whole, score with it."""

import contextlib
import errno
import hashlib
import json
import os
import re
from collections.abc import Iterable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

import numpy as np

from fraud_detection.child import NoAnswer, NoAnswerReason
from fraud_detection.counted import counted
from fraud_detection.exit_codes import ExitCode, ExpectedError
from fraud_detection.features import FeatureList
from fraud_detection.model.files import (
    CURRENT,
    JOURNAL,
    MANIFEST,
    ONNX,
    PICKLE,
    is_plain_name,
    pieces,
    read_regular,
)
from fraud_detection.model.manifest import MANIFEST_LIMIT_BYTES, Manifest
from fraud_detection.model.session import Session
from fraud_detection.model.trial import problem_with
from fraud_detection.regular_file import MADE_ANEW, no_folder, wrong_kind

GOLDEN_TOLERANCE = 1e-6
JOURNAL_LIMIT_BYTES = 64 * 1024 * 1024  # a century of daily judgements
_VERSION_NAME = re.compile(r"\d{8}T\d{6}Z-[0-9a-f]{12}", re.ASCII)
_STATES_OF_A_FILE = {
    *(errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.ELOOP, errno.ENAMETOOLONG),
    *(errno.EACCES, errno.EPERM, errno.ENXIO, errno.ENODEV, errno.EINVAL, errno.EFBIG),
}
"""What cannot be read because of what it is. Every other error is the machine's, and says nothing about a version."""
RefusalReason = Literal["missing", "manifest", "digest", "features", "unreadable", "golden", NoAnswerReason]


class ModelRefused(ExpectedError):
    """A model version that must not serve; `reason` comes from a fixed set, the message says what was found."""

    exit_code = ExitCode.UNUSABLE

    def __init__(self, reason: RefusalReason, message: str) -> None:
        super().__init__(message)
        self.reason: RefusalReason = reason


class ModelUndecided(ModelRefused):
    """A version that must not serve yet: the machine failed, so it is neither good nor bad. Trying again may help."""

    exit_code = ExitCode.FAILED


class Model:
    """A verified version, ready to score."""

    def __init__(self, version: str, manifest: Manifest, session: Session) -> None:
        self.version = version
        self.manifest = manifest
        self.digest = manifest.digest
        self.score = session.score


_tried: set[str] = set()
"""Digests of the models that this process has loaded: the same bytes need no second trial."""


def leads_to(model_path: Path) -> Path:
    """Return the path behind every link of MODEL_PATH; if there is a loop, a path that cannot be read."""
    return Path(os.path.realpath(model_path))  # Path.resolve raises on a loop before Python 3.13


def load(model_path: Path, features: FeatureList, *, known: Iterable[str] = ()) -> Model:
    """Read and verify the version that MODEL_PATH leads to; `known` as for `read_version`.

    Raises ModelRefused.
    """
    # Resolve once, because a second look could find the next version.
    resolved = leads_to(model_path)
    try:
        resolved.stat()
    except (FileNotFoundError, NotADirectoryError) as error:
        advice = f"{model_path.absolute()}: no model there; `fraudctl bootstrap` installs the first one"
        raise ModelRefused("missing", no_folder(model_path.parent) or advice) from error
    except OSError as error:
        raise _refusal_of(error, str(model_path)) from error
    if not os.path.lexists(resolved.parent / MANIFEST):
        raise ModelRefused(
            "missing",
            f"{model_path}: a model without {MANIFEST} is never served; `fraudctl models adopt {model_path}` "
            "verifies and installs a pickle",
        )
    return read_version(resolved.parent, features, known=known)


def read_version(directory: Path, features: FeatureList, *, known: Iterable[str] = ()) -> Model:
    """Verify a version whole (digests first, then features, then golden scores) and return it ready to score.

    A child process loads it first, unless this process has, or its digest is `known` to be usable here.

    Raises ModelRefused.
    """
    manifest = read_manifest(directory)
    onnx = verified_bytes(directory, ONNX, manifest)
    if os.path.lexists(directory / PICKLE):  # `collect` deletes it from old versions
        _verify(directory, PICKLE, manifest)
    if manifest.features_digest != features.digest or tuple(manifest.features) != features.names:
        raise ModelRefused(
            "features",
            f"{directory.name}: belongs to another feature list ({counted(len(manifest.features), 'feature')} from "
            f"{manifest.features[0][:63]!r}), this installation has {len(features)} from {features.names[0]!r}; "
            "set FEATURES_FILE to the model's list or retrain",
        )
    if manifest.digest not in _tried.union(known):
        _try(onnx, manifest, directory.name)
    try:
        model = Model(directory.name, manifest, Session(onnx))
        scores = model.score(np.array(manifest.golden.rows, dtype=np.float64))
    except MemoryError as error:
        raise ModelUndecided("untried", f"{directory.name}: memory ran out while {ONNX} was loaded") from error
    except Exception as error:  # ONNX Runtime raises a dozen types
        raise _unusable(directory.name, type(error).__name__) from error
    expected = np.array(manifest.golden.scores)
    if len(expected) == 0 or scores.shape != expected.shape or not (abs(scores - expected) <= GOLDEN_TOLERANCE).all():
        raise ModelRefused("golden", f"{directory.name}: scores its golden rows differently from when it was made")
    _tried.add(manifest.digest)
    return model


def _try(onnx: bytes, manifest: Manifest, version: str) -> None:
    try:
        problem = problem_with(onnx, manifest.golden.rows)
    except NoAnswer as error:
        raise ModelUndecided(
            error.reason, f"{version}: loading {ONNX} in a process of its own gave no verdict: {error}"
        ) from error
    if problem is not None:
        raise _unusable(version, problem)


def _unusable(version: str, problem: str) -> ModelRefused:
    return ModelRefused("unreadable", f"{version}: ONNX Runtime cannot use {ONNX} ({problem})")


def read_manifest(directory: Path) -> Manifest:
    """Read manifest.json of a version; raises ModelRefused."""
    name = directory.name
    if not is_plain_name(name):
        raise ModelRefused("missing", f"{name[:100]!r} is not the name of a version; `fraudctl models list` shows them")
    try:
        content = read_regular(directory / MANIFEST, MANIFEST_LIMIT_BYTES)
    except OSError as error:
        raise _refusal_of(error, f"{name}: {MANIFEST}") from error
    try:
        return Manifest.from_json(content)
    except ValueError as error:
        raise ModelRefused("manifest", f"{name}: {MANIFEST} is not one of ours ({error})") from error


def _refusal_of(error: OSError, what: str) -> ModelRefused:
    """Return the refusal of what could not be read."""
    is_missing = isinstance(error, FileNotFoundError | NotADirectoryError)
    refusal = ModelRefused if error.errno in _STATES_OF_A_FILE else ModelUndecided
    return refusal("missing" if is_missing else "unreadable", f"{what} cannot be read ({error.strerror})")


def verify_file(directory: Path, name: str) -> Path:
    """Return the path of a file of a version after comparing it with the manifest.

    Raises ModelRefused.
    """
    _verify(directory, name, read_manifest(directory))
    return directory / name


def _verify(directory: Path, name: str, manifest: Manifest) -> None:
    for _ in _verified_pieces(directory, name, manifest):
        pass  # a pickle can be larger than what this process may keep


def verified_bytes(directory: Path, name: str, manifest: Manifest) -> bytes:
    """Return the bytes of a file of a version after comparing them with the manifest; raises ModelRefused."""
    return b"".join(_verified_pieces(directory, name, manifest))


def _verified_pieces(directory: Path, name: str, manifest: Manifest) -> Iterator[bytes]:
    """Yield the content of a file of a version; raises ModelRefused, for a wrong digest after the last piece."""
    expected = manifest.files.get(name)
    if expected is None:
        raise ModelRefused("manifest", f"{directory.name}: {MANIFEST} does not list {name}")
    other = ModelRefused("digest", f"{directory.name}: {name} is not the file that the manifest describes")
    digest, size = hashlib.sha256(), 0
    try:
        for piece in pieces(directory / name, expected.size):
            digest.update(piece)
            size += len(piece)
            yield piece
    except OSError as error:
        raise (other if error.errno == errno.EFBIG else _refusal_of(error, f"{directory.name}: {name}")) from error
    if size != expected.size or digest.hexdigest() != expected.sha256:
        raise other


def current_version(models_dir: Path) -> str | None:
    """Return the name of the current version, None if there is none.

    Raises ModelRefused if something else than a link has its name, or if `models_dir` cannot be a folder.
    """
    try:
        return (models_dir / CURRENT).readlink().name
    except FileNotFoundError:
        return None
    except OSError as error:
        blocked = no_folder(models_dir)
        if blocked is not None:
            raise ModelRefused("unreadable", blocked) from error
        if error.errno != errno.EINVAL:
            raise
        raise ModelRefused(
            "unreadable",
            f"{models_dir / CURRENT}: expected a link to the current version; move it away, "
            "then `fraudctl models promote VERSION` links one",
        ) from error


def versions(models_dir: Path) -> list[str]:
    """Return the names of all versions, the oldest first."""
    if not models_dir.is_dir():
        return []
    return sorted(entry.name for entry in models_dir.iterdir() if _VERSION_NAME.fullmatch(entry.name))


def journal(models_dir: Path) -> list[dict[str, Any]]:
    """Return what happened to the models, the oldest first; a line torn by a crash, or not ours, is left out.

    Raises ModelRefused if the journal cannot be read.
    """
    problem = wrong_kind(models_dir / JOURNAL, MADE_ANEW)
    if problem is not None:
        raise ModelRefused("unreadable", problem)
    try:
        lines = read_regular(models_dir / JOURNAL, JOURNAL_LIMIT_BYTES).splitlines()
    except FileNotFoundError:
        return []
    except OSError as error:
        raise _refusal_of(error, str(models_dir / JOURNAL)) from error
    entries = []
    for line in lines:
        with contextlib.suppress(ValueError, RecursionError):
            entry = json.loads(line)
            if _is_entry(entry):
                entries.append(entry)
    return entries


def _is_entry(entry: Any) -> bool:
    """Return whether a line has what every reader relies on; raises ValueError if its time is none."""
    return (
        isinstance(entry, dict)
        and isinstance(entry.get("event"), str)
        and isinstance(entry.get("at"), str)
        and datetime.fromisoformat(entry["at"]).tzinfo is not None
        and isinstance(entry.get("verdict"), dict | None)
        and all(isinstance(entry.get(key), str | None) for key in ("version", "previous"))
        and (entry["event"] not in {"promoted", "restored"} or is_plain_name(entry.get("version") or ""))
    )
