"""Reads what drift compares: the newest transactions in two windows, their models, and the oldest reference."""

from datetime import datetime, timedelta

import numpy as np

from fraud_detection.clock import parse_timestamp, timestamp
from fraud_detection.features import Matrix
from fraud_detection.model.read import Model, ModelRefused, read_manifest, versions
from fraud_detection.store import history
from fraud_detection.store.history import DecisionCount, History
from jobs.drift.compare import Window
from jobs.drift.reference import read_reference
from jobs.installation import Installation

RELOAD = timedelta(seconds=5)  # within which a running API loads a promoted model


def newest_transactions(
    here: Installation, model_digest: str, since: str, until: str
) -> tuple[History, list[DecisionCount]]:
    """Return the rows of both windows, in order of time, and how often the model flagged between two moments.

    Raises DatabaseRefused.
    """
    store = here.open_store()
    try:
        with history.snapshot(store) as connection:
            newest = history.recent(store, connection, 2 * here.settings.drift_window_rows, since, until=until)
            return newest, history.decision_counts(store, connection, model_digest, since, until)
    finally:
        store.close()


def consecutive_windows(newest: History, model_digest: str) -> tuple[Window, Window]:
    """Cut transactions into an older and a newer window of the same size; of an odd number the oldest is left out."""
    size = len(newest) // 2
    middle = len(newest) - size
    return (
        _window(newest.take(np.arange(middle - size, middle)), model_digest),
        _window(newest.take(np.arange(middle, len(newest))), model_digest),
    )


def _window(rows: History, model_digest: str) -> Window:
    """Return one window; an empty one has no bounds."""
    start, end = (str(rows.ts[0]), str(rows.ts[-1])) if len(rows) else (None, None)
    scores = rows.fraud_probability[rows.model_digest == model_digest]
    return Window(rows.matrix, scores, start, end, rows.schema_version)


def other_model_serves(here: Installation, model: Model, newest: History) -> str | None:
    """Return a message if another model scores although this one was verified as serving; None otherwise.

    It checks only the newest rows, so that a repaired fault ends; a hundred, because one of several pods may be stuck.
    """
    verified = _verified_at(here, model.version)
    if verified is None:
        return None
    since = newest.model_digest[newest.ts > timestamp(verified + RELOAD)][-100:]
    strangers = np.unique(since[since != model.digest])
    if len(strangers) == 0:
        return None
    return (
        f"{model.version} was verified as serving at {timestamp(verified)}, yet transactions since then were scored "
        f"by another model (sha256 {str(strangers[0])[:12]}…): restart the API, or promote what should serve."
    )


def _verified_at(here: Installation, version: str) -> datetime | None:
    """Return when the newest promotion of a version was verified, None when it was not."""
    verified = None
    for entry in here.journal():
        if entry.get("event") in {"promoted", "restored"}:
            verified = None
        elif entry.get("event") == "verified" and entry.get("version") == version:
            verified = parse_timestamp(entry["at"])
    return verified


def first_reference(here: Installation) -> Matrix | None:
    """Return the oldest reference of real transactions that is still kept; None when there is none."""
    for version in versions(here.models_dir):
        try:
            manifest = read_manifest(here.models_dir / version)
            if manifest.trained_on == "synthetic" or manifest.features_digest != here.features.digest:
                continue
            reference = read_reference(here.models_dir / version, here.features)
        except ModelRefused:  # taken out of an old version to save space
            continue
        if len(reference):
            return reference
    return None
