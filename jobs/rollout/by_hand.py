"""Which version served before the current one, and bringing any version back by hand."""

from fraud_detection.exit_codes import ExpectedError
from fraud_detection.model.read import current_version, versions
from jobs.installation import Installation
from jobs.rollout.promotion import put_into_service, tracking_of
from jobs.rollout.running_api import RunningApi


class NothingToGoBackTo(ExpectedError):
    """No other version served before the current one, or none is kept."""


def served_before(here: Installation) -> str:
    """Return the version that served before the current one and is still kept.

    Going back twice goes back two: what was left by going back does not count as having served before.

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
    raise NothingToGoBackTo(f"{here.models_dir}: no other version served before {current or 'now'}")


def promote_by_hand(
    version: str,
    here: Installation,
    *,
    actor: str,
    reason: str,
    api: RunningApi | None = None,
) -> None:
    """Bring a version into service without a gate.

    Raises as `put_into_service`, LockHeld, DatabaseRefused and TrackingFailed.
    """
    with here.promoter():
        put_into_service(version, here, tracking_of(here), actor=actor, reason=reason, api=api)


def roll_back(here: Installation, *, actor: str, reason: str, api: RunningApi | None = None) -> str:
    """Bring the version that served before back into service and return its name.

    Raises NothingToGoBackTo, and as `promote_by_hand`.
    """
    with here.promoter():
        version = served_before(here)
        put_into_service(
            version,
            here,
            tracking_of(here),
            actor=actor,
            reason=reason,
            event="restored",
            api=api,
        )
    return version
