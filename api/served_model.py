"""GET /model, and the one reference to the model that scores; a promoted version replaces it without a pause."""

import logging
import threading
from importlib.metadata import version as installed_version
from pathlib import Path

import flask

from api.metrics import Metrics
from fraud_detection.clock import parse_timestamp
from fraud_detection.features import FeatureList
from fraud_detection.model.read import Model, ModelRefused, load

LOOK_EVERY_SECONDS = 1.0

logger = logging.getLogger(__name__)


class ServedModel:
    """The verified model that scores; read `current` once per request, because the next request may find another.

    Raises ModelRefused if there is no valid model at start.
    """

    def __init__(self, model_path: Path, features: FeatureList, metrics: Metrics) -> None:
        self._model_path = model_path
        self._features = features
        self._metrics = metrics
        self._seen = model_path.resolve()
        self._stopping = threading.Event()
        self._watcher: threading.Thread | None = None
        self.current: Model = load(model_path, features)
        self._announce(self.current)

    def watch(self) -> None:
        """Check for a promoted version about every second, in a thread of its own, until `close`."""
        self._watcher = threading.Thread(target=self._watch, name="model-watcher", daemon=True)
        self._watcher.start()

    def close(self) -> None:
        """Stop checking."""
        self._stopping.set()
        if self._watcher is not None:
            self._watcher.join()

    def _watch(self) -> None:
        while not self._stopping.wait(LOOK_EVERY_SECONDS):
            self.look()

    def look(self) -> None:
        """Load the version that MODEL_PATH leads to, if it is another one and valid.

        Counts and logs a refused version once; the current model keeps serving.
        """
        leads_to = self._model_path.resolve()
        if leads_to == self._seen:
            return
        self._seen = leads_to
        try:
            model = load(self._model_path, self._features)
        except ModelRefused as error:
            self._refuse(error.reason, str(error))
        except Exception:  # a damaged version may raise anything, and the thread must survive to see the next one
            logger.exception("model %s cannot be loaded", leads_to.parent.name)
            self._refuse("unreadable", leads_to.parent.name)
        else:
            self.current = model
            self._announce(model)

    def _refuse(self, reason: str, message: str) -> None:
        self._metrics.model_refused.labels(reason).inc()
        logger.error("model refused, %s keeps serving: %s", self.current.version, message)

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
