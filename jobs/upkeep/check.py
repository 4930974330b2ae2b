"""Looks an installation through, its store and its model, and says what is wrong."""

from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from fraud_detection.database import DatabaseRefused, reachable
from fraud_detection.features import FeatureList
from fraud_detection.model.read import ModelRefused, load
from fraud_detection.settings import JobSettings
from fraud_detection.store import Store


@dataclass(frozen=True)
class Finding:
    """What was looked at, and what is wrong with it; nothing when it is well."""

    what: str
    problems: list[str]


def check(settings: JobSettings, features: FeatureList) -> list[Finding]:
    """Look every store and the model in service through; whatever is wrong is a finding, nothing raises.

    Safe while the API runs, whose write-ahead log grows meanwhile: a large SQLite file takes seconds.
    """
    findings = [_check_store(location, settings, features) for location in settings.store_locations]
    try:
        model = load(settings.model_path, features)
        findings.append(Finding(f"model {model.version}", []))
    except ModelRefused as error:
        findings.append(Finding("model", [str(error)]))
    return findings


def _check_store(location: str | Path, settings: JobSettings, features: FeatureList) -> Finding:
    where = str(location) if isinstance(location, Path) else "PostgreSQL"
    try:
        store = Store.open(
            location, features, read_only=True, allow_network_filesystem=settings.allow_network_filesystem
        )
        with closing(store), reachable(location), store.begin() as connection:
            return Finding(f"{where} ({store.count_rows(connection):,} rows)", store.problems(connection))
    except DatabaseRefused as error:
        if error.reason == "missing" and location == settings.train_db != settings.latest_db:
            return Finding(f"{where} (nothing was imported yet)", [])
        return Finding(where, [str(error).removeprefix(f"{where}: ")])
