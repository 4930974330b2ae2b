"""Checks the stores and the model of an installation, and reports problems."""

from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from fraud_detection.counted import counted
from fraud_detection.database import DatabaseRefused, reachable
from fraud_detection.environment import BadSetting
from fraud_detection.lock import PROMOTER_LOCK
from fraud_detection.model.read import ModelRefused, journal
from fraud_detection.regular_file import MADE_ANEW, wrong_kind
from fraud_detection.store import upkeep
from fraud_detection.vanished import WAYS_OUT, Mark
from jobs.installation import Installation
from jobs.progress import step
from jobs.upkeep.backup import keys_of


@dataclass(frozen=True)
class Finding:
    """One part of the installation and its problems; none if it is in order."""

    what: str
    problems: list[str]


def check(here: Installation) -> list[Finding]:
    """Check every store and the current model; problems are findings, never exceptions.

    The API may run meanwhile; its write-ahead log grows, because checking a large SQLite file takes seconds.
    """
    mark = Mark.of(here.settings)
    vanished = None if mark is None else mark.found
    findings = [] if vanished is None else [Finding("start of the API", [f"{vanished}; {WAYS_OUT}"])]
    for location in here.settings.store_locations:
        findings.append(_check_store(location, here, has_vanished=vanished is not None))
    try:
        model = here.served_model()
        findings.append(Finding(f"model {model.version}", []))
    except ModelRefused as error:
        findings.append(Finding("model", [str(error)]))
    problems = _problems_beside_the_models(here.settings.models_dir)
    if problems:
        findings.append(Finding("changes of the models", problems))
    try:
        keys_of(here.settings)
    except BadSetting as error:
        findings.append(Finding("encrypted backups", [str(error)]))
    return findings


def _problems_beside_the_models(models_dir: Path) -> list[str]:
    """Return why a job could not change the models, or a backup not copy their journal."""
    problems = []
    try:
        journal(models_dir)
    except ModelRefused as error:
        problems.append(str(error))
    lock = wrong_kind(models_dir / PROMOTER_LOCK, MADE_ANEW)
    return problems if lock is None else [*problems, lock]


def _check_store(location: str | Path, here: Installation, *, has_vanished: bool) -> Finding:
    where = str(location) if isinstance(location, Path) else "PostgreSQL"
    try:
        store = here.open_store(location)
        with closing(store), reachable(location), store.begin() as connection:
            with step(f"checking {where}"):
                problems = upkeep.problems(store, connection)
            return Finding(f"{where} ({counted(store.count_rows(connection), 'row')})", problems)
    except DatabaseRefused as error:
        if error.reason == "missing" and location == here.settings.train_db != here.settings.latest_db:
            return Finding(f"{where} (no history was imported yet)", [])
        if error.reason == "missing" and has_vanished and location == here.settings.latest_db:
            return Finding(where, [f"no database there; {WAYS_OUT}"])
        return Finding(where, [str(error).removeprefix(f"{where}: ")])
