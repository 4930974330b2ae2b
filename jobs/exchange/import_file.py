"""Imports labelled history into a store: transactions from before this installation, as CSV or Parquet."""

import hashlib
import json
from collections.abc import Collection, Iterable, Iterator
from contextlib import closing
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from pathlib import Path

import sqlalchemy as sa

from fraud_detection.clock import Clock, timestamp
from fraud_detection.contract import AMOUNT_SCALING
from fraud_detection.exit_codes import ExpectedError
from fraud_detection.features import FeatureList
from fraud_detection.lock import alone_with_file
from fraud_detection.model.files import CURRENT
from fraud_detection.model.manifest import AmountScaling
from fraud_detection.model.read import current_version, read_manifest
from fraud_detection.store import Store, transfer
from fraud_detection.store.known import KnownRows
from fraud_detection.store.transfer import ImportedRows
from jobs.exchange.table import BadTransactionFile
from jobs.exchange.transaction_file import PUBLIC_START, Layout, Page, amount_scaling_of, pages, read_layout
from jobs.installation import Installation
from jobs.progress import bar


class AlreadyImported(ExpectedError):
    """The same history was imported before; the message says when."""


@dataclass(frozen=True)
class Imported:
    """Counts and times of the rows that were new, and counts of those that were not."""

    rows: int
    frauds: int
    genuine: int
    first_ts: str
    """Empty if no row was new, as is `last_ts`."""
    last_ts: str
    known: int
    """Rows that were stored before; they did not come in again."""
    labels_added: int
    """Labels that the file gave to known rows, or to equal rows of its own that contradict each other."""
    scaling: AmountScaling | None
    """How the amounts were scaled; None if the file had them scaled."""

    @property
    def unknown(self) -> int:
        """Return the number of rows without a label."""
        return self.rows - self.frauds - self.genuine


class _Tally:
    """Counts pages on their way into the store."""

    def __init__(self) -> None:
        self.frauds = self.genuine = 0
        self.first_ts = self.last_ts = ""

    def counted(self, pages: Iterable[ImportedRows]) -> Iterator[ImportedRows]:
        """Count each page and pass it on."""
        for page in pages:
            self.frauds += sum(is_fraud is True for is_fraud in page.is_fraud)
            self.genuine += sum(is_fraud is False for is_fraud in page.is_fraud)
            if page.ts:
                self.first_ts = min(self.first_ts or page.ts[0], *page.ts)
                self.last_ts = max(self.last_ts, *page.ts)
            yield page


def import_file(
    path: Path,
    here: Installation,
    *,
    now: datetime,
    start: datetime = PUBLIC_START,
    ignored: Collection[str] = (),
    again: bool = False,
) -> Imported:
    """Import a file into the store of imported history, which is created if it does not exist: all of it or nothing.

    A plain Amount is scaled as the stores of the installation say, else as the current model, else by this file's own
    amounts. The store keeps that scaling for later imports, and the API's store for the first model. The same file (by
    its sha256) is not imported twice unless `again`, and of another file only those rows come in that are not stored
    yet.

    Raises BadTransactionFile, AlreadyImported, StoreInUse, DatabaseRefused, ModelRefused.
    """
    features, location = here.features, here.settings.train_location
    layout = read_layout(path, features, ignored=ignored)
    with alone_with_file(location), here.store_to_fill(location) as store, store.begin() as connection:
        remember_import(store, connection, file_sha256(path), path.name, now, again=again)
        scaling = _scaling(store, connection, path, layout, here)
        read = _with_progress(
            path, layout, pages(path, features, layout, scaling=scaling, start=start), latest_time(now)
        )
        done = import_rows(
            store,
            connection,
            read,
            path.name,
            now,
            again=again,
            has_times=layout.has_times,
            scaling=scaling,
        )
        if scaling is not None and not here.has_model() and len(here.settings.store_locations) > 1:
            # Last, so that an import which fails fixes none. The API knows its own store alone.
            with closing(here.create_store(here.settings.store_location)) as of_the_api, of_the_api.begin() as writing:
                of_the_api.set_meta(writing, AMOUNT_SCALING, json.dumps(asdict(scaling)))
        return done


def import_rows(
    store: Store,
    connection: sa.Connection,
    pages_read: Iterable[ImportedRows],
    name: str,
    now: datetime,
    *,
    again: bool,
    has_times: bool,
    scaling: AmountScaling | None = None,
) -> Imported:
    """Insert the rows that are not stored yet, or all of them `again`; `name` becomes the reporter of their labels."""
    received_at = timestamp(now)
    stored = KnownRows(store, connection, reporter=name, received_at=received_at, again=again, has_times=has_times)
    tally = _Tally()
    new = tally.counted(map(stored.take_out, pages_read))
    rows = transfer.import_history(store, connection, new, reporter=name, received_at=received_at)
    stored.settle()
    return Imported(
        rows,
        tally.frauds,
        tally.genuine,
        tally.first_ts,
        tally.last_ts,
        stored.known,
        stored.labels_added,
        scaling,
    )


def remember_import(
    store: Store, connection: sa.Connection, sha256: str, name: str, now: datetime, *, again: bool
) -> None:
    """Record that a history is imported; raises AlreadyImported if it was before, unless `again`."""
    key = f"import:{sha256}"
    known = store.get_meta(connection, key)
    if known is not None and not again:
        before = json.loads(known)
        raise AlreadyImported(
            f"{name}: was imported before, as {before['name']} at {before['at']}, so nothing was imported now. With "
            "--again every row comes in once more, and a transaction that is still stored then counts twice."
        )
    store.set_meta(connection, key, json.dumps({"name": name, "at": timestamp(now)}))


def file_sha256(path: Path) -> str:
    """Return the sha256 of a file that may be larger than memory."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _scaling(
    store: Store, connection: sa.Connection, path: Path, layout: Layout, here: Installation
) -> AmountScaling | None:
    if layout.amount_place is None:
        return None
    known = store.get_meta(connection, AMOUNT_SCALING)
    if known is not None:
        return AmountScaling(**json.loads(known))
    scaling = (
        _scaling_of_another_store(here)
        or _scaling_of_model_in_service(here.models_dir, store.features)
        or amount_scaling_of(path, layout)
    )
    store.set_meta(connection, AMOUNT_SCALING, json.dumps(asdict(scaling)))
    return scaling


def _scaling_of_another_store(here: Installation) -> AmountScaling | None:
    with here.stores(may_be_none=True) as stores:
        for store in stores:
            with store.begin() as connection:
                known = store.get_meta(connection, AMOUNT_SCALING)
            if known is not None:
                return AmountScaling(**json.loads(known))
    return None


def _scaling_of_model_in_service(models_dir: Path, features: FeatureList) -> AmountScaling | None:
    if current_version(models_dir) is None:
        return None
    # If it cannot be read, the import fails: a scaling from this file would not be the one that the model expects.
    manifest = read_manifest(models_dir / CURRENT)
    return manifest.amount_scaling if manifest.features_digest == features.digest else None


def latest_time(now: datetime) -> str:
    """Return the latest time that history may have: a day from now, because clocks and time zones can be wrong."""
    return timestamp(now + timedelta(days=1))


def _with_progress(path: Path, layout: Layout, read: Iterable[Page], latest: str) -> Iterator[ImportedRows]:
    clock = Clock()
    with bar(total=path.stat().st_size, desc=path.name, unit="B", unit_scale=True) as drawn:
        for page in read:
            for line, ts in zip(page.lines, page.ts, strict=True):
                if ts > latest:
                    raise BadTransactionFile(
                        f"{path}, {layout.unit} {line}: expected a time that is not in the future, got {ts[:19]}"
                    )
            yield imported_rows(page, clock)
            drawn.update(page.bytes_read - drawn.n)


def imported_rows(page: Page, clock: Clock) -> ImportedRows:
    """Return a page with a new request id: the store keeps its rows as those of one request."""
    _, request_id = clock.tick()
    return ImportedRows(request_id, page.ts, page.matrix, page.is_fraud, page.transaction_ids)
