"""Trains the baseline, the first model of an installation, on synthetic transactions."""

import shutil
import tempfile
from datetime import datetime
from pathlib import Path

import numpy as np

from fraud_detection.clock import timestamp
from fraud_detection.features import FeatureList
from fraud_detection.model.files import MANIFEST, ONNX, REFERENCE
from fraud_detection.model.manifest import Manifest, holdout_of
from fraud_detection.model.write import write_version
from fraud_detection.regular_file import make_folder
from fraud_detection.schema import REVISION
from fraud_detection.store.history import History
from jobs.drift.reference import reference_bytes
from jobs.synthetic.statistics import BadStatistics, Statistics
from jobs.synthetic.transactions import Transactions, synthetic
from jobs.training.export import export, library_versions
from jobs.training.forest import fit
from jobs.training.golden import golden
from jobs.training.usable import require_parity, score

ROWS = 40_000


def seed_baseline(
    out: Path,
    features: FeatureList,
    statistics: Statistics,
    *,
    threshold: float,
    now: datetime,
    rows: int = ROWS,
    seed: int = 1,
) -> Manifest:
    """Train on `rows` synthetic transactions, hold out as many, and write the version directory `out` whole.

    It replaces an earlier baseline there. Equal arguments give an equal model.onnx.

    Raises BadStatistics if the statistics are of other features, FileExistsError if `out` is not a baseline, NotAFile
    if it cannot have a folder.
    """
    if tuple(statistics.genuine.quantiles) != features.names:
        raise BadStatistics(f"{statistics.source}: describes other features than the {len(features)} of FEATURES_FILE")
    if out.exists() and not (out / MANIFEST).exists():
        raise FileExistsError(f"{out} exists and is not a baseline; name another folder with --out")
    make_folder(out.parent)
    training = synthetic(rows, seed, statistics=statistics)
    heldout = synthetic(rows, seed + 1, statistics=statistics)
    forest = fit(training.matrix, training.is_fraud, seed)
    files = export(forest, features)
    require_parity(files, heldout.matrix)
    files[REFERENCE] = reference_bytes(_as_history(training), features, seed)
    frauds = int(training.is_fraud.sum())
    manifest = Manifest(
        created=timestamp(now),
        features=list(features.names),
        features_digest=features.digest,
        threshold=threshold,
        trained_on="synthetic",
        golden=golden(files[ONNX], training.matrix, seed),
        holdout=holdout_of(score(files[ONNX], heldout.matrix), threshold),
        seed=seed,
        rows={"fraud": frauds, "genuine": rows - frauds},
        amount_scaling=statistics.amount_scaling,
        libraries=library_versions(),
    )
    with tempfile.TemporaryDirectory(prefix=".seed-", dir=out.parent) as scratch:
        version = write_version(Path(scratch), files, manifest)
        shutil.rmtree(out, ignore_errors=True)
        (Path(scratch) / version).rename(out)
    return manifest


def _as_history(transactions: Transactions) -> History:
    rows = len(transactions.matrix)
    nothing = np.full(rows, "")
    return History(
        request_id=np.full(rows, "synthetic"),
        row_index=np.arange(rows),
        ts=nothing,
        matrix=transactions.matrix,
        fraud_probability=np.full(rows, np.nan),
        is_flagged=np.zeros(rows, dtype=np.bool_),
        model_digest=nothing,
        is_fraud=transactions.is_fraud.astype(np.int8),
        label_source=nothing,
        schema_version=np.full(rows, REVISION),
    )
