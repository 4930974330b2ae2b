"""One installation as jobs and commands see it: settings and features, stores, models and their lock."""

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from fraud_detection.database import DatabaseRefused, reachable
from fraud_detection.database.engine import open_engine
from fraud_detection.database.sqlite import erase_file, forget_file, gone, require_database_file
from fraud_detection.features import FeatureList, load_features
from fraud_detection.lock import promoter
from fraud_detection.model.files import CURRENT
from fraud_detection.model.read import Model, journal, load
from fraud_detection.regular_file import no_folder
from fraud_detection.remembered import features_file, remember_features
from fraud_detection.settings import JobSettings
from fraud_detection.store import Store


@dataclass(frozen=True)
class Installation:
    """Settings of the jobs and features of a transaction; opens what belongs to them."""

    settings: JobSettings
    features: FeatureList

    @classmethod
    def of(cls, settings: JobSettings) -> Self:
        """Read the feature list of these settings; raises BadFeatureList."""
        return cls(settings, load_features(features_file(settings)))

    @property
    def models_dir(self) -> Path:
        """Return the folder of all model versions."""
        return self.settings.models_dir

    @property
    def mlflow_folder(self) -> Path:
        """Return the folder of MLflow's local store, used if MLFLOW_TRACKING_URI names no server."""
        return self.settings.latest_db.parent

    @property
    def no_model(self) -> str:
        """Return what to say to a user who starts with nothing, in another folder, or where no folder can be made."""
        return no_folder(self.models_dir) or (
            f"There is no model yet in {self.models_dir.absolute()}: `fraudctl serve --first-time` creates what is "
            "missing and starts the API. If you have labelled history, run `fraudctl import FILE` first"
        )

    def has_model(self) -> bool:
        """Return whether there is a current model, or a pickle of another program in its place, whatever its state."""
        return os.path.lexists(self.models_dir / CURRENT) or self.settings.model_path.exists()

    def is_empty(self) -> bool:
        """Return whether there is neither a model nor a store, and no file of a store was lost."""
        return not self.has_model() and all(
            isinstance(location, Path) and not location.exists() and gone(location) is None
            for location in self.settings.store_locations
        )

    def served_model(self) -> Model:
        """Load the current model; raises ModelRefused."""
        return load(self.settings.model_path, self.features)

    def journal(self) -> list[dict[str, Any]]:
        """Return what happened to the models, the oldest entry first."""
        return journal(self.models_dir)

    def open_store(self, location: str | Path | None = None, *, read_only: bool = True) -> Store:
        """Open one store, by default that of the API; raises DatabaseRefused."""
        return Store.open(
            self.settings.store_location if location is None else location,
            self.features,
            read_only=read_only,
            allow_network_filesystem=self.settings.allow_network_filesystem,
        )

    def create_store(self, location: str | Path) -> Store:
        """Open a store to write, creating it or migrating its tables if needed; raises DatabaseRefused."""
        store = self._create(location)
        remember_features(self.settings)
        return store

    @contextlib.contextmanager
    def store_to_fill(self, location: str | Path) -> Iterator[Store]:
        """Open a store as `create_store` does for the length of the block; if that fails, a new file is deleted again.

        An empty store would otherwise hold the installation to a feature list that its file did not fit.
        """
        new_file = location if isinstance(location, Path) and not location.exists() else None
        try:
            with contextlib.closing(self._create(location)) as store:
                yield store
        except BaseException:
            if new_file is not None:
                erase_file(new_file)
                forget_file(new_file)
            raise
        remember_features(self.settings)

    def _create(self, location: str | Path) -> Store:
        return Store.create_or_migrate(
            location, self.features, allow_network_filesystem=self.settings.allow_network_filesystem
        )

    @contextlib.contextmanager
    def stores(self, *, read_only: bool = True, may_be_none: bool = False) -> Iterator[list[Store]]:
        """Open every store for the length of the block, except SQLite files that do not exist yet.

        Raises DatabaseRefused, also when none of the stores exists, unless there `may_be_none`.
        """
        missing: list[DatabaseRefused] = []
        with contextlib.ExitStack() as stack:
            opened = []
            for location in self.settings.store_locations:
                try:
                    store = self.open_store(location, read_only=read_only)
                except DatabaseRefused as error:
                    if error.reason != "missing":
                        raise
                    missing.append(error)
                else:
                    opened.append(stack.enter_context(contextlib.closing(store)))
            if not opened and not may_be_none:
                raise missing[0]
            yield opened

    @contextlib.contextmanager
    def promoter(self) -> Iterator[None]:
        """Hold the right to change the models for the length of the block.

        Raises LockHeld, NotAFile, and DatabaseRefused if PostgreSQL cannot be reached or a store is no file.
        """
        database_url = self.settings.database_url
        for location in self.settings.store_locations:
            if isinstance(location, Path):  # otherwise a job would fail late, with MLflow's files beside a device
                require_database_file(location)
        if database_url is None:
            with promoter(self.models_dir):
                yield
            return
        engine = open_engine(database_url)
        try:
            with reachable(database_url), engine.connect():
                pass
            with promoter(self.models_dir, engine):
                yield
        finally:
            engine.dispose()
