"""Deletes what an installation on SQLite has stored and learned, so that it can start over."""

import os
import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from fraud_detection.database.sqlite import erase_file, forget_file
from fraud_detection.environment import BadSetting
from fraud_detection.features import default_features
from fraud_detection.lock import alone_with, alone_with_models
from fraud_detection.model.files import CURRENT, JOURNAL, PICKLE, REFERENCE
from fraud_detection.model.read import versions
from fraud_detection.remembered import remembered_features
from fraud_detection.settings import JobSettings
from fraud_detection.vanished import Mark
from jobs.installation import Installation
from jobs.upkeep.backup import mlflow_paths


@contextmanager
def to_delete(settings: JobSettings) -> Iterator[list[Path]]:
    """Give the files, links and folders to delete, and keep every API and every job away for the length of the block.

    They are what the installation makes itself. Other files in its folders stay, and so do the token, the first model
    in BASELINE_DIR, and backups.

    Raises BadSetting, StoreInUse, LockHeld, NotAFile.
    """
    if settings.database_url is not None:
        raise BadSetting(
            "DATABASE_URL is set, and a reset deletes only what is on this machine. Drop that database yourself, then "
            "run this again without the variable"
        )
    here = Installation(settings, default_features())  # no list is read, because it may be what is wrong
    with ExitStack() as stack:
        for location in settings.store_locations:
            stack.enter_context(alone_with(location))
        stack.enter_context(alone_with_models(settings.models_dir))
        stack.enter_context(here.promoter())
        yield [path for path in _belongings(here) if os.path.lexists(path)]


def delete(paths: list[Path], settings: JobSettings) -> None:
    """Delete paths, and what marks a store as lost; run it again if it was interrupted."""
    for path in paths:
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            erase_file(path)
    for store in _stores(settings):
        forget_file(store)
    mark = Mark.of(settings)
    if mark is not None:
        mark.clear()


def _belongings(here: Installation) -> Iterator[Path]:
    settings, models = here.settings, here.models_dir
    yield from _stores(settings)
    yield from (models / name for name in (PICKLE, CURRENT, *versions(models), JOURNAL))
    if settings.mlflow_tracking_uri is None:
        yield from mlflow_paths(here)
    yield from (settings.drift_result, settings.retrain_result)
    links = (settings.latest_db.with_name(REFERENCE), remembered_features(settings))
    yield from (link for link in links if link.is_symlink())  # a file there is yours


def _stores(settings: JobSettings) -> list[Path]:
    return [Path(location) for location in settings.store_locations]
