"""Bring a version into service, see that it serves, and go back to the previous one when it does not."""

import logging
from collections.abc import Mapping
from typing import Any, Literal

from fraud_detection.exit_codes import ExitCode, ExpectedError
from fraud_detection.model.files import PICKLE
from fraud_detection.model.read import ModelRefused, current_version, read_manifest, read_version
from fraud_detection.model.write import promote, record
from jobs.installation import Installation
from jobs.rollout.running_api import RunningApi, does_not_come_to, require_rollout
from jobs.rollout.tracking import Tracking, TrackingFailed

logger = logging.getLogger(__name__)


class Restored(ExpectedError):
    """A promoted version did not serve; the previous one does again. The message says what was wrong."""

    exit_code = ExitCode.RESTORED

    @property
    def paragraph(self) -> str:
        """What the job tells people at its end."""
        return f"{self}. Find the cause before the next retraining."


def tracking_of(here: Installation) -> Tracking:
    """Connect to the MLflow of an installation; raises TrackingFailed."""
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
) -> None:
    """Promote a version, see that it serves, and only then let it be the champion in MLflow and `verified` on disk.

    Only under the promoter's lock. With an `api` that one is brought to the version, and asked what it serves. The
    model's run gets the `description` before anything changes, and another one when the version does not serve.

    Raises Restored when it did not serve and the version before was restored; ModelRefused when the version is not
    whole (nothing has changed then) or when it did not serve and there is nothing to go back to; and as
    `require_rollout`, before anything has changed.
    """
    read_version(here.models_dir / version, here.features)
    require_rollout(here.settings, api)
    if description is not None:
        tracking.describe(read_manifest(here.models_dir / version).digest, description)
    previous = current_version(here.models_dir)
    promote(here.models_dir, version, actor=actor, reason=reason, event=event, verdict=verdict)
    _verify_or_restore(version, previous, here, tracking, actor=actor, api=api)


def finish_promotion(
    here: Installation,
    *,
    actor: str,
    api: RunningApi | None = None,
) -> None:
    """Verify the current version if whoever promoted it did not live to do so; promises and errors as above."""
    version = current_version(here.models_dir)
    if version is None or _is_verified(version, here):
        return
    logger.info("finishing the promotion of %s, which was never verified", version)
    require_rollout(here.settings, api)
    previous, tracking = _previous(version, here), tracking_of(here)
    if not (here.models_dir / PICKLE).exists():  # killed between the two links of the very first promotion
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
) -> None:
    problem = _does_not_serve(version, here, api)
    if problem is None:
        digest = read_manifest(here.models_dir / version).digest
        tracking.move_champion(digest)
        # Last, so that a job that is killed before leaves a promotion that the next one finishes.
        record(here.models_dir, "verified", version=version, digest=digest, actor=actor)
        return
    if previous is None or previous == version:
        refused = ModelRefused(
            "missing", f"{version} does not serve ({problem}), and there is no version to go back to"
        )
        _describe_failure(version, f"Nothing was promoted. {refused}", here, tracking)
        raise refused
    restored = read_version(here.models_dir / previous, here.features)
    promote(here.models_dir, previous, actor=actor, reason=f"{version}: {problem}", event="restored")
    still = _does_not_serve(previous, here, api)
    tracking.move_champion(restored.digest)
    if still is None:
        record(here.models_dir, "verified", version=previous, digest=restored.digest, actor=actor)
        outcome = Restored(f"{version} did not serve ({problem}); {previous} was restored and serves")
    else:
        outcome = Restored(
            f"{version} did not serve ({problem}); {previous} was restored, but is not seen to serve ({still})"
        )
    _describe_failure(version, outcome.paragraph, here, tracking)
    raise outcome


def _describe_failure(version: str, description: str, here: Installation, tracking: Tracking) -> None:
    """Let the run of a version say that it does not serve; what went wrong before counts more than a failure here."""
    try:
        tracking.describe(read_manifest(here.models_dir / version).digest, description)
    except (TrackingFailed, ModelRefused) as error:
        logger.warning("the run of %s keeps its old description: %s", version, error)


def _does_not_serve(version: str, here: Installation, api: RunningApi | None) -> str | None:
    """Bring a promoted version into service; return why it does not serve, None when it does as far as can be seen."""
    try:
        model = here.served_model()
    except ModelRefused as error:
        return str(error)
    if model.version != version:
        return f"{here.settings.model_path} leads to {model.version}"
    return None if api is None else does_not_come_to(model.digest, here.settings, api)


def _is_verified(version: str, here: Installation) -> bool:
    """Whether the journal's last change names this version, and a verification follows it."""
    for entry in reversed(here.journal()):
        if entry.get("event") in {"promoted", "restored"}:
            return False
        if entry.get("event") == "verified":
            return bool(entry.get("version") == version)
    return False


def _previous(version: str, here: Installation) -> str | None:
    """Return the version to go back to: the previous one, as the journal says, else the manifest's parent.

    None where this one was itself gone back to: the previous one is the one that somebody did not want, and an API that
    takes up neither has another fault than its model.
    """
    for entry in reversed(here.journal()):
        if entry.get("event") in {"promoted", "restored"}:
            if entry["version"] != version:  # killed between the link and its line in the journal
                return str(entry["version"])
            before: str | None = entry["previous"] if entry["event"] == "promoted" else None
            return before
    return read_manifest(here.models_dir / version).parent
