"""Brings the running API to a promoted model, by reload or by a restart in Kubernetes, and asks what it serves."""

import contextlib
import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass

import requests

from fraud_detection.environment import BadSetting
from fraud_detection.proxies import bypass_proxy_inside
from fraud_detection.settings import ClientSettings, JobSettings
from jobs.exchange.api_client import bearer
from jobs.rollout.deployment import Deployment, KubernetesAway, KubernetesRefused, NotRolledOut

SERVED_WITHIN_SECONDS = 30.0
"""Seconds within which an API must serve a model if it needs no restart."""
KUBERNETES_ANSWERS_WITHIN_SECONDS = 30.0
ANSWERS_IN_A_ROW = 5  # an old pod behind a Service still answers for seconds, and each replica answers in turn
_ASK_EVERY_SECONDS = 0.25
NOT_ASKED = "No API was asked whether it serves this model (API_URL, ROLLOUT_MODE)."

logger = logging.getLogger(__name__)


class NotServed(Exception):
    """The API does not serve the model that it should; the message says what it does instead."""


@dataclass(frozen=True)
class RunningApi:
    """The address of the API and, in Kubernetes, its Deployment."""

    client: ClientSettings
    deployment: Deployment | None = None


def running_api(settings: JobSettings, environ: Mapping[str, str]) -> RunningApi | None:
    """Return how to reach the API that serves the models; None if no API is named: then none is asked.

    Raises BadSetting.
    """
    if settings.rollout_mode == "restart" and settings.rollout_deployment is None and environ.get("API_URL"):
        raise BadSetting(
            "ROLLOUT_DEPLOYMENT is not set; with ROLLOUT_MODE=restart and API_URL a promotion would count as verified "
            "although the API was neither restarted nor asked. Set ROLLOUT_DEPLOYMENT to the API's Deployment in "
            "Kubernetes, or set ROLLOUT_MODE=reload. If another system restarts and checks the API, leave API_URL empty"
        )
    if settings.rollout_deployment is None or settings.rollout_mode == "none":
        return RunningApi(_client(environ)) if environ.get("API_URL") else None
    if not environ.get("API_URL"):
        raise BadSetting(
            "API_URL is not set; with ROLLOUT_DEPLOYMENT it is required. Set it to the address of the Service of the "
            "pods, because the job asks them what they serve"
        )
    deployment = Deployment.of_this_cluster(settings.rollout_deployment, environ)
    return RunningApi(_client(environ), deployment)


def _client(environ: Mapping[str, str]) -> ClientSettings:
    if not environ.get("API_TOKEN") and not environ.get("API_TOKEN_FILE"):
        raise BadSetting(
            "API_TOKEN is not set; with API_URL a promotion asks that API what it serves. Set it to the API's token "
            "(`fraudctl serve --first-time` creates a token and a first model), or leave API_URL empty"
        )
    return ClientSettings.from_env(environ)


def require_rollout(settings: JobSettings, api: RunningApi | None) -> None:
    """Check in advance that Kubernetes allows the rollout of a model.

    Raises KubernetesRefused, KubernetesAway.
    """
    if api is None or api.deployment is None:
        return
    deadline = time.monotonic() + KUBERNETES_ANSWERS_WITHIN_SECONDS
    if settings.rollout_mode == "restart":
        api.deployment.require_restart(deadline)
    else:
        api.deployment.look(deadline)


def bring_to(digest: str, settings: JobSettings, api: RunningApi | None) -> str:
    """Bring the API to the current model, as ROLLOUT_MODE says; return a sentence on what was seen of it.

    If no API runs, none needs to serve the model now: the next one to start verifies it before it is ready.

    Raises NotServed.
    """
    try:
        if api is not None and settings.rollout_mode == "reload":
            return _taken_up(digest, api)
        if api is not None and settings.rollout_mode == "restart" and api.deployment is not None:
            return _restarted(digest, api.client, api.deployment, settings.rollout_timeout_seconds)
    except (KubernetesRefused, KubernetesAway, NotRolledOut) as error:
        raise NotServed(str(error)) from error
    return NOT_ASKED


def _taken_up(digest: str, api: RunningApi) -> str:
    deadline = time.monotonic() + SERVED_WITHIN_SECONDS
    if api.deployment is None:
        return _served(digest, api.client, deadline, may_be_stopped=True)
    if api.deployment.look(deadline).replicas == 0:
        return _without_pods(api.deployment)
    return _served(digest, api.client, deadline)


def _restarted(digest: str, client: ClientSettings, deployment: Deployment, timeout_seconds: float) -> str:
    deadline = time.monotonic() + timeout_seconds
    restarted_for = deployment.look(deadline).model_digest
    if restarted_for is None:
        with contextlib.suppress(NotServed):
            return _served(digest, client, time.monotonic())  # the first model of the installation
    if restarted_for == digest:
        logger.info("%s: was restarted for this model before", deployment)
        if deployment.wait_until_rolled_out(deadline) == 0:
            return _without_pods(deployment)
        with contextlib.suppress(NotServed):
            return _served(digest, client, min(deadline, time.monotonic() + SERVED_WITHIN_SECONDS))
        # Since then, another model was promoted and the pods were restarted by hand: they serve that model.
    deployment.restart(digest, deadline)
    if deployment.wait_until_rolled_out(deadline) == 0:
        return _without_pods(deployment)
    return _served(digest, client, deadline)


def _without_pods(deployment: Deployment) -> str:
    logger.warning("%s: has 0 replicas, so no pod serves", deployment)
    return f"{deployment} has 0 replicas: its next pod verifies this model."


def _served(digest: str, client: ClientSettings, deadline: float, *, may_be_stopped: bool = False) -> str:
    """Ask until several answers in a row name the model; at the deadline raise what is wrong with the last answer.

    If the API `may_be_stopped`, a refused connection is no problem.
    """
    bypass_proxy_inside(client.api_url)
    answers = 0
    while True:
        try:
            problem = _ask(client, digest)
        except requests.ConnectionError as error:
            if may_be_stopped and _is_refused(error) and not isinstance(error, requests.exceptions.ProxyError):
                return f"No API listens at {client.address}: the next one to start verifies this model."
            problem = f"{client.address} cannot be reached ({type(error).__name__})"
        if problem is not None and time.monotonic() > deadline:
            raise NotServed(problem)
        answers = answers + 1 if problem is None else 0
        if answers == ANSWERS_IN_A_ROW:
            return f"The API at {client.address} serves this model."
        time.sleep(_ASK_EVERY_SECONDS)


def _ask(client: ClientSettings, digest: str) -> str | None:
    """Return what is wrong with one answer; uses a new connection, because an open one leads to the same old pod."""
    try:
        answer = requests.get(f"{client.api_url}/model", auth=bearer(client.api_token), timeout=5)
        if answer.ok:
            served = answer.json()["digest"]
            return None if served == digest else f"{client.address} still serves {served[:12]}"
    except requests.ConnectionError:
        raise
    except (requests.RequestException, KeyError, TypeError) as error:
        return f"{client.address} gives no usable answer ({type(error).__name__})"
    return f"{client.address} answers {answer.status_code}"


def _is_refused(error: BaseException | None) -> bool:
    while error is not None and not isinstance(error, ConnectionRefusedError):
        error = error.__cause__ or error.__context__
    return error is not None
