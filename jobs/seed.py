"""`python -m jobs.seed`: train on synthetic transactions and write the baseline, the first model of an installation."""

import argparse
import logging
import os
import shutil
import sys
import tempfile
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from fraud_detection import logs
from fraud_detection.clock import timestamp
from fraud_detection.database import DatabaseRefused
from fraud_detection.features import BadFeatureList, FeatureList, default_features, load_features
from fraud_detection.model import MANIFEST, ONNX, REFERENCE, Manifest, holdout_of, write_version
from fraud_detection.settings import BadSetting, JobSettings
from fraud_detection.store import History
from jobs.drift.reference import reference_bytes
from jobs.synthetic.transactions import (
    PUBLIC_STATISTICS,
    BadStatistics,
    Statistics,
    Transactions,
    describe,
    read_statistics,
    synthetic,
)
from jobs.training.export import export, golden, library_versions, require_parity, score
from jobs.training.forest import fit
from jobs.training.history import read_history

ROWS = 40_000

logger = logging.getLogger(__name__)


def seed_baseline(
    out: Path,
    features: FeatureList,
    statistics: Statistics,
    *,
    threshold: float,
    now: datetime,
    rows: int = ROWS,
    seed: int = 1,
    progress: bool = False,
) -> Manifest:
    """Train on `rows` synthetic transactions, hold out as many, and write the version directory `out` whole.

    An earlier baseline there is replaced. Equal arguments give an equal model.onnx.

    Raises BadStatistics when the statistics are of other features, FileExistsError when `out` is something else.
    """
    if tuple(statistics.genuine.quantiles) != features.names:
        raise BadStatistics(f"{statistics.source}: describes other features than the {len(features)} of FEATURES_FILE")
    if out.exists() and not (out / MANIFEST).exists():
        raise FileExistsError(f"{out} exists and is no baseline of ours; name another folder with --out")
    training = synthetic(rows, seed, statistics=statistics)
    heldout = synthetic(rows, seed + 1, statistics=statistics)
    forest = fit(training.matrix, training.is_fraud, seed, progress=progress)
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
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".seed-", dir=out.parent) as scratch:
        version = write_version(Path(scratch), files, manifest)
        shutil.rmtree(out, ignore_errors=True)
        (Path(scratch) / version).rename(out)
    return manifest


def statistics_for(settings: JobSettings, features: FeatureList) -> Statistics:
    """Return what the synthetic transactions of an installation are made from.

    The public data set's statistics for its 29 features. For features of one's own, which nobody else can know, those
    of the labelled history in the store: the baseline then knows its table of quantiles, no transaction.

    Raises BadStatistics, saying what to do, when the store has too little; DatabaseRefused.
    """
    if features.digest == default_features().digest:
        return read_statistics(PUBLIC_STATISTICS)
    try:
        history, scaling = read_history(settings, features)
        known = history.take(history.is_fraud >= 0)
        return describe(
            Transactions(known.matrix, known.is_fraud == 1), features, source="the store", amount_scaling=scaling
        )
    except (BadStatistics, DatabaseRefused) as error:
        if isinstance(error, DatabaseRefused) and error.reason != "missing":
            raise
        raise BadStatistics(
            f"no baseline can be made for the {len(features)} features of FEATURES_FILE ({error}): import labelled "
            "history first (`fraudctl import-csv FILE.csv`), or name a table that `python -m jobs.describe FILE.csv "
            "--out statistics.json` made (`python -m jobs.seed --statistics statistics.json`)"
        ) from error


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
    )


def main(arguments: list[str] | None = None) -> int:
    """Run from the command line and return the exit code: 0, 2 bad configuration, 3 statistics of other features."""
    parser = argparse.ArgumentParser(prog="python -m jobs.seed", description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("baseline"), help="the folder to write (default: %(default)s)")
    parser.add_argument("--rows", type=int, default=ROWS, help="transactions to train on (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=1, help="the same seed gives the same model (default: %(default)s)")
    parser.add_argument(
        "--statistics",
        type=Path,
        help="a table of jobs.describe; without it the public set's, or the history in the store",
    )
    given = parser.parse_args(arguments)
    try:
        settings = JobSettings.from_env(os.environ)
        logs.configure(settings.log_level, settings.log_format)
        features = load_features(settings.features_file)
    except (BadSetting, BadFeatureList) as error:
        logger.error("%s", error)  # noqa: TRY400  the message is for a person, a traceback is not
        return 2
    try:
        manifest = seed_baseline(
            given.out,
            features,
            read_statistics(given.statistics) if given.statistics else statistics_for(settings, features),
            threshold=settings.fraud_threshold,
            now=datetime.now(UTC),
            rows=given.rows,
            seed=given.seed,
            progress=True,
        )
    except (BadStatistics, FileExistsError, DatabaseRefused) as error:
        logger.error("%s", error)  # noqa: TRY400
        return 3
    logger.info("%s: baseline %s, trained on %s synthetic rows", given.out, manifest.created, given.rows)
    return 0


if __name__ == "__main__":
    sys.exit(main())
