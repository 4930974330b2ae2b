"""`python -m jobs.detect_drift`: compare the newest transactions with the model's reference, write drift_result.json.

It starts nothing: the file is the message, and `python -m jobs.retrain` reads it. It exits with 0 whatever it
found, and with UNUSABLE (fraud_detection/exit_codes.py) if it could compare nothing: state `error` in the file.
"""

import dataclasses
import logging
import os
import sys
import time
from datetime import UTC, datetime

import sqlalchemy as sa

from fraud_detection import logs
from fraud_detection.clock import CLOCK_DIFFERENCE, timestamp
from fraud_detection.database import DatabaseRefused
from fraud_detection.environment import BadSetting
from fraud_detection.exit_codes import ExitCode, ExpectedError
from fraud_detection.file_modes import share_with_group
from fraud_detection.model.files import write_whole
from fraud_detection.model.read import ModelRefused
from fraud_detection.regular_file import NAMED, wrong_kind
from fraud_detection.settings import JobSettings
from jobs.drift.compare import PERIOD, Decisions, Reference, compare
from jobs.drift.reference import read_reference
from jobs.drift.report import DriftReport, Provenance, paragraph, read_finding, to_json, unable_to_compare
from jobs.drift.windows import consecutive_windows, first_reference, newest_transactions, other_model_serves
from jobs.installation import Installation
from jobs.progress import step
from jobs.reporting.pushgateway import Run, push_drift
from jobs.training.due import last_judgement, next_retraining

logger = logging.getLogger(__name__)


def main() -> int:
    """Run the job with the environment's settings and return the exit code."""
    share_with_group()
    try:
        settings = JobSettings.from_env(os.environ)
        logs.configure(settings.log_level, settings.log_format)
        now = datetime.now(UTC)
        report = detect_drift(settings, now)
        logger.info("drift: %s", tell(report, Installation.of(settings), now))
    except ExpectedError as error:
        logger.error("%s", error)  # noqa: TRY400  the message is for a person, a traceback is not
        return error.exit_code
    return ExitCode.UNUSABLE if report.state == "error" else ExitCode.DONE


def detect_drift(settings: JobSettings, now: datetime | None = None) -> DriftReport:
    """Compare, write DRIFT_RESULT, push, and return the report; equal input gives an equal file.

    What makes a comparison impossible (database, model or reference unreadable, of another feature list, not what
    serves) is a report of state `error`, never an exception. `now` defaults to the present.

    Raises BadFeatureList, BadSetting.
    """
    problem = wrong_kind(settings.drift_result, NAMED)
    if problem is not None:  # a device would be replaced by the file
        raise BadSetting(f"DRIFT_RESULT: {problem}")
    started = time.time()
    here, now = Installation.of(settings), now or datetime.now(UTC)
    with step("comparing transactions"):
        report = _attempt(here, now)
    settings.drift_result.parent.mkdir(parents=True, exist_ok=True)
    write_whole(settings.drift_result, to_json(report).encode())
    push_drift(settings.pushgateway_url, report, Run(started, time.time(), succeeded=report.state != "error"))
    return report


def tell(report: DriftReport, here: Installation, now: datetime) -> str:
    """Return the paragraph on a report that was just written, with what the next retraining will make of it."""
    if report.state == "error":
        return paragraph(report, "")
    finding = read_finding(here.settings.drift_result)
    served = here.served_model().manifest
    return paragraph(report, next_retraining(here, served, last_judgement(here.journal()), finding, now).sentence)


def _attempt(here: Installation, now: datetime) -> DriftReport:
    try:
        model = here.served_model()
    except ModelRefused as error:
        is_first = error.reason == "missing" and not here.has_model()
        return unable_to_compare(here.no_model if is_first else str(error))
    provenance = Provenance(model.version, model.digest, served_digest=None, seed=model.manifest.seed)
    # A time ahead of now was stored while a clock was wrong, and would be among the newest until it has come.
    since, until = timestamp(now - PERIOD), timestamp(now + CLOCK_DIFFERENCE)
    try:
        reference = read_reference(here.models_dir / model.version, here.features)
        newest, counts = newest_transactions(here, model.digest, since, until)
        stranger = other_model_serves(here, model, newest)
    except (ModelRefused, DatabaseRefused) as error:
        return unable_to_compare(str(error), provenance)
    except sa.exc.SQLAlchemyError as error:  # its message may hold the password
        return unable_to_compare(f"the database cannot be read ({type(error).__name__})", provenance)
    if len(newest):
        provenance = dataclasses.replace(provenance, served_digest=str(newest.model_digest[-1]))
    if stranger is not None:
        return unable_to_compare(stranger, provenance)

    older, newer = consecutive_windows(newest, model.digest)
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
            first_reference=first_reference(here),
        )
    except ValueError as error:  # a reference that cannot be one
        return unable_to_compare(str(error), provenance)
    return dataclasses.replace(report, provenance=provenance)


if __name__ == "__main__":
    sys.exit(main())
