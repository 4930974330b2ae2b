"""Erases a transaction everywhere it is stored, and reports what was erased and what cannot be reached."""

import time
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path

from fraud_detection.counted import counted
from fraud_detection.database.sqlite import empty_wal
from fraud_detection.features import Feature, FeatureList
from fraud_detection.model.read import ModelRefused, read_manifest, versions
from fraud_detection.settings import JobSettings
from fraud_detection.store import Store, decisions, upkeep
from jobs.drift.reference import forget_in_reference
from jobs.installation import Installation
from jobs.rollout.renew_golden import Renewed, renew_golden
from jobs.upkeep.backup import UNPACKED, delete_abandoned

_WAIT_FOR_READERS_MS = 2000
_ROWS_AT_ONCE = 500
_PAUSE_SECONDS = 0.1  # longer than SQLite's writers sleep before they try again, so that the API's turn comes


@dataclass
class Forgotten:
    """The rows that were erased, by place."""

    rows: int = 0
    labels: int = 0
    idempotency_keys: int = 0
    references: dict[str, int] = field(default_factory=dict)
    """Rows erased from the reference of each model version that held some."""
    unreadable: list[str] = field(default_factory=list)
    """Versions whose reference could not be searched, with the reason."""
    golden: Renewed = field(default_factory=Renewed)
    """Golden rows of earlier releases that were replaced."""
    still_in_log: list[str] = field(default_factory=list)
    """Stores whose write-ahead log could not be emptied because of a reader."""


def forget(identifier: str, here: Installation) -> Forgotten:
    """Erase what an identifier names, as `decisions.find` reads it: rows, labels and keys of every store, references.

    References come first, because only the stores know the keys in them: a killed run can then be repeated. The API
    may run.

    Raises LockHeld, DatabaseRefused.
    """
    done = Forgotten()
    with (
        here.promoter(),  # otherwise a running retraining could write the transaction into a new reference
        here.stores(read_only=False, may_be_none=True) as stores,
    ):
        delete_abandoned(here.models_dir, UNPACKED)  # a killed restore leaves the whole backup there
        # The key that it may be itself: references also hold rows that RETENTION_DAYS has deleted from the stores.
        keys: set[tuple[str, int | None]] = {decisions.key_in(identifier)}
        for store in stores:
            with store.begin() as connection:
                keys.update(decisions.rows_of(store, connection, identifier))
        _forget_in_references(here.models_dir, keys, done)
        done.golden = renew_golden(here)
        for store in stores:
            _forget_in_store(store, identifier, done)
    return done


def _forget_in_references(models_dir: Path, keys: set[tuple[str, int | None]], done: Forgotten) -> None:
    for version in versions(models_dir):
        try:
            # its own features: an older version may have other features than the installation
            names = read_manifest(models_dir / version).features
            features = FeatureList(tuple(Feature(name) for name in names))
            erased = forget_in_reference(models_dir, version, features, keys)
        except ModelRefused as error:
            done.unreadable.append(f"{version} ({error})")
        else:
            if erased:
                done.references[version] = erased


def _forget_in_store(store: Store, identifier: str, done: Forgotten) -> None:
    while True:
        with store.begin() as connection:
            erased = upkeep.forget(store, connection, identifier, _ROWS_AT_ONCE)
        if not erased.keys:
            break
        done.rows += len(erased.keys)
        done.labels += erased.labels
        done.idempotency_keys += erased.idempotency_keys
        time.sleep(_PAUSE_SECONDS)
    if isinstance(store.location, Path):
        # Even if nothing was erased: the log still holds the old pages if an earlier run was killed, or met a reader.
        with store.engine.connect() as connection:
            if not empty_wal(connection, busy_timeout_ms=_WAIT_FOR_READERS_MS):
                done.still_in_log.append(str(store.location))


def tell(identifier: str, done: Forgotten, settings: JobSettings, *, now: datetime, nights: int) -> str:
    """Return a text that says what was erased and what stays; a backup is kept for so many nights."""
    if done.rows == 0:
        lines = [f"{identifier}: nothing is stored under this id."]
        if not done.references:
            lines.append(
                "If RETENTION_DAYS has deleted the transaction, the reference of a model may still hold its features, "
                "without the id of your client. Run this command with the request_id and row that the API answered, "
                "as REQUEST_ID:ROW, to delete it there."
            )
    else:
        lines = [
            f"{identifier}: erased {counted(done.rows, 'stored row')} with features and scores, "
            f"{counted(done.labels, 'label')} and {counted(done.idempotency_keys, 'idempotency key')}."
        ]
    lines += [
        f"Erased {counted(rows, 'row')} from the reference of {version}." for version, rows in done.references.items()
    ]
    lines += [f"NOT searched: the reference of {version}." for version in done.unreadable]
    lines += [
        f"The write-ahead log of {location} still holds old pages because another process is reading. The running API "
        "overwrites them soon; to empty the log now, run this command again."
        for location in done.still_in_log
    ]
    if settings.database_url:
        lines.append("PostgreSQL keeps erased rows in its files until VACUUM has run.")
    else:
        lines.append(
            "NOT searched: unused parts of a database that an earlier release restored from a backup. They may hold "
            "rows that were erased before it. To rewrite the database, stop the API, then run `fraudctl db backup` "
            "and `fraudctl db restore --replace`."
        )
    if done.golden.versions or done.golden.runs:
        lines.append(
            "Replaced golden rows of an earlier release, which held values of transactions, in "
            f"{counted(len(done.golden.versions), 'version')} and {counted(done.golden.runs, 'run')} of MLflow."
        )
    lines += [f"NOT replaced: golden rows of an earlier release in {place}." for place in done.golden.failed]
    lines += [
        f"Out of reach: backups made until {now:%Y-%m-%d}. If you make one every night and keep {nights}, the last of "
        f"them is deleted on {now + timedelta(days=nights):%Y-%m-%d}. Delete other copies and exports yourself.",
        "A model keeps what it learned: a threshold of a forest lies between the values of two training rows. An "
        "adopted model of another kind, such as nearest neighbours, may hold whole rows: `fraudctl models show` says "
        "so. Of a model that an earlier release adopted it is unknown until you adopt its file again. The next "
        "retraining no longer uses this transaction.",
    ]
    return "\n".join(lines)
