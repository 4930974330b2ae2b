"""Bring a version into service, see that it serves, and go back to the one before when it does not."""

import contextlib
import logging
import time
from collections.abc import Iterator, Mapping
from typing import Any, Literal

import requests

from fraud_detection.database import open_engine, reachable
from fraud_detection.features import FeatureList
from fraud_detection.lock import promoter
from fraud_detection.model import (
    PICKLE,
    ModelRefused,
    current_version,
    journal,
    load,
    promote,
    read_manifest,
    read_version,
    record,
)
from fraud_detection.settings import ClientSettings, JobSettings
from jobs.tracking import Tracking

SERVED_WITHIN_SECONDS = 30.0
_ASK_EVERY_SECONDS = 0.25

logger = logging.getLogger(__name__)


class Restored(Exception):
    """A promoted version did not serve; the one before does again. The message says what was wrong."""


@contextlib.contextmanager
def promoter_of(settings: JobSettings) -> Iterator[None]:
    """Hold the right to change the models of an installation; raises LockHeld, DatabaseRefused."""
    if settings.database_url is None:
        with promoter(settings.models_dir):
            yield
        return
    engine = open_engine(settings.database_url)
    try:
        with reachable(settings.database_url), engine.connect():
            pass
        with promoter(settings.models_dir, engine):
            yield
    finally:
        engine.dispose()


def tracking_of(settings: JobSettings) -> Tracking:
    """Connect to the MLflow of an installation; raises TrackingFailed."""
    return Tracking(
        settings.mlflow_tracking_uri,
        settings.latest_db.parent,
        experiment=settings.mlflow_exper,
        registered_model=settings.mlflow_reg,
    )


def put_into_service(
    version: str,
    settings: JobSettings,
    features: FeatureList,
    tracking: Tracking,
    *,
    actor: str,
    reason: str,
    event: Literal["promoted", "restored"] = "promoted",
    verdict: Mapping[str, Any] | None = None,
    client: ClientSettings | None = None,
) -> None:
    """Promote a version, see that it serves, and only then let it be the champion in MLflow and `verified` on disk.

    Only under the promoter's lock. With a `client` a running API is asked what it serves (`reload` mode).

    Raises Restored when it did not serve and the version before was restored; ModelRefused when the version is not
    whole (nothing has changed then) or when it did not serve and there is nothing to go back to.
    """
    read_version(settings.models_dir / version, features)
    previous = current_version(settings.models_dir)
    promote(settings.models_dir, version, actor=actor, reason=reason, event=event, verdict=verdict)
    _verify_or_restore(version, previous, settings, features, tracking, actor=actor, client=client)


def finish_promotion(
    settings: JobSettings,
    features: FeatureList,
    *,
    actor: str,
    client: ClientSettings | None = None,
) -> None:
    """Verify the version in service if whoever promoted it did not live to do so; promises and errors as above."""
    version = current_version(settings.models_dir)
    if version is None or _is_verified(version, settings):
        return
    logger.info("finishing the promotion of %s, which was never verified", version)
    previous, tracking = _previous(version, settings), tracking_of(settings)
    if not (settings.models_dir / PICKLE).exists():  # killed between the two links of the very first promotion
        promote(settings.models_dir, version, actor=actor, reason="finishing a promotion")
    _verify_or_restore(version, previous, settings, features, tracking, actor=actor, client=client)


def _verify_or_restore(
    version: str,
    previous: str | None,
    settings: JobSettings,
    features: FeatureList,
    tracking: Tracking,
    *,
    actor: str,
    client: ClientSettings | None,
) -> None:
    problem = _does_not_serve(version, settings, features, client)
    if problem is None:
        digest = read_manifest(settings.models_dir / version).digest
        tracking.move_champion(digest)
        # Last, so that a job that is killed before leaves a promotion that the next one finishes.
        record(settings.models_dir, "verified", version=version, digest=digest, actor=actor)
        return
    if previous is None or previous == version:
        raise ModelRefused("missing", f"{version} does not serve ({problem}), and there is no version to go back to")
    restored = read_version(settings.models_dir / previous, features)
    promote(settings.models_dir, previous, actor=actor, reason=f"{version}: {problem}", event="restored")
    still = _does_not_serve(previous, settings, features, client)
    tracking.move_champion(restored.digest)
    if still is None:
        record(settings.models_dir, "verified", version=previous, digest=restored.digest, actor=actor)
        raise Restored(f"{version} did not serve ({problem}); {previous} was restored and serves")
    raise Restored(f"{version} did not serve ({problem}); {previous} was restored, but is not seen to serve ({still})")


def _does_not_serve(
    version: str, settings: JobSettings, features: FeatureList, client: ClientSettings | None
) -> str | None:
    """Return why a promoted version does not serve, None when it does as far as can be seen from here.

    In `restart` mode whoever runs the API restarts it: this is where a rollout would be started and waited for.
    """
    try:
        model = load(settings.model_path, features)
    except ModelRefused as error:
        return str(error)
    if model.version != version:
        return f"{settings.model_path} leads to {model.version}"
    if settings.rollout_mode == "reload" and client is not None:
        return _wait_until_served(model.digest, client)
    return None


def _wait_until_served(digest: str, client: ClientSettings) -> str | None:
    deadline = time.monotonic() + SERVED_WITHIN_SECONDS
    with requests.Session() as session:
        session.trust_env = False  # our own API is not behind the proxy
        session.headers["Authorization"] = f"Bearer {client.api_token}"
        while True:
            problem = _ask(session, client.api_url, digest)
            if problem is None or time.monotonic() > deadline:
                return problem
            time.sleep(_ASK_EVERY_SECONDS)


def _ask(session: requests.Session, url: str, digest: str) -> str | None:
    try:
        answer = session.get(f"{url}/model", timeout=5)
        if answer.ok:
            served = answer.json()["digest"]
            return None if served == digest else f"{url} still serves {served[:12]}"
    except requests.ConnectionError as error:
        if _is_refused(error):
            return None  # no API runs; the one that starts next verifies the version before it is ready
        return f"{url} cannot be reached ({type(error).__name__})"
    except (requests.RequestException, KeyError, TypeError) as error:
        return f"{url} gives no usable answer ({type(error).__name__})"
    return f"{url} answers {answer.status_code}"


def _is_refused(error: BaseException | None) -> bool:
    while error is not None and not isinstance(error, ConnectionRefusedError):
        error = error.__cause__ or error.__context__
    return error is not None


def _is_verified(version: str, settings: JobSettings) -> bool:
    """Whether the journal's last change names this version, and a verification follows it."""
    for entry in reversed(journal(settings.models_dir)):
        if entry.get("event") in {"promoted", "restored"}:
            return False
        if entry.get("event") == "verified":
            return bool(entry.get("version") == version)
    return False


def _previous(version: str, settings: JobSettings) -> str | None:
    """Return the version that served before: as the journal says, else the manifest's parent."""
    for entry in reversed(journal(settings.models_dir)):
        if entry.get("event") in {"promoted", "restored"}:
            before: str | None = entry["previous"] if entry["version"] == version else entry["version"]
            return before
    return read_manifest(settings.models_dir / version).parent
