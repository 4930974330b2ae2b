"""Records trainings and the champion in MLflow, which no other module imports."""

import logging
import os
import socket
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import unquote, urlsplit

import requests.exceptions
import sqlalchemy
import sqlalchemy.exc

from jobs.rollout.artifacts import DATABASE, artifacts_uri, follow_move
from jobs.rollout.telemetry import NO_TELEMETRY

os.environ.update(NO_TELEMETRY)  # before MLflow is imported
os.environ["MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT"] = "true"
os.environ.setdefault("MLFLOW_CONFIGURE_LOGGING", "false")  # its messages go to our log
os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")  # one per artefact, also in the log of a job
# With its defaults MLflow waits more than ten minutes for a server that does not answer.
os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "30")

from mlflow import MlflowClient
from mlflow.entities import Metric, Param, Run, ViewType
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException

from fraud_detection.environment import what_failed
from fraud_detection.exit_codes import ExpectedError
from fraud_detection.model.files import MANIFEST, ONNX, write_whole
from fraud_detection.proxies import bypass_proxy_inside
from fraud_detection.regular_file import make_folder

CHAMPION = "champion"
MODEL_ARTIFACTS = "model"
DESCRIPTION_TAG = "mlflow.note.content"
"""The tag that MLflow's UI shows as the description of a run."""
_DIGEST = "digest"
_PARAM_LENGTH = 6000  # the limit of MLflow's store
_PORTS = {"postgresql": 5432, "mysql": 3306, "mssql": 1433}
"""The databases with a server that MLflow can use, with their usual ports."""
_ANSWERS_WITHIN_SECONDS = 5.0

for _noisy in ("mlflow", "alembic"):
    logging.getLogger(_noisy).setLevel(logging.WARNING)  # otherwise they log a line for each table


class TrackingFailed(ExpectedError):
    """MLflow could not be reached or rejected a request; then nothing may be promoted."""


class Tracking:
    """One MLflow experiment and one registered model.

    Every method raises TrackingFailed.
    """

    def __init__(self, uri: str | None, folder: Path, *, experiment: str, registered_model: str) -> None:
        """Connect to the server at `uri`, or to mlflow.db in `folder`, which is created, with mlartifacts beside it.

        If the folder has moved, this rewrites the locations in mlflow.db: without `uri`, hold the promoter's lock.
        """
        self._registered_model = registered_model
        self._uri = uri or ""
        bypass_proxy_inside(self._uri)
        folder = folder.absolute()
        with _translated(self._uri), warnings.catch_warnings():
            # MLflow declares its tables in a way that SQLAlchemy 2.1 deprecates.
            warnings.filterwarnings("ignore", category=sqlalchemy.exc.SADeprecationWarning)
            if uri is None:
                make_folder(folder)
                (folder / DATABASE).touch()  # SQLite itself would create it without write access for the group
            else:
                _require_database(uri)
            self._client = MlflowClient(uri or f"sqlite:///{folder / DATABASE}")
            if uri is None:
                follow_move(folder)
            known = self._client.get_experiment_by_name(experiment)
            if known is None:
                location = None if uri else artifacts_uri(folder)
                self._experiment_id = self._client.create_experiment(experiment, artifact_location=location)
            elif known.lifecycle_stage == "deleted":
                raise TrackingFailed(f"the experiment {experiment!r} was deleted: restore it or set MLFLOW_EXPER")
            else:
                self._experiment_id = known.experiment_id

    def log_run(
        self,
        name: str,
        *,
        params: Mapping[str, object],
        metrics: Mapping[str, float],
        tags: Mapping[str, str],
        files: Mapping[str, bytes],
        description: str,
    ) -> str:
        """Record a completed training and return its run id; `files` are artefacts by path."""
        with _translated(self._uri):
            told = {**tags, DESCRIPTION_TAG: description}
            run_id: str = self._client.create_run(self._experiment_id, run_name=name, tags=told).info.run_id
            now = int(time.time() * 1000)
            try:
                self._client.log_batch(
                    run_id,
                    metrics=[Metric(key, value, timestamp=now, step=0) for key, value in metrics.items()],
                    params=[Param(key, str(value)[:_PARAM_LENGTH]) for key, value in params.items()],
                )
                with tempfile.TemporaryDirectory(prefix="fraud-run-") as scratch:
                    for path, content in files.items():
                        target = Path(scratch) / path
                        target.parent.mkdir(parents=True, exist_ok=True)
                        target.write_bytes(content)
                    self._client.log_artifacts(run_id, scratch)
            except BaseException:
                self._client.set_terminated(run_id, "FAILED")
                raise
            self._client.set_terminated(run_id)
        return run_id

    def register(self, run_id: str, *, digest: str, version: str) -> str:
        """Register the model of a run under its digest and return the registry's number; it is not champion yet."""
        with _translated(self._uri):
            known = self._version_with(digest)
            if known is not None:
                return str(known.version)
            try:
                self._client.create_registered_model(self._registered_model)
            except MlflowException as error:
                if error.error_code != "RESOURCE_ALREADY_EXISTS":
                    raise
            source = f"{self._client.get_run(run_id).info.artifact_uri}/{MODEL_ARTIFACTS}"
            registered = self._client.create_model_version(
                self._registered_model, source, run_id, tags={_DIGEST: digest, "version": version}
            )
        return str(registered.version)

    def describe(self, digest: str, description: str) -> None:
        """Replace the description of the newest run that gave the model with this digest, if there is one."""
        with _translated(self._uri):
            found = self._client.search_runs(
                [self._experiment_id], f"tags.{_DIGEST} = '{digest}'", max_results=1, order_by=["start_time DESC"]
            )
            for run in found:
                self._client.set_tag(run.info.run_id, DESCRIPTION_TAG, description)

    def move_champion(self, digest: str) -> str | None:
        """Set the alias `champion` to the registered model with this digest, and return its number.

        If the model was never registered (the synthetic baseline), remove the alias and return None.
        """
        with _translated(self._uri):
            registered = self._version_with(digest)
            if registered is not None:
                self._client.set_registered_model_alias(self._registered_model, CHAMPION, registered.version)
                return str(registered.version)
            if self.champion() is not None:
                self._client.delete_registered_model_alias(self._registered_model, CHAMPION)
        return None

    def champion(self) -> str | None:
        """Return the digest of the registered champion, None if there is none."""
        with _translated(self._uri):
            try:
                champion = self._client.get_model_version_by_alias(self._registered_model, CHAMPION)
            except MlflowException as error:
                # for a missing alias or model: one code from SQL, the other from a server
                if error.error_code in {"INVALID_PARAMETER_VALUE", "RESOURCE_DOES_NOT_EXIST"}:
                    return None
                raise
            digest: str = champion.tags[_DIGEST]
            return digest

    def renew_manifests(self, renewed: Callable[[bytes, Callable[[], bytes]], bytes | None]) -> int:
        """Rewrite the manifests that runs keep, also deleted runs, and return how many were rewritten.

        `renewed(manifest, read_model)` returns the new content, or None if the manifest may stay.
        """
        count, page_token = 0, None
        with _translated(self._uri):
            while True:
                runs = self._client.search_runs(
                    [self._experiment_id], run_view_type=ViewType.ALL, page_token=page_token
                )
                count += sum(self._renew_manifest(run, renewed) for run in runs)
                page_token = runs.token
                if not page_token:
                    return count

    def _renew_manifest(self, run: Run, renewed: Callable[[bytes, Callable[[], bytes]], bytes | None]) -> bool:
        run_id, path = run.info.run_id, f"{MODEL_ARTIFACTS}/{MANIFEST}"
        if path not in {file.path for file in self._client.list_artifacts(run_id, MODEL_ARTIFACTS)}:
            return False
        with tempfile.TemporaryDirectory(prefix="fraud-run-") as scratch:

            def read(name: str) -> bytes:
                return Path(self._client.download_artifacts(run_id, name, scratch)).read_bytes()

            content = renewed(read(path), lambda: read(f"{MODEL_ARTIFACTS}/{ONNX}"))
            if content is None:
                return False
            location = urlsplit(run.info.artifact_uri)
            if location.scheme == "file":  # MLflow would copy into it, and a killed job leave half of it
                write_whole(Path(unquote(location.path)) / path, content)
            else:
                (Path(scratch) / MANIFEST).write_bytes(content)
                self._client.log_artifact(run_id, str(Path(scratch) / MANIFEST), MODEL_ARTIFACTS)
            return True

    def _version_with(self, digest: str) -> ModelVersion | None:
        wanted = f"name = '{self._registered_model}' AND tags.{_DIGEST} = '{digest}'"
        found = self._client.search_model_versions(wanted, max_results=1)
        return found[0] if found else None


def _require_database(uri: str) -> None:
    """Connect once if `uri` is that of a database with a server: MLflow would repeat what fails for two minutes.

    Raises TrackingFailed, SQLAlchemyError, ValueError.
    """
    if urlsplit(uri).scheme.partition("+")[0] not in _PORTS:
        return
    address = sqlalchemy.make_url(uri)
    place = "the database"
    if address.host:  # otherwise it is a socket of this machine, or the query names the hosts
        port = address.port or _PORTS[address.get_backend_name()]
        place = (
            f"{address.host.rpartition('@')[2]}, port {port},"  # a wrong URI has a part of the password before the @
        )
        try:
            socket.create_connection((address.host, port), _ANSWERS_WITHIN_SECONDS).close()
        except OSError as error:
            reason = error.strerror or error
            raise TrackingFailed(f"MLflow: {place} does not answer ({reason}); look at MLFLOW_TRACKING_URI") from error
    try:
        engine = sqlalchemy.create_engine(uri)
    except ModuleNotFoundError as error:
        raise TrackingFailed(
            f"MLflow: the driver {error.name} is not installed; install it, or look at MLFLOW_TRACKING_URI"
        ) from error
    try:
        engine.connect().close()
    except sqlalchemy.exc.DBAPIError as error:
        raise TrackingFailed(
            f"MLflow: {place} rejects the connection; look at user, password and database in MLFLOW_TRACKING_URI"
        ) from error
    finally:
        engine.dispose()


@contextmanager
def _translated(uri: str) -> Iterator[None]:
    try:
        yield
    except (MlflowException, requests.exceptions.RequestException, sqlalchemy.exc.SQLAlchemyError, OSError) as error:
        raise TrackingFailed(f"MLflow: {what_failed(error, uri)}") from error
    except ValueError as error:  # of a URI that its parts or its driver cannot read
        if "@" not in uri:
            raise
        raise TrackingFailed(f"MLflow: {what_failed(error, uri)}; look at MLFLOW_TRACKING_URI") from None
