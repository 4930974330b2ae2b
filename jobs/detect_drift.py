"""`python -m jobs.detect_drift`: compare the newest transactions with the model's reference, write drift_result.json.

It starts nothing: the file is the message, and `python -m jobs.retrain` reads it. It exits with 0 whatever it
found, and with UNUSABLE (fraud_detection/exit_codes.py) if it could compare nothing: state `error` in the file.
"""

import dataclasses
import logging
import os
import sys
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import sqlalchemy as sa

from fraud_detection import logs
from fraud_detection.clock import timestamp
from fraud_detection.database import DatabaseRefused
from fraud_detection.exit_codes import ExitCode
from fraud_detection.features import BadFeatureList, FeatureList, Matrix
from fraud_detection.file_modes import share_with_group
from fraud_detection.model.files import write_whole
from fraud_detection.model.read import Model, ModelRefused, journal, read_manifest, versions
from fraud_detection.settings import BadSetting, JobSettings
from fraud_detection.store import DecisionCount, History
from jobs.drift.compare import Decisions, Reference, Window, compare
from jobs.drift.reference import read_reference
from jobs.drift.report import DriftReport, Provenance, paragraph, to_json, unable_to_compare
from jobs.installation import Installation
from jobs.reporting.pushgateway import Run, push_drift

PERIOD = timedelta(days=14)  # older transactions say nothing about today
RELOAD = timedelta(seconds=5)  # in which a running API takes up a promoted model

logger = logging.getLogger(__name__)


def main() -> int:
    """Run the job with the environment's settings and return the exit code."""
    share_with_group()
    try:
        settings = JobSettings.from_env(os.environ)
        logs.configure(settings.log_level, settings.log_format)
        report = detect_drift(settings)
    except (BadSetting, BadFeatureList) as error:
        logger.critical("%s", error)
        return error.exit_code
    return ExitCode.UNUSABLE if report.state == "error" else ExitCode.DONE


def detect_drift(settings: JobSettings, now: datetime | None = None) -> DriftReport:
    """Compare, write DRIFT_RESULT, push, and return the report; equal input gives an equal file.

    What makes a comparison impossible (database, model or reference unreadable, of another feature list, not what
    serves) is a report of state `error`, never an exception. `now` is the present unless given.

    Raises BadFeatureList.
    """
    started = time.time()
    report = _attempt(Installation.of(settings), now or datetime.now(UTC))
    settings.drift_result.parent.mkdir(parents=True, exist_ok=True)
    write_whole(settings.drift_result, to_json(report).encode())
    logger.info("drift: %s", paragraph(report))
    push_drift(settings.pushgateway_url, report, Run(started, time.time(), succeeded=report.state != "error"))
    return report


def _attempt(here: Installation, now: datetime) -> DriftReport:
    try:
        model = here.served_model()
    except ModelRefused as error:
        return unable_to_compare(str(error))
    provenance = Provenance(model.version, model.digest, served_digest=None, seed=model.manifest.seed)
    since = timestamp(now - PERIOD)
    try:
        reference = read_reference(here.models_dir / model.version, here.features)
        newest, counts = _read_store(here, model.digest, since)
    except (ModelRefused, DatabaseRefused) as error:
        return unable_to_compare(str(error), provenance)
    except sa.exc.SQLAlchemyError as error:  # its message may hold the password
        return unable_to_compare(f"the database cannot be read ({type(error).__name__})", provenance)
    if len(newest):
        provenance = dataclasses.replace(provenance, served_digest=str(newest.model_digest[-1]))
    stranger = _other_model_serves(here.models_dir, model, newest)
    if stranger is not None:
        return unable_to_compare(stranger, provenance)

    half = len(newest) // 2
    older, newer = (
        _window(newest.take(rows), model.digest)
        for rows in (np.arange(len(newest) - 2 * half, len(newest) - half), np.arange(len(newest) - half, len(newest)))
    )
    try:
        report = compare(
            Reference(reference, model.manifest.holdout, is_baseline=model.manifest.trained_on == "synthetic"),
            older,
            newer,
            features=here.features,
            decisions=Decisions(
                rows=sum(count.rows for count in counts),
                alerts=sum(count.alerts for count in counts),
                thresholds=tuple(sorted({here.settings.fraud_threshold, *(count.threshold for count in counts)})),
            ),
            min_rows=here.settings.drift_min_rows,
            first_reference=_first_reference(here.models_dir, here.features),
        )
    except ValueError as error:  # a reference that cannot be one
        return unable_to_compare(str(error), provenance)
    return dataclasses.replace(report, provenance=provenance)


def _read_store(here: Installation, model_digest: str, since: str) -> tuple[History, list[DecisionCount]]:
    store = here.open_store()
    try:
        with store.snapshot() as connection:
            newest = store.recent(connection, 2 * here.settings.drift_window_rows, since)
            return newest, store.decision_counts(connection, model_digest, since)
    finally:
        store.close()


def _window(rows: History, model_digest: str) -> Window:
    """Half of the newest transactions; an empty one has no bounds."""
    start, end = (str(rows.ts[0]), str(rows.ts[-1])) if len(rows) else (None, None)
    return Window(rows.matrix, rows.fraud_probability[rows.model_digest == model_digest], start, end)


def _other_model_serves(models_dir: Path, model: Model, newest: History) -> str | None:
    """Say so when another model scores, although this one was verified as serving before.

    Only the newest rows are looked at, so that a fault that was repaired is over; a hundred, because one of several
    pods may be the one that is stuck.
    """
    verified = _verified_at(models_dir, model.version)
    if verified is None:
        return None
    since = newest.model_digest[newest.ts > timestamp(verified + RELOAD)][-100:]
    strangers = np.unique(since[since != model.digest])
    if len(strangers) == 0:
        return None
    return (
        f"{model.version} was verified as serving at {timestamp(verified)}, yet transactions since then were scored "
        f"by another model (sha256 {str(strangers[0])[:12]}…): restart the API, or promote what should serve."
    )


def _verified_at(models_dir: Path, version: str) -> datetime | None:
    """Return when the newest promotion of a version was verified, None when it was not."""
    verified = None
    for entry in journal(models_dir):
        if entry.get("event") in {"promoted", "restored"}:
            verified = None
        elif entry.get("event") == "verified" and entry.get("version") == version:
            verified = datetime.fromisoformat(entry["at"])
    return verified


def _first_reference(models_dir: Path, features: FeatureList) -> Matrix | None:
    """Return the oldest reference of real transactions that is still kept; None when there is none."""
    for version in versions(models_dir):
        try:
            manifest = read_manifest(models_dir / version)
            if manifest.trained_on == "synthetic" or manifest.features_digest != features.digest:
                continue
            reference = read_reference(models_dir / version, features)
        except ModelRefused:  # taken out of an old version to save space
            continue
        if len(reference):
            return reference
    return None


if __name__ == "__main__":
    sys.exit(main())
