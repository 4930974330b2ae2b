"""Looks an installation through, its store and its model, and says what is wrong."""

from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from fraud_detection.database import DatabaseRefused, reachable
from fraud_detection.model.read import ModelRefused
from fraud_detection.store import upkeep
from jobs.installation import Installation


@dataclass(frozen=True)
class Finding:
    """What was looked at, and what is wrong with it; nothing when it is well."""

    what: str
    problems: list[str]


def check(here: Installation) -> list[Finding]:
    """Look every store and the current model through; whatever is wrong is a finding, nothing raises.

    Safe while the API runs, whose write-ahead log grows meanwhile: a large SQLite file takes seconds.
    """
    findings = [_check_store(location, here) for location in here.settings.store_locations]
    try:
        model = here.served_model()
        findings.append(Finding(f"model {model.version}", []))
    except ModelRefused as error:
        findings.append(Finding("model", [str(error)]))
    return findings


def _check_store(location: str | Path, here: Installation) -> Finding:
    where = str(location) if isinstance(location, Path) else "PostgreSQL"
    try:
        store = here.open_store(location)
        with closing(store), reachable(location), store.begin() as connection:
            return Finding(f"{where} ({store.count_rows(connection):,} rows)", upkeep.problems(store, connection))
    except DatabaseRefused as error:
        if error.reason == "missing" and location == here.settings.train_db != here.settings.latest_db:
            return Finding(f"{where} (nothing was imported yet)", [])
        return Finding(where, [str(error).removeprefix(f"{where}: ")])
