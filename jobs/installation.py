"""What every job and command shares of an installation: the right to change its models."""

import contextlib
from collections.abc import Iterator

from fraud_detection.database import open_engine, reachable
from fraud_detection.lock import promoter
from fraud_detection.settings import JobSettings


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
