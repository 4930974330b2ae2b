"""The model directory: read and verify a version, score with it, write one, promote it, restore the one before."""

import contextlib
import dataclasses
import hashlib
import json
import os
import re
import secrets
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from fraud_detection.clock import parse_timestamp
from fraud_detection.features import FeatureList, Matrix

# The official builds report to their maker and keep a device id; switched off after the import it is too late.
os.environ["ORT_DISABLE_TELEMETRY"] = "1"

import onnxruntime

MANIFEST = "manifest.json"
ONNX = "model.onnx"
PICKLE = "rf_model.pkl"
REFERENCE = "reference_data.db"
CURRENT = "current"
JOURNAL = "promotions.jsonl"
MANIFEST_FORMAT = 1
GOLDEN_TOLERANCE = 1e-6
KEPT_VERSIONS = 5

_PARTIAL = ".partial-"
_VERSION_NAME = re.compile(r"\d{8}T\d{6}Z-[0-9a-f]{12}")

RefusalReason = Literal["missing", "manifest", "digest", "features", "unreadable", "golden"]
Event = Literal["promoted", "verified", "restored", "judged"]


class ModelRefused(Exception):
    """A model version that must not serve; `reason` comes from a fixed set, the message says what was found."""

    def __init__(self, reason: RefusalReason, message: str) -> None:
        super().__init__(message)
        self.reason: RefusalReason = reason


@dataclass(frozen=True)
class AmountScaling:
    """How an amount becomes Amount_scaled: (amount - mean) / standard_deviation, in units of the currency."""

    mean: float
    standard_deviation: float


@dataclass(frozen=True)
class Holdout:
    """How a model scored rows that it was not trained on: what its alert rate and scores should look like."""

    rows: int
    alerts: int
    threshold: float
    score_bands: list[int]
    """Rows in each band of `band_edges(threshold)`; together they are `rows`."""


@dataclass(frozen=True)
class Golden:
    """Made-up rows (no transaction of anybody) and what the model scored them when it was made."""

    rows: list[list[float]]
    scores: list[float]


@dataclass(frozen=True)
class StoredFile:
    """What a file of a version must be."""

    sha256: str
    size: int


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """Everything that is known of a version; manifest.json holds it."""

    created: str
    """UTC, as stored in `ts`."""
    features: list[str]
    features_digest: str
    threshold: float
    """The threshold at which the model was judged; FRAUD_THRESHOLD decides in service."""
    trained_on: Literal["synthetic", "labels", "derived", "unknown"]
    golden: Golden
    holdout: Holdout | None = None
    training_window: tuple[str, str] | None = None
    """Time of the first and of the last row that the model was trained on."""
    seed: int | None = None
    rows: dict[str, int] = dataclasses.field(default_factory=dict)
    """Training rows a class: `fraud` and `genuine`."""
    label_sources: dict[str, int] = dataclasses.field(default_factory=dict)
    parent: str | None = None
    """The version that served when this one was made."""
    verdict: dict[str, Any] | None = None
    amount_scaling: AmountScaling | None = None
    libraries: dict[str, str] = dataclasses.field(default_factory=dict)
    files: dict[str, StoredFile] = dataclasses.field(default_factory=dict)
    """sha256 and size of every other file of the version; `write_version` fills it in."""
    format: int = MANIFEST_FORMAT

    @property
    def digest(self) -> str:
        """sha256 of model.onnx, the bytes that score."""
        return self.files[ONNX].sha256

    def to_json(self) -> str:
        """Render manifest.json."""
        return json.dumps(dataclasses.asdict(self), indent=2, allow_nan=False) + "\n"

    @classmethod
    def from_json(cls, text: str) -> "Manifest":
        """Read manifest.json; raises ValueError, KeyError or TypeError when it is not one of this format."""
        fields = json.loads(text)
        if not isinstance(fields, dict) or fields.get("format") != MANIFEST_FORMAT:
            raise ValueError(f"expected manifest format {MANIFEST_FORMAT}")
        fields["golden"] = Golden(**fields["golden"])
        fields["files"] = {name: StoredFile(**entry) for name, entry in fields["files"].items()}
        if fields["holdout"] is not None:
            fields["holdout"] = Holdout(**fields["holdout"])
        if fields["amount_scaling"] is not None:
            fields["amount_scaling"] = AmountScaling(**fields["amount_scaling"])
        if fields["training_window"] is not None:
            first, last = fields["training_window"]
            fields["training_window"] = (first, last)
        if ONNX not in fields["files"]:
            raise ValueError(f"expected {ONNX} among the files")
        parse_timestamp(fields["created"])  # here, so that whoever asks how old a model is can rely on it
        return cls(**fields)


def band_edges(threshold: float) -> NDArray[np.float64]:
    """Edges of the score bands: fixed, because a forest's scores pile up on few values and deciles collapse.

    >>> band_edges(0.4).tolist()
    [0.0, 0.01, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 1.0]
    """
    return np.unique([0, 0.01, 0.05, 0.1, 0.2, threshold, 0.6, 0.8, 1])


def holdout_of(scores: NDArray[np.float64], threshold: float) -> Holdout:
    """Summarise scores (shape (n,), each from 0 to 1) of rows that the model was not trained on.

    >>> holdout_of(np.array([0.0, 0.02, 0.4, 0.9]), 0.4)
    Holdout(rows=4, alerts=2, threshold=0.4, score_bands=[1, 1, 0, 0, 0, 1, 0, 1])
    """
    bands, _ = np.histogram(scores, bins=band_edges(threshold))
    return Holdout(len(scores), int((scores >= threshold).sum()), threshold, bands.tolist())


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
    """Make a session of the bytes of a model; one thread keeps the order of summation, and so the scores, fixed."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.log_severity_level = 4
    return onnxruntime.InferenceSession(onnx, options, providers=["CPUExecutionProvider"])


# -- read ------------------------------------------------------------------------------------------------------------


def load(model_path: Path, features: FeatureList) -> Model:
    """Read and verify the version that MODEL_PATH leads to.

    Raises ModelRefused.
    """
    # Resolved once: a second look could find the next version.
    resolved = model_path.resolve()
    if not resolved.exists():
        raise ModelRefused("missing", f"{model_path}: no model there; `fraudctl bootstrap` installs the first one")
    if not (resolved.parent / MANIFEST).exists():
        raise ModelRefused(
            "missing",
            f"{model_path}: a model without {MANIFEST} is never served; `fraudctl models adopt {model_path}` "
            "verifies a pickle and brings it in",
        )
    return read_version(resolved.parent, features)


def read_version(directory: Path, features: FeatureList) -> Model:
    """Verify a version whole (digests first, then features, then golden scores) and return it ready to score.

    Raises ModelRefused.
    """
    manifest = read_manifest(directory)
    onnx = _verified_bytes(directory, ONNX, manifest)
    if (directory / PICKLE).exists():  # `collect` takes it out of old versions
        _verified_bytes(directory, PICKLE, manifest)
    if manifest.features_digest != features.digest or tuple(manifest.features) != features.names:
        raise ModelRefused(
            "features",
            f"{directory.name}: was made for another feature list ({len(manifest.features)} features from "
            f"{manifest.features[0]}), this installation has {len(features)} from {features.names[0]}; "
            "set FEATURES_FILE to the model's list or retrain",
        )
    try:
        session = open_session(onnx)
        model = Model(directory.name, manifest, session)
        scores = model.score(np.array(manifest.golden.rows, dtype=np.float64))
    except Exception as error:  # ONNX Runtime raises a dozen types of its own
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
    _verified_bytes(directory, name, read_manifest(directory))
    return directory / name


def _verified_bytes(directory: Path, name: str, manifest: Manifest) -> bytes:
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
    """Return the name of the version in service, None when there is none."""
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


# -- write: only under fraud_detection.lock.promoter -----------------------------------------------------------------


def write_version(models_dir: Path, files: Mapping[str, bytes], manifest: Manifest) -> str:
    """Write a version whole or not at all and return its name; nothing serves it yet.

    `files` holds model.onnx and usually rf_model.pkl and reference_data.db; the manifest's `files` is filled in here.
    """
    described = {name: StoredFile(hashlib.sha256(content).hexdigest(), len(content)) for name, content in files.items()}
    complete = dataclasses.replace(manifest, files=described)
    moment = datetime.fromisoformat(complete.created)
    version = f"{moment:%Y%m%dT%H%M%SZ}-{complete.digest[:12]}"
    models_dir.mkdir(parents=True, exist_ok=True)
    partial = models_dir / f"{_PARTIAL}{secrets.token_hex(8)}"
    partial.mkdir()  # not mkdtemp, which closes a folder to the group
    try:
        for name, content in (*files.items(), (MANIFEST, complete.to_json().encode())):
            _write_synced(partial / name, content)
        sync_folder(partial)
        if (models_dir / version).exists():  # the same model made again within one second
            return version
        partial.rename(models_dir / version)
        sync_folder(models_dir)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return version


def install_version(models_dir: Path, source: Path, *, amount_scaling: AmountScaling | None = None) -> str:
    """Copy a version directory from elsewhere (the baseline of an image) and return its name.

    With `amount_scaling` the copy's manifest carries the one that the installation has fixed already.

    Raises ModelRefused when the source is not whole.
    """
    manifest = read_manifest(source)
    files = {name: _verified_bytes(source, name, manifest) for name in manifest.files}
    fixed = amount_scaling or manifest.amount_scaling
    return write_version(models_dir, files, dataclasses.replace(manifest, amount_scaling=fixed))


def promote(
    models_dir: Path,
    version: str,
    *,
    actor: str,
    reason: str,
    event: Literal["promoted", "restored"] = "promoted",
    verdict: Mapping[str, Any] | None = None,
) -> None:
    """Make a version the one in service, in one rename, and write who did it into the journal.

    Raises ModelRefused when there is no such version.
    """
    manifest = read_manifest(models_dir / version)
    previous = current_version(models_dir)
    _link(models_dir / CURRENT, version)
    link_classic_path(models_dir)
    record(
        models_dir,
        event,
        version=version,
        digest=manifest.digest,
        previous=previous,
        actor=actor,
        reason=reason,
        verdict=verdict,
    )


def link_classic_path(models_dir: Path) -> None:
    """Make rf_model.pkl lead to the version in service, as `promote` does; harmless when it does already.

    A file of that name, somebody's own model from before, is kept beside it as rf_model.pkl.before.
    """
    classic = models_dir / PICKLE
    if classic.exists() and not classic.is_symlink():
        classic.rename(models_dir / f"{PICKLE}.before")
    _link(classic, f"{CURRENT}/{PICKLE}")
    sync_folder(models_dir)


def record(models_dir: Path, event: Event, **facts: object) -> None:
    """Append one line to promotions.jsonl."""
    line = json.dumps({"at": datetime.now().astimezone().isoformat(), "event": event, **facts}, allow_nan=False)
    with (models_dir / JOURNAL).open("ab") as file:
        if file.tell() and not _ends_with_newline(models_dir / JOURNAL):
            file.write(b"\n")  # after a line that a crash cut short
        file.write(line.encode() + b"\n")
        file.flush()
        os.fsync(file.fileno())


def collect(models_dir: Path, digests_in_use: set[str]) -> list[str]:
    """Delete what nobody needs of old versions, or was never finished; return the versions that shrank or went.

    The newest five, the one in service and its parent stay whole. Of others that stored rows still name, what
    replay needs stays: model.onnx and the manifest.
    """
    for abandoned in models_dir.glob(f"{_PARTIAL}*"):  # by a promoter that was killed
        shutil.rmtree(abandoned)
    names = versions(models_dir)
    current = current_version(models_dir)
    kept = {*names[-KEPT_VERSIONS:], current}
    if current is not None:
        kept.add(read_manifest(models_dir / current).parent)
    collected = []
    for name in names:
        if name in kept:
            continue
        if read_manifest(models_dir / name).digest in digests_in_use:
            spare = [models_dir / name / PICKLE, models_dir / name / REFERENCE]
            if any(path.exists() for path in spare):
                collected.append(name)
            for path in spare:
                path.unlink(missing_ok=True)
        else:
            discard(models_dir, name)
            collected.append(name)
    return collected


def discard(models_dir: Path, version: str) -> None:
    """Delete a version that nothing names."""
    # One that is only half there must not bear its name.
    shutil.rmtree((models_dir / version).rename(models_dir / f"{_PARTIAL}{version}"))


def replace_file(models_dir: Path, version: str, name: str, content: bytes) -> None:
    """Put other bytes under a name of a finished version and correct its manifest.

    Only for erasing a person's transaction from a reference: nothing else may change a finished version. Killed
    between its two renames it leaves a file that no longer fits the manifest; running it again mends that.
    """
    directory = models_dir / version
    manifest = read_manifest(directory)
    described = {**manifest.files, name: StoredFile(hashlib.sha256(content).hexdigest(), len(content))}
    write_whole(directory / name, content)
    write_whole(directory / MANIFEST, dataclasses.replace(manifest, files=described).to_json().encode())


def write_whole(path: Path, content: bytes) -> None:
    """Write a file so that a reader finds the old content or the new one, and a power cut too."""
    partial = path.with_name(f".{path.name}.partial")
    _write_synced(partial, content)
    partial.replace(path)
    sync_folder(path.parent)


def sync_folder(directory: Path) -> None:
    """Make the names in a directory survive a power cut."""
    with _descriptor(directory) as descriptor:
        os.fsync(descriptor)


@contextlib.contextmanager
def _descriptor(directory: Path) -> Iterator[int]:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _write_synced(path: Path, content: bytes) -> None:
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _link(link: Path, target: str) -> None:
    partial = link.with_name(f".{link.name}.partial")
    partial.unlink(missing_ok=True)
    partial.symlink_to(target)
    partial.replace(link)


def _ends_with_newline(path: Path) -> bool:
    with path.open("rb") as file:
        file.seek(-1, os.SEEK_END)
        return file.read(1) == b"\n"
