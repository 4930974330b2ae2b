"""Which version served before the one in service, and bringing any version back by hand."""

from fraud_detection.features import FeatureList
from fraud_detection.model.read import current_version, journal, versions
from fraud_detection.settings import JobSettings
from jobs.installation import promoter_of
from jobs.rollout.promotion import put_into_service, tracking_of
from jobs.rollout.running_api import RunningApi


class NothingToGoBackTo(Exception):
    """No other version served before the one in service, or none is kept."""


def served_before(settings: JobSettings) -> str:
    """Return the version that served before the one in service and is still kept.

    Going back twice goes back two: what was left by going back does not count as having served before.

    Raises NothingToGoBackTo.
    """
    served: list[str] = []
    for entry in journal(settings.models_dir):
        if entry.get("event") == "restored" and entry.get("version") in served:
            del served[served.index(entry["version"]) + 1 :]
        elif entry.get("event") in {"promoted", "restored"}:
            served.append(entry["version"])
    kept = versions(settings.models_dir)
    current = current_version(settings.models_dir)
    for version in reversed(served):
        if version != current and version in kept:
            return version
    raise NothingToGoBackTo(f"{settings.models_dir}: no other version served before {current or 'now'}")


def promote_by_hand(
    version: str,
    settings: JobSettings,
    features: FeatureList,
    *,
    actor: str,
    reason: str,
    api: RunningApi | None = None,
) -> None:
    """Bring a version into service without a gate.

    Raises as `put_into_service`, LockHeld, DatabaseRefused and TrackingFailed.
    """
    with promoter_of(settings):
        put_into_service(version, settings, features, tracking_of(settings), actor=actor, reason=reason, api=api)


def roll_back(
    settings: JobSettings, features: FeatureList, *, actor: str, reason: str, api: RunningApi | None = None
) -> str:
    """Bring the version that served before back into service and return its name.

    Raises NothingToGoBackTo, and as `promote_by_hand`.
    """
    with promoter_of(settings):
        version = served_before(settings)
        put_into_service(
            version,
            settings,
            features,
            tracking_of(settings),
            actor=actor,
            reason=reason,
            event="restored",
            api=api,
        )
    return version
