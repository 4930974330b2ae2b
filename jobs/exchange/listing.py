"""Writes stored transactions as a table, for analysts and their spreadsheets."""

from contextlib import closing
from typing import BinaryIO, TextIO

from fraud_detection.schema import columns_of_requests
from fraud_detection.store import history
from jobs.exchange.write_table import TableWriter
from jobs.installation import Installation
from jobs.progress import bar


def write_transactions(
    out: TextIO | BinaryIO,
    here: Installation,
    *,
    unlabelled_only: bool = False,
    since: str = "",
    limit: int | None = None,
) -> int:
    """Write the transactions of the API's store, from a snapshot, and return how many there are.

    A text stream gets CSV, a binary one Parquet.

    `unlabelled_only` writes decisions without a label, the highest scores first, with an empty column is_fraud. When
    you have filled it in, `label_file` reads the file.

    Raises DatabaseRefused.
    """
    store = here.open_store()
    kinds = {column.name: column.type.python_type for column in columns_of_requests(here.features.names)}
    columns = {shown: kinds[name] for shown, name in history.listed_columns(here.features).items()} | {
        "label_source": str
    }
    written = 0
    with closing(store), history.snapshot(store) as connection, TableWriter(out, columns) as table:
        rows = history.listing(store, connection, unlabelled_only=unlabelled_only, since=since, limit=limit)
        for row in bar(rows, desc="writing", unit=" rows"):
            table.add([row[name] for name in columns])
            written += 1
    return written
