"""Adopts an existing pickle: converts it, compares both, and promotes it like any other version."""

from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from fraud_detection.clock import timestamp
from fraud_detection.contract import SCALED_AMOUNT
from fraud_detection.database import DatabaseRefused
from fraud_detection.features import Matrix
from fraud_detection.model.files import CURRENT, MANIFEST, ONNX, PICKLE, REFERENCE
from fraud_detection.model.manifest import AmountScaling, Manifest
from fraud_detection.model.read import ModelRefused, current_version, read_manifest
from fraud_detection.model.write import discard, write_version
from fraud_detection.store.history import History
from jobs.drift.reference import reference_bytes
from jobs.installation import Installation
from jobs.progress import step
from jobs.rollout.promotion import put_into_service, tracking_of
from jobs.rollout.running_api import RunningApi
from jobs.rollout.tracking import Tracking
from jobs.synthetic.statistics import PUBLIC_SCALING, statistics_for
from jobs.synthetic.transactions import synthetic
from jobs.training.conversion import SEED
from jobs.training.export import library_versions
from jobs.training.foreign import convert, require_loadable
from jobs.training.read_history import read_history

COMPARED_ROWS = 10_000
_ENOUGH_STORED = 1_000


@dataclass(frozen=True)
class Adopted:
    """An adopted pickle, which serves now."""

    version: str
    kind: str
    """The class of the classifier."""
    compared_rows: int
    largest_difference: float
    """Between its scores and those of model.onnx."""
    notes: tuple[str, ...]
    seen: str
    """What was seen of the API."""


def adopt(
    path: Path,
    here: Installation,
    *,
    actor: str,
    now: datetime,
    api: RunningApi | None = None,
) -> Adopted:
    """Convert a pickled scikit-learn classifier (pickle or joblib) and promote it.

    A confined process loads and converts it, yet a pickle can run code: adopt only one that you trust. Its scores must
    survive conversion on stored transactions, or on synthetic ones if few are stored. How good it is, is unknown; the
    manifest says so.

    Raises CannotAdopt, BadStatistics, LockHeld, DatabaseRefused, ModelRefused, Restored, TrackingFailed,
    KubernetesRefused, KubernetesAway, NoAnswer.
    """
    rows = _rows_to_compare(_stored(here)[0], here)
    with step(f"converting {path.name}"):  # before the lock, so that it delays no retraining
        converted = convert(path, here.features, rows)
    files, notes = dict(converted.files), list(converted.notes)
    reason = f"adopted {path.name}"
    if converted.keeps_rows:
        kept = f"its {' and '.join(converted.keeps_rows)} keeps rows that it was trained on"
        reason += f"; {kept}"
        notes.append(f"{kept[0].upper()}{kept[1:]}: `fraudctl forget` cannot delete them from its files.")
    with here.promoter():
        tracking = tracking_of(here)
        history, scaling = _stored(here)  # again, because a transaction may have been forgotten meanwhile
        if history is not None:
            files[REFERENCE] = reference_bytes(history, here.features, SEED)
        else:
            notes.append("No transaction is stored, so drift has no reference until the next retraining.")
        manifest = Manifest(
            created=timestamp(now),
            features=list(here.features.names),
            features_digest=here.features.digest,
            threshold=here.settings.fraud_threshold,
            trained_on="unknown",
            golden=converted.golden,
            seed=SEED,
            parent=current_version(here.models_dir),
            amount_scaling=scaling or _known_scaling(here),
            libraries=library_versions(),
        )
        version = write_version(here.models_dir, files, manifest)
        try:
            require_loadable(here.models_dir / version, path)
            _register(tracking, here.models_dir / version, path.name)
        except BaseException:
            if version != current_version(here.models_dir):  # the same file adopted twice within a second
                discard(here.models_dir, version)  # otherwise it could be promoted by hand, unknown and unverified
            raise
        seen = put_into_service(version, here, tracking, actor=actor, reason=reason, api=api)
    return Adopted(version, converted.kind, len(rows), converted.largest_difference, tuple(notes), seen)


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
    return synthetic(COMPARED_ROWS, SEED, statistics=statistics_for(here)).matrix


def _known_scaling(here: Installation) -> AmountScaling | None:
    """Return how amounts are scaled if no import has fixed it: as the current model says, else as in the public set."""
    try:
        known = read_manifest(here.models_dir / CURRENT).amount_scaling
    except ModelRefused:  # none serves, or a damaged one: a reason to adopt another
        known = None
    return known or (PUBLIC_SCALING if SCALED_AMOUNT in here.features.names else None)


def _register(tracking: Tracking, directory: Path, source: str) -> None:
    """Register the model in MLflow, like every other that serves."""
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
