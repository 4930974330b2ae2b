"""Controls the API's Deployment in Kubernetes: reads it, restarts it for a model, waits until only new pods run."""

import json
import logging
import re
import ssl
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, Self

from fraud_detection.environment import BadSetting
from fraud_detection.exit_codes import ExitCode, ExpectedError
from fraud_detection.settings import ClusterSettings

SERVICE_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
MODEL_DIGEST = "fraud-detection.io/model-digest"
RESTARTED_AT = "kubectl.kubernetes.io/restartedAt"
FIELD_MANAGER = "fraud-detection-retrain"
ASK_EVERY_SECONDS = 1.0  # the Retry-After that Kubernetes sends when it is busy
_TIMEOUTS_SECONDS = (5, 10)
_Method = Literal["get", "patch"]
_PASSING = {409, 429}  # another client changes it at this moment; too many requests

logger = logging.getLogger(__name__)


class KubernetesRefused(ExpectedError):
    """Kubernetes rejects a request, and would reject it again; the message says what to change."""

    exit_code = ExitCode.BAD_CONFIGURATION


class KubernetesAway(ExpectedError):
    """Kubernetes gave no usable answer in time; the message says why."""


class NotRolledOut(Exception):
    """A restart that did not complete; the message says how far it got, or what Kubernetes reports."""


@dataclass(frozen=True)
class State:
    """The progress of a Deployment's pods, as `kubectl rollout status` reads it."""

    model_digest: str | None
    """Digest of the model for which it was last restarted; None if no promotion restarted it yet."""
    replicas: int
    is_paused: bool
    failure: str | None
    """Why Kubernetes stopped the rollout; None if it did not."""
    missing: str | None
    """What the rollout is still waiting for; None when all new pods run, and only they."""

    @classmethod
    def of(cls, deployment: Mapping[str, Any]) -> Self:
        """Read the reply of the Kubernetes API."""
        spec, status = deployment["spec"], deployment.get("status") or {}
        replicas = int(spec["replicas"])
        is_observed = status.get("observedGeneration", 0) >= deployment["metadata"]["generation"]
        failures = [
            condition["message"]
            for condition in status.get("conditions") or []
            if (condition["type"], condition["status"], condition.get("reason"))
            == ("Progressing", "False", "ProgressDeadlineExceeded")
        ]
        return cls(
            model_digest=(spec["template"]["metadata"].get("annotations") or {}).get(MODEL_DIGEST),
            replicas=replicas,
            is_paused=bool(spec.get("paused")),
            failure=failures[0] if is_observed and failures else None,  # otherwise it describes the previous rollout
            missing=_missing(replicas, status) if is_observed else "Kubernetes has not started it yet",
        )


def _missing(replicas: int, status: Mapping[str, Any]) -> str | None:
    running, updated, available = (
        status.get(name, 0) for name in ("replicas", "updatedReplicas", "availableReplicas")
    )  # Kubernetes leaves out a count of 0
    if updated < replicas:
        return f"new pods: {updated} of {replicas}"
    if running > updated:
        return f"old pods still running because not all new pods are ready: {running - updated}"
    if available < replicas:
        return f"ready pods: {available} of {replicas}"
    return None


class Deployment:
    """One Deployment of this pod's namespace, with the rights of the pod's service account.

    If Kubernetes does not answer, every method repeats its request until `deadline` (of time.monotonic), and then
    raises KubernetesAway. It raises KubernetesRefused at once.
    """

    def __init__(self, name: str, server: str, account: Path) -> None:
        self.name = name
        self._server = server
        self._account = account
        self._namespace = (account / "namespace").read_text(encoding="utf-8").strip()

    @classmethod
    def of_this_cluster(cls, name: str, environ: Mapping[str, str]) -> Self:
        """Find the cluster in which this pod runs; raises BadSetting if there is none."""
        for file in ("token", "ca.crt", "namespace"):
            try:
                (SERVICE_ACCOUNT / file).read_bytes()
            except OSError as error:
                raise BadSetting(
                    f"ROLLOUT_DEPLOYMENT: {SERVICE_ACCOUNT / file} cannot be read ({error.strerror}), so this is not "
                    "a pod that may restart a Deployment; give it a service account with automountServiceAccountToken, "
                    "or leave ROLLOUT_DEPLOYMENT empty"
                ) from error
        cluster = ClusterSettings.from_env(environ)
        host = f"[{cluster.host}]" if ":" in cluster.host else cluster.host
        return cls(name, f"https://{host}:{cluster.port}", SERVICE_ACCOUNT)

    def __str__(self) -> str:
        return f"Deployment {self._namespace}/{self.name}"

    def look(self, deadline: float) -> State:
        """Return the present state."""
        return State.of(self._ask("get", deadline))

    def require_restart(self, deadline: float) -> None:
        """Check in advance that a restart is allowed and would start."""
        self._refuse_paused(self.look(deadline))
        self._patch("of a model to come", deadline, dry_run="All")

    def restart(self, digest: str, deadline: float) -> None:
        """Replace every pod, and record for which model.

        If an answer is lost, the same patch is sent again. Its time is the same, so Kubernetes restarts only once.
        """
        self._patch(digest, deadline)
        logger.info("%s: restarting for model %s", self, digest[:12])

    def wait_until_rolled_out(self, deadline: float) -> int:
        """Wait until only new pods run and return how many, 0 at once without replicas; raises NotRolledOut too."""
        while True:
            state = self.look(deadline)
            if state.replicas == 0:
                logger.warning("%s: has 0 replicas, so no pod serves now; the next pod will load the model", self)
                return 0
            self._refuse_paused(state)
            if state.failure is not None:
                raise NotRolledOut(f"{self}: {state.failure}")
            if state.missing is None:
                return state.replicas
            if time.monotonic() > deadline:
                raise NotRolledOut(f"{self} was not rolled out in time: {state.missing}")
            time.sleep(ASK_EVERY_SECONDS)

    def _refuse_paused(self, state: State) -> None:
        if state.is_paused:
            raise KubernetesRefused(
                f"{self} is paused, so none of its pods would be replaced; run "
                f"`kubectl rollout resume deployment/{self.name} -n {self._namespace}`"
            )

    def _patch(self, digest: str, deadline: float, **parameters: str) -> None:
        annotations = {MODEL_DIGEST: digest, RESTARTED_AT: datetime.now(UTC).isoformat(timespec="milliseconds")}
        body = {"spec": {"template": {"metadata": {"annotations": annotations}}}}
        parameters |= {"field_manager": FIELD_MANAGER, "_content_type": "application/strategic-merge-patch+json"}
        self._ask("patch", deadline, body=body, **parameters)

    def _ask(self, method: _Method, deadline: float, **parameters: Any) -> Any:
        # Imported here, because it takes 0.4 seconds and most commands restart no Deployment.
        from kubernetes.client import ApiException  # noqa: PLC0415
        from urllib3.exceptions import HTTPError  # noqa: PLC0415

        was_denied = False
        while True:
            try:
                return self._send(method, parameters)
            except ApiException as error:
                problem = f"it answers {error.status}"
                if not error.status:  # how the client reports a TLS error
                    problem = str(error.reason).replace("\n", ": ")
                elif error.status == 401 and not was_denied:
                    was_denied = True  # the token expired after it was read; the file has the next one
                elif error.status not in _PASSING and error.status < 500:
                    raise KubernetesRefused(self._refusal(method, error.status, error.body, error.reason)) from error
            except (OSError, ValueError, HTTPError) as error:  # files that are being replaced, no connection, not JSON
                problem = f"{type(error).__name__}: {error}"
            if time.monotonic() + ASK_EVERY_SECONDS > deadline:
                raise KubernetesAway(f"Kubernetes gives no usable answer about {self} ({problem})")
            time.sleep(ASK_EVERY_SECONDS)

    def _send(self, method: _Method, parameters: Mapping[str, Any]) -> Any:
        """Send one request over a new connection, with the present token: a token expires sooner than a training ends.

        The client's own `load_incluster_config` keeps a token for a minute, even if it was rejected. Its response
        classes reject fields that are newer than they are, so this returns the plain JSON.
        """
        from kubernetes.client import ApiClient, AppsV1Api, Configuration  # noqa: PLC0415  as in _ask

        token_file = self._account / "token"
        token = token_file.read_bytes().decode("latin-1").strip()
        if not re.fullmatch(r"[!-~]+", token):
            raise ValueError(f"{token_file} has no token that can be sent")  # the client's message would repeat it
        configuration = Configuration(
            host=self._server,
            api_key={"BearerToken": token},
            api_key_prefix={"BearerToken": "Bearer"},
            ca_cert_data=(self._account / "ca.crt").read_text(encoding="utf-8"),
            no_proxy="*",  # the cluster's own API is not behind the proxy that HTTPS_PROXY names
            retries=False,  # the client would try three more times, each with the whole timeout
        )
        with ApiClient(configuration) as client:
            # Python 3.13's default rejects a CA without key identifiers, which older versions of Kubernetes made.
            client.rest_client.pool_manager.connection_pool_kw["ssl_context"] = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            api = AppsV1Api(client)
            send: Callable[..., Any] = (
                api.patch_namespaced_deployment if method == "patch" else api.read_namespaced_deployment
            )
            answer = send(
                self.name, self._namespace, **parameters, _request_timeout=_TIMEOUTS_SECONDS, _preload_content=False
            )
            return json.loads(answer.data)

    def _refusal(self, method: _Method, status: int, body: str | None, reason: str | None) -> str:
        try:
            said = str(json.loads(body or "")["message"])
        except (ValueError, KeyError, TypeError):
            said = str(reason)
        if status == 404:
            return f"ROLLOUT_DEPLOYMENT: there is no {self} ({said}); set it to the API's Deployment"
        if status == 403:
            return (
                f"Kubernetes does not allow {method} on {self} ({said}); if that is the API's Deployment, give the "
                'service account a Role with apiGroups ["apps"], resources ["deployments"], '
                f'resourceNames ["{self.name}"], verbs ["get", "patch"]'
            )
        return f"Kubernetes answers {status} to {method} on {self}: {said}"
