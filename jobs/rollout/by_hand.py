"""Finds the previous version, and promotes any version by hand."""

from fraud_detection.exit_codes import ExpectedError
from fraud_detection.model.read import current_version, versions
from jobs.installation import Installation
from jobs.rollout.promotion import put_into_service, tracking_of
from jobs.rollout.running_api import RunningApi


class NothingToGoBackTo(ExpectedError):
    """There is no previous version, or it is no longer kept."""


def served_before(here: Installation) -> str:
    """Return the newest previous version that is still kept.

    Two rollbacks go back two versions: a version that a rollback replaced does not count as a previous version.

    Raises NothingToGoBackTo.
    """
    served: list[str] = []
    for entry in here.journal():
        if entry.get("event") == "restored" and entry.get("version") in served:
            del served[served.index(entry["version"]) + 1 :]
        elif entry.get("event") in {"promoted", "restored"}:
            served.append(entry["version"])
    kept = versions(here.models_dir)
    current = current_version(here.models_dir)
    for version in reversed(served):
        if version != current and version in kept:
            return version
    raise NothingToGoBackTo(
        f"{here.models_dir}: no other version served before {current or 'now'}, so there is none to roll back to"
    )


def promote_by_hand(
    version: str,
    here: Installation,
    *,
    actor: str,
    reason: str,
    api: RunningApi | None = None,
) -> str:
    """Promote a version without a gate; return a sentence on what was seen of the API.

    Raises as `put_into_service`, LockHeld, DatabaseRefused and TrackingFailed.
    """
    with here.promoter():
        return put_into_service(version, here, tracking_of(here), actor=actor, reason=reason, api=api)


def roll_back(here: Installation, *, actor: str, reason: str, api: RunningApi | None = None) -> tuple[str, str]:
    """Promote the previous version again; return its name, and a sentence on what was seen of the API.

    Raises NothingToGoBackTo, and as `promote_by_hand`.
    """
    with here.promoter():
        version = served_before(here)
        seen = put_into_service(
            version,
            here,
            tracking_of(here),
            actor=actor,
            reason=reason,
            event="restored",
            api=api,
        )
    return version, seen
