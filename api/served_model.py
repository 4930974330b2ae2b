"""GET /model, and the one reference to the model that scores; a promoted version replaces it without a pause."""

import logging
import math
import threading
import time
from importlib.metadata import version as installed_version
from pathlib import Path

import flask

from api.metrics import Metrics
from api.scopes import needs
from fraud_detection.clock import parse_timestamp
from fraud_detection.features import FeatureList
from fraud_detection.model.read import Model, ModelRefused, RefusalReason, leads_to, load

LOOK_EVERY_SECONDS = 1.0
TRY_AGAIN_SECONDS = 60.0
"""Seconds until a rejected version is tried again; the time doubles with each attempt, up to the next constant."""
TRY_AGAIN_AT_MOST_SECONDS = 3600.0
_END_SECONDS = 1.0

logger = logging.getLogger(__name__)


class ServedModel:
    """The verified model that scores; read `current` once per request, because the next request may find another.

    `served_before` is the digest of a model that this installation has served: it needs no trial in a process of its
    own, so that a restart is quick even when the machine has no process to spare. It comes from the store, because who
    writes the model volume must not be able to name it.

    Raises ModelRefused if there is no valid model at start.
    """

    def __init__(
        self, model_path: Path, features: FeatureList, metrics: Metrics, *, served_before: str | None = None
    ) -> None:
        self._model_path = model_path
        self._features = features
        self._metrics = metrics
        self._seen = leads_to(model_path)
        self._try_again_at = math.inf
        self._try_again_seconds = TRY_AGAIN_SECONDS
        self._complaint: str | None = None
        self._stopping = threading.Event()
        self._watcher: threading.Thread | None = None
        known = () if served_before is None else (served_before,)
        self.current: Model = load(model_path, features, known=known)
        self._announce(self.current)

    def watch(self) -> None:
        """Check for a promoted version about every second, in a thread of its own, until `close`."""
        self._watcher = threading.Thread(target=self._watch, name="model-watcher", daemon=True)
        self._watcher.start()

    def close(self) -> None:
        """Stop checking."""
        self._stopping.set()
        if self._watcher is not None:
            self._watcher.join(_END_SECONDS)  # the trial of a model may take longer; it ends with this process

    def _watch(self) -> None:
        while not self._stopping.wait(LOOK_EVERY_SECONDS):
            self.look()

    def look(self) -> None:
        """Load the version that MODEL_PATH leads to, if it is another one, or one that is due to be tried again.

        Counts each refusal and logs it once; the current model keeps serving. Nothing that a volume or the machine does
        raises: this thread must survive to see the next version.
        """
        try:
            version = leads_to(self._model_path)
            if version != self._seen:
                self._seen, self._complaint, self._try_again_seconds = version, None, TRY_AGAIN_SECONDS
            elif time.monotonic() < self._try_again_at:
                return
            self._try_again_at = math.inf
            model = load(self._model_path, self._features)
        except ModelRefused as error:
            self._refuse(error.reason, str(error))
        except Exception as error:
            self._refuse("unreadable", f"it cannot be loaded ({type(error).__name__})", error)
        else:
            self.current = model
            self._announce(model)

    def _refuse(self, reason: RefusalReason, message: str, unforeseen: Exception | None = None) -> None:
        self._metrics.model_refused.labels(reason).inc()
        self._try_again_at = time.monotonic() + self._try_again_seconds
        self._try_again_seconds = min(2 * self._try_again_seconds, TRY_AGAIN_AT_MOST_SECONDS)
        if message != self._complaint:
            self._complaint = message
            logger.error("model refused, %s keeps serving: %s", self.current.version, message, exc_info=unforeseen)

    def _announce(self, model: Model) -> None:
        self._metrics.model_info.info(
            {"version": model.version, "digest": model.digest, "trained_on": model.manifest.trained_on}
        )
        self._metrics.model_created.set(parse_timestamp(model.manifest.created).timestamp())
        logger.info("model %s serves (digest %s)", model.version, model.digest[:12])


def blueprint(served: ServedModel, features: FeatureList, fraud_threshold: float) -> flask.Blueprint:
    """Serve GET /model: which model serves, without scoring anything."""
    routes = flask.Blueprint("model", __name__)
    runtime = installed_version("onnxruntime")

    @routes.get("/model")
    @needs("any token")  # because clients ask which model serves before they score
    def show_model() -> dict[str, object]:
        model = served.current
        manifest = model.manifest
        scaling = manifest.amount_scaling
        answer: dict[str, object] = {
            "version": model.version,
            "digest": model.digest,
            "created": manifest.created,
            "threshold": fraud_threshold,
            "trained_on": manifest.trained_on,
            "training_window": manifest.training_window,
            "features": features.names,
            "amount_scaling": None
            if scaling is None
            else {"mean": scaling.mean, "standard_deviation": scaling.standard_deviation},
            "golden_rows_verified": len(manifest.golden.rows),
            "onnxruntime": runtime,
        }
        if manifest.threshold != fraud_threshold:
            answer["model_threshold"] = manifest.threshold
        return answer

    return routes
