"""`python -m jobs.retrain [--force]`: train a new model if it is due, and promote it if it passes the gate.

It exits with a code of fraud_detection/exit_codes.py: 0 for every outcome but `failed` and `restored`.
"""

import argparse
import dataclasses
import functools
import logging
import os
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime

import numpy as np

from fraud_detection import logs
from fraud_detection.child import NoAnswer
from fraud_detection.database import DatabaseRefused
from fraud_detection.environment import BadSetting, short_token_warning
from fraud_detection.exit_codes import ExitCode, ExpectedError
from fraud_detection.features import BadFeatureList
from fraud_detection.file_modes import share_with_group
from fraud_detection.lock import LockHeld
from fraud_detection.model.read import Model, ModelRefused, ModelUndecided, journal
from fraud_detection.model.write import collect, record, write_version
from fraud_detection.settings import JobSettings
from jobs.drift.report import read_finding
from jobs.installation import Installation
from jobs.progress import step
from jobs.reporting import mlflow_run as run_record
from jobs.reporting import paragraph as explanation
from jobs.reporting.pushgateway import Run, push_retrain
from jobs.rollout.promotion import (
    NothingToRestore,
    NotRecorded,
    Restored,
    finish_promotion,
    put_into_service,
    tracking_of,
)
from jobs.rollout.running_api import RunningApi, require_rollout, running_api
from jobs.rollout.tracking import Tracking, TrackingFailed
from jobs.training.challenger import Judged, train, verdict_on, with_verdict
from jobs.training.due import after_judgement, due, last_judgement, rejections_in_a_row, select_new
from jobs.training.outcome import Retraining, RetrainOutcome, write_result
from jobs.training.read_history import read_history
from jobs.training.selection import Held
from jobs.training.truth import label_coverage

ACTOR = "retrain"


class NothingYet(ExpectedError):
    """There is neither a model nor a transaction; the message says how to start."""

    exit_code = ExitCode.UNUSABLE


_FAILURES: dict[type[ExpectedError], str] = {
    BadSetting: "Nothing was trained. {}",
    BadFeatureList: "Nothing was trained. {}",
    NothingYet: "Nothing was trained. {}.",
    DatabaseRefused: "Nothing was trained. {}",
    TrackingFailed: "Nothing was promoted, because MLflow could not record it. {}",
    NotRecorded: "{}.",
    NothingToRestore: "{}.",
    NoAnswer: (
        "Nothing was promoted, because the check of the new model in a process of its own gave no verdict: {}. "
        "The next run trains and checks again."
    ),
    ModelUndecided: "The run stopped, because the machine failed. {}. The next run continues.",
}
"""How the paragraph tells an error; of any other it says that nothing was promoted."""
_OF_REASON = {
    "unreachable": ExitCode.FAILED,
    **dict.fromkeys(("not_a_file", "sqlite_too_old", "network_filesystem", "not_durable"), ExitCode.BAD_CONFIGURATION),
}

logger = logging.getLogger(__name__)


def main(arguments: list[str] | None = None) -> int:
    """Run the job with the environment's settings and return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m jobs.retrain", description="Train a new model if it is due.")
    parser.add_argument("--force", action="store_true", help="train even if it is not due")
    given = parser.parse_args(arguments)
    share_with_group()
    try:
        settings = JobSettings.from_env(os.environ)
        logs.configure(settings.log_level, settings.log_format)
        return retrain(settings, force=given.force, find_api=lambda: _api_to_ask(settings)).exit_code
    except BadSetting as error:
        logger.error("%s", error)  # noqa: TRY400  the message is for a person, a traceback is not
        return error.exit_code


def _api_to_ask(settings: JobSettings) -> RunningApi | None:
    api = running_api(settings, os.environ)
    warning = None if api is None else short_token_warning("API_TOKEN", api.client.api_token)
    if warning is not None:
        logger.warning("%s", warning)
    return api


def retrain(
    settings: JobSettings,
    *,
    force: bool = False,
    find_api: Callable[[], RunningApi | None] = lambda: None,
    now: datetime | None = None,
) -> Retraining:
    """Run once and return what happened; errors become outcomes, and no failure promotes.

    `force` trains even when nothing is due or new. If `find_api` finds an API (it may raise BadSetting), a promotion
    succeeds only when that API serves the new model; a run that promotes nothing does not ask for it.
    """
    started, now = time.time(), now or datetime.now(UTC)
    done = _guarded(settings, force=force, find_api=functools.cache(find_api), now=now)
    write_result(settings.retrain_result, done, now)
    logger.log(logging.INFO if done.exit_code == 0 else logging.ERROR, "%s: %s", done.outcome, done.paragraph)
    push_retrain(
        settings.pushgateway_url,
        done.outcome,
        Run(started, time.time(), succeeded=done.exit_code == 0),
        figures=done.figures,
        label_coverage=done.label_coverage,
        rejections_in_a_row=_rejections_in_a_row(settings),
    )
    return done


def _rejections_in_a_row(settings: JobSettings) -> int | None:
    try:
        return rejections_in_a_row(journal(settings.models_dir))
    except ModelRefused:  # then the run has failed, and its outcome says so
        return None


def _guarded(
    settings: JobSettings, *, force: bool, find_api: Callable[[], RunningApi | None], now: datetime
) -> Retraining:
    """Turn every error into an outcome with its exit code."""
    try:
        here = Installation.of(settings)
        with here.promoter():
            return _attempt(here, force=force, find_api=find_api, now=now)
    except LockHeld as error:  # another job does the work
        return Retraining("skipped", f"Nothing was done. {error}.")
    except DatabaseRefused as error:  # a scheduler repeats 1, so here the reason decides
        exit_code = _OF_REASON.get(error.reason, error.exit_code)
        return Retraining("failed", _FAILURES[DatabaseRefused].format(error), exit_code)
    except Restored as error:
        return Retraining("restored", error.paragraph, error.exit_code)
    except ExpectedError as error:
        sentence = _FAILURES.get(type(error), "Nothing was promoted. {}")
        return Retraining("failed", sentence.format(error), error.exit_code)
    except Exception as error:  # so that the outcome is pushed
        logger.exception("retraining failed")
        told = f"Nothing was promoted ({type(error).__name__}; the log says more)."
        return Retraining("failed", told, ExitCode.FAILED)


def _attempt(
    here: Installation, *, force: bool, find_api: Callable[[], RunningApi | None], now: datetime
) -> Retraining:
    if here.is_empty():
        raise NothingYet(here.no_model)
    finish_promotion(here, actor=ACTOR, find_api=find_api)
    # A current version that cannot be read is no reason to train as if this installation had none: it fails here.
    served = here.served_model() if here.has_model() else None
    serving = explanation.stays(served)
    drift = read_finding(here.settings.drift_result)
    last = last_judgement(here.journal())
    manifest = None if served is None else served.manifest
    is_due = due(manifest, last, drift, here.settings, now)
    if not is_due.is_due and not force:
        return Retraining("skipped", f"{is_due.sentence} {serving}")
    reason = "asked for" if force else is_due.why
    logger.info("training: %s", reason)

    history, scaling = read_history(here)
    coverage = label_coverage(history, now)
    try:
        selection = select_new(history, manifest, None if force else last, here.settings, now)
    except Held as held:
        return Retraining(held.outcome, f"Nothing was trained. {held} {serving}", label_coverage=coverage)

    # Before the work, because a model that cannot be recorded or rolled out must not be promoted.
    tracking, api = tracking_of(here), find_api()
    require_rollout(here.settings, api)
    challenger = train(selection, history, served, here, scaling=scaling, now=now)
    if served is not None and challenger.digest == served.digest:
        told = "Training produced the current model again, because no label is new in the training window."
        return Retraining("skipped", f"{told} {serving}", label_coverage=coverage)
    with step("judging the new model"):
        verdict = verdict_on(challenger, selection, served, here.settings)
    facts = {
        "labels": selection.fingerprint(),
        "drift": None if drift is None else drift.sha256,
        "label_source": selection.label_source,
        "measured": None if selection.label_source == "derived" else challenger.evaluation.summary,
    }
    judged = Judged(selection, challenger, verdict, with_verdict(challenger.manifest, verdict, facts))
    done = _decide(judged, here, tracking, served=served, reason=reason, api=api, now=now)
    if done.outcome == "promoted":
        try:
            collect(here.models_dir, set(np.unique(history.model_digest).tolist()))
        except (OSError, ModelRefused) as error:  # the new model serves all the same
            logger.warning("old versions could not be deleted: %s", error)
    return dataclasses.replace(done, verdict=verdict, figures=judged.figures, label_coverage=coverage)


def _decide(
    judged: Judged,
    here: Installation,
    tracking: Tracking,
    *,
    served: Model | None,
    reason: str,
    api: RunningApi | None,
    now: datetime,
) -> Retraining:
    """Record the run in MLflow, and do what the verdict says."""
    verdict, manifest, files = judged.verdict, judged.manifest, judged.challenger.files
    digest = judged.challenger.digest
    tried = explanation.what_was_tried(judged.challenger, judged.selection)
    next_one = after_judgement(None if served is None else served.manifest, here.settings, now)
    rejected = explanation.rejected(tried, verdict, served, next_one)
    with step("recording the training in MLflow"):
        run_id = tracking.log_run(
            f"{manifest.created[:16]} {verdict.decision}",
            params=run_record.params(judged.challenger, judged.selection, here.settings),
            metrics=run_record.metrics(judged.challenger),
            tags={"decision": verdict.decision, "digest": digest, "trained_on": manifest.trained_on, "reason": reason},
            files=run_record.files(judged.challenger, manifest, judged.selection),
            description=explanation.pending(tried, verdict) if verdict.decision == "promote" else rejected,
        )
    if verdict.decision != "promote":
        record(here.models_dir, "judged", digest=digest, actor=ACTOR, reason=reason, verdict=manifest.verdict)
        outcome: RetrainOutcome = "rejected" if verdict.decision == "reject" else "held_frauds"
        return Retraining(outcome, rejected)
    version = write_version(here.models_dir, files, manifest)
    tracking.register(run_id, digest=digest, version=version)
    promoted = explanation.promoted(
        version,
        tried,
        verdict,
        manifest,
        after_judgement(manifest, here.settings, now),
    )
    seen = put_into_service(
        version,
        here,
        tracking,
        actor=ACTOR,
        reason=reason,
        verdict=manifest.verdict,
        description=promoted,
        api=api,
    )
    return Retraining("promoted", f"{promoted} {seen}", version=version)


if __name__ == "__main__":
    sys.exit(main())
