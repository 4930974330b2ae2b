"""Bring in somebody's existing pickle: converted, compared with itself, and promoted like any other version."""

import warnings
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import joblib
import numpy as np

from fraud_detection.clock import timestamp
from fraud_detection.database import DatabaseRefused
from fraud_detection.exit_codes import ExitCode, ExpectedError
from fraud_detection.features import FeatureList, Matrix
from fraud_detection.model.files import CURRENT, MANIFEST, ONNX, PICKLE, REFERENCE
from fraud_detection.model.manifest import AmountScaling, Manifest
from fraud_detection.model.read import ModelRefused, current_version, read_manifest
from fraud_detection.model.write import discard, write_version
from fraud_detection.store import History
from jobs.drift.reference import reference_bytes
from jobs.exchange.transaction_file import SCALED_AMOUNT
from jobs.installation import Installation
from jobs.rollout.promotion import put_into_service, tracking_of
from jobs.rollout.running_api import RunningApi
from jobs.rollout.tracking import Tracking
from jobs.synthetic.statistics import PUBLIC_SCALING, statistics_for
from jobs.synthetic.transactions import synthetic
from jobs.training.export import ExportFailed, export, golden, library_versions, loads_in_fresh_process, require_parity
from jobs.training.history import read_history

COMPARED_ROWS = 10_000
_ENOUGH_STORED = 1_000
_SEED = 1


class CannotAdopt(ExpectedError):
    """A file that cannot become a model of this installation; the message says what was expected and what came."""

    exit_code = ExitCode.UNUSABLE


@dataclass(frozen=True)
class Adopted:
    """A pickle that serves now."""

    version: str
    kind: str
    """The class of the classifier."""
    compared_rows: int
    largest_difference: float
    """Between its scores and those of model.onnx."""
    notes: tuple[str, ...]


def adopt(
    path: Path,
    here: Installation,
    *,
    actor: str,
    now: datetime,
    api: RunningApi | None = None,
) -> Adopted:
    """Convert a pickled scikit-learn classifier (pickle or joblib) and bring it into service.

    Loading a pickle runs the code in it: only for one that you trust. Its scores must survive the conversion on stored
    transactions, or on synthetic ones where there are hardly any. How good it is nobody knows; the manifest says so.

    Raises CannotAdopt, BadStatistics, LockHeld, DatabaseRefused, ModelRefused, Restored, TrackingFailed,
    KubernetesRefused, KubernetesAway.
    """
    classifier, notes = _load(path)
    _require_fit(classifier, here.features, path)
    with here.promoter():
        tracking = tracking_of(here)
        history, scaling = _stored(here)
        rows = _rows_to_compare(history, here)
        files, difference = _converted(classifier, here.features, rows, path)
        if history is not None:
            files[REFERENCE] = reference_bytes(history, here.features, _SEED)
        else:
            notes.append("No transaction is stored: until a retraining there is nothing that drift can compare with.")
        manifest = Manifest(
            created=timestamp(now),
            features=list(here.features.names),
            features_digest=here.features.digest,
            threshold=here.settings.fraud_threshold,
            trained_on="unknown",
            golden=golden(files[ONNX], rows, _SEED),
            seed=_SEED,
            parent=current_version(here.models_dir),
            amount_scaling=scaling or _known_scaling(here),
            libraries=library_versions(),
        )
        version = write_version(here.models_dir, files, manifest)
        try:
            _require_loadable(here.models_dir / version, path)
            _register(tracking, here.models_dir / version, path.name)
        except BaseException:
            if version != current_version(here.models_dir):  # the same file adopted twice within a second
                discard(here.models_dir, version)  # else it could be promoted by hand, unknown and unverified
            raise
        put_into_service(version, here, tracking, actor=actor, reason=f"adopted {path.name}", api=api)
    return Adopted(version, type(classifier).__name__, len(rows), difference, tuple(notes))


def _load(path: Path) -> tuple[Any, list[str]]:
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            classifier = joblib.load(path)  # reads what pickle wrote, and what joblib wrote
    except OSError as error:
        raise CannotAdopt(f"{path}: cannot be read ({error.strerror})") from error
    except Exception as error:  # a pickle can raise anything
        raise CannotAdopt(f"{path}: is no pickle that can be loaded here ({type(error).__name__}: {error})") from error
    return classifier, [str(warning.message).splitlines()[0] for warning in caught]


def _require_fit(classifier: Any, features: FeatureList, path: Path) -> None:
    """Raise CannotAdopt unless this is a classifier of genuine (0) and fraud (1) over the features, in their order."""
    kind = type(classifier).__name__
    if not callable(getattr(classifier, "predict_proba", None)):
        raise CannotAdopt(f"{path}: expected a classifier with predict_proba, got {kind}")
    width = getattr(classifier, "n_features_in_", None)
    if width is None:
        raise CannotAdopt(f"{path}: expected a trained scikit-learn classifier, got a {kind} without n_features_in_")
    if width != len(features):
        raise CannotAdopt(
            f"{path}: expected a classifier of {len(features)} features, got a {kind} of {width}; "
            "FEATURES_FILE names the features of an installation"
        )
    names = getattr(classifier, "feature_names_in_", None)
    if names is not None and tuple(names) != features.names:
        place = next(place for place, name in enumerate(names) if name != features.names[place])
        raise CannotAdopt(
            f"{path}: feature {place} was {names[place]!r} when it was trained, here it is {features.names[place]!r}; "
            "a FEATURES_FILE in the order of the model mends that"
        )
    classes = np.asarray(getattr(classifier, "classes_", [])).tolist()
    if classes != [0, 1]:
        raise CannotAdopt(f"{path}: expected the classes 0 (genuine) and 1 (fraud), got {classes}")


def _stored(here: Installation) -> tuple[History | None, AmountScaling | None]:
    try:
        history, scaling = read_history(here)
    except DatabaseRefused as error:
        if error.reason != "missing":
            raise
        return None, None
    return (history if len(history) else None), scaling


def _rows_to_compare(history: History | None, here: Installation) -> Matrix:
    if history is not None and len(history) >= _ENOUGH_STORED:
        return history.matrix[-COMPARED_ROWS:]
    return synthetic(COMPARED_ROWS, _SEED, statistics=statistics_for(here)).matrix


def _converted(classifier: Any, features: FeatureList, rows: Matrix, path: Path) -> tuple[dict[str, bytes], float]:
    try:
        files = export(classifier, features)
        return files, require_parity(files, rows)
    except ExportFailed as error:
        raise CannotAdopt(f"{path}: {error}") from error


def _require_loadable(directory: Path, path: Path) -> None:
    problem = loads_in_fresh_process(directory)
    if problem is not None:
        raise CannotAdopt(f"{path}: does not load in a new process: {problem}")


def _known_scaling(here: Installation) -> AmountScaling | None:
    """Return how amounts are scaled where no import has fixed it: as the model in service says, else as in public."""
    try:
        known = read_manifest(here.models_dir / CURRENT).amount_scaling
    except ModelRefused:  # none serves, or a damaged one: a reason to adopt another
        known = None
    return known or (PUBLIC_SCALING if SCALED_AMOUNT in here.features.names else None)


def _register(tracking: Tracking, directory: Path, source: str) -> None:
    """Let MLflow know the model, as every other that serves."""
    manifest = read_manifest(directory)
    run_id = tracking.log_run(
        f"adopted {source}",
        params={"file": source},
        metrics={},
        tags={"decision": "adopted", "digest": manifest.digest, "trained_on": manifest.trained_on},
        files={f"model/{name}": (directory / name).read_bytes() for name in (ONNX, PICKLE, MANIFEST)},
        description=f"{directory.name} was adopted from {source}. How good it is, is unknown.",
    )
    tracking.register(run_id, digest=manifest.digest, version=directory.name)
