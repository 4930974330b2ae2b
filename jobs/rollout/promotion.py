"""Promotes a version, verifies that it serves, and restores the previous version if it does not."""

import logging
from collections.abc import Callable, Mapping
from typing import Any, Literal, NoReturn

from fraud_detection.exit_codes import ExitCode, ExpectedError
from fraud_detection.model.files import PICKLE, shown
from fraud_detection.model.read import ModelRefused, ModelUndecided, current_version, read_manifest, read_version
from fraud_detection.model.write import promote, record
from jobs.installation import Installation
from jobs.progress import step
from jobs.rollout.running_api import NotServed, RunningApi, bring_to, require_rollout
from jobs.rollout.tracking import Tracking, TrackingFailed

logger = logging.getLogger(__name__)


class Restored(ExpectedError):
    """A promoted version did not serve, so the previous version was restored. The message says what was wrong."""

    exit_code = ExitCode.RESTORED

    @property
    def paragraph(self) -> str:
        """Return the paragraph that the job prints at its end."""
        return f"{self}. Find the cause before the next retraining."


class NothingToRestore(ModelRefused):
    """The promoted version does not serve, and there is no previous version."""


class NotRecorded(TrackingFailed):
    """The promoted version serves, but MLflow did not record it; the next job that finishes promotions does."""


def tracking_of(here: Installation) -> Tracking:
    """Connect to MLflow as an installation configures it; raises TrackingFailed."""
    return Tracking(
        here.settings.mlflow_tracking_uri,
        here.mlflow_folder,
        experiment=here.settings.mlflow_exper,
        registered_model=here.settings.mlflow_reg,
    )


def put_into_service(
    version: str,
    here: Installation,
    tracking: Tracking,
    *,
    actor: str,
    reason: str,
    event: Literal["promoted", "restored"] = "promoted",
    verdict: Mapping[str, Any] | None = None,
    description: str | None = None,
    api: RunningApi | None = None,
) -> str:
    """Promote a version, verify that it serves, and only then make it MLflow's champion and `verified` on disk.

    Returns a sentence on what was seen of the API. The caller holds the promoter's lock. If there is an `api`, it is
    brought to the version and asked what it serves. The model's run gets the `description` before anything changes,
    that sentence at the end, and another description if the version does not serve.

    Raises Restored if it did not serve and the previous version was restored; NothingToRestore if there is none;
    NotRecorded if it serves but MLflow failed; ModelRefused if it is not whole, and as
    `require_rollout`, both before anything has changed.
    """
    with step(f"checking {shown(version)}"):
        read_version(here.models_dir / version, here.features)
    require_rollout(here.settings, api)
    if description is not None:
        tracking.describe(read_manifest(here.models_dir / version).digest, description)
    previous = current_version(here.models_dir)
    promote(here.models_dir, version, actor=actor, reason=reason, event=event, verdict=verdict)
    with step("waiting until it serves"):
        seen = _verify_or_restore(version, previous, here, tracking, actor=actor, api=api)
    if description is not None:
        _describe(version, f"{description} {seen}", here, tracking)
    return seen


def finish_promotion(
    here: Installation,
    *,
    actor: str,
    find_api: Callable[[], RunningApi | None] = lambda: None,
) -> None:
    """Verify the current version if its job was killed before doing so; raises as `put_into_service` and `find_api`."""
    version = current_version(here.models_dir)
    if version is None or _is_verified(version, here):
        return
    logger.info("finishing the promotion of %s, which was never verified", shown(version))
    api = find_api()
    require_rollout(here.settings, api)
    previous, tracking = _previous(version, here), tracking_of(here)
    if not (here.models_dir / PICKLE).exists():  # a job was killed between the two links of the first promotion
        promote(here.models_dir, version, actor=actor, reason="finishing a promotion")
    _verify_or_restore(version, previous, here, tracking, actor=actor, api=api)


def _verify_or_restore(
    version: str,
    previous: str | None,
    here: Installation,
    tracking: Tracking,
    *,
    actor: str,
    api: RunningApi | None,
) -> str:
    try:
        seen = _bring_into_service(version, here, api)
    except NotServed as problem:
        _restore(previous, version, problem, here, tracking, actor=actor, api=api)
    digest = read_manifest(here.models_dir / version).digest
    try:
        tracking.move_champion(digest)
    except TrackingFailed as error:
        told = f"{shown(version)} serves, but MLflow did not record it: {error}. The next run does"
        raise NotRecorded(told) from error
    # Last, so that if this job is killed earlier, the next job finishes the promotion.
    record(here.models_dir, "verified", version=version, digest=digest, actor=actor)
    return seen


def _restore(
    previous: str | None,
    version: str,
    problem: NotServed,
    here: Installation,
    tracking: Tracking,
    *,
    actor: str,
    api: RunningApi | None,
) -> NoReturn:
    name = shown(version)
    if previous is None or previous == version:
        refused = NothingToRestore(
            "missing", f"{name} does not serve ({problem}), and there is no previous version to restore"
        )
        _describe(version, str(refused), here, tracking)
        raise refused
    restored = read_version(here.models_dir / previous, here.features)
    promote(here.models_dir, previous, actor=actor, reason=f"{name}: {problem}", event="restored")
    still: NotServed | None = None
    try:
        _bring_into_service(previous, here, api)
    except NotServed as error:
        still = error
    recorded = _champion_moved(tracking, restored.digest)
    if still is None:
        if recorded:
            record(here.models_dir, "verified", version=previous, digest=restored.digest, actor=actor)
        outcome = Restored(f"{name} did not serve ({problem}); {previous} was restored and serves")
    else:
        outcome = Restored(
            f"{name} did not serve ({problem}); {previous} was restored, but does not serve either ({still})"
        )
    _describe(version, outcome.paragraph, here, tracking)
    raise outcome


def _champion_moved(tracking: Tracking, digest: str) -> bool:
    """Move MLflow's champion to a restored version; a failure is only logged, because the outcome matters more."""
    try:
        tracking.move_champion(digest)
    except TrackingFailed as error:
        logger.warning("MLflow did not record the restored version, the next run does: %s", error)
        return False
    return True


def _describe(version: str, description: str, here: Installation, tracking: Tracking) -> None:
    """Describe how a version's run ended; a failure here is only logged, because that end matters more."""
    try:
        tracking.describe(read_manifest(here.models_dir / version).digest, description)
    except (TrackingFailed, ModelRefused) as error:
        logger.warning("the run of %s keeps its old description: %s", shown(version), error)


def _bring_into_service(version: str, here: Installation, api: RunningApi | None) -> str:
    """Load a promoted version and bring the API to it; return what was seen of the API. Raises NotServed."""
    try:
        model = here.served_model()
    except ModelUndecided:  # the machine's failure is no reason to go back; the next run verifies
        raise
    except ModelRefused as error:
        raise NotServed(str(error)) from error
    if model.version != version:
        raise NotServed(f"{here.settings.model_path} points at {model.version}")
    return bring_to(model.digest, here.settings, api)


def _is_verified(version: str, here: Installation) -> bool:
    """Return whether the journal's last change names this version, and a verification follows it."""
    for entry in reversed(here.journal()):
        if entry.get("event") in {"promoted", "restored"}:
            return False
        if entry.get("event") == "verified":
            return bool(entry.get("version") == version)
    return False


def _previous(version: str, here: Installation) -> str | None:
    """Return the version to restore: the previous version in the journal, else the manifest's parent.

    None if this version was itself restored: then the previous version was rejected. If the API loads neither, the
    cause is not the model.
    """
    for entry in reversed(here.journal()):
        if entry.get("event") in {"promoted", "restored"}:
            if entry["version"] != version:  # a job was killed between the link and its line in the journal
                return str(entry["version"])
            before: str | None = entry["previous"] if entry["event"] == "promoted" else None
            return before
    return read_manifest(here.models_dir / version).parent
