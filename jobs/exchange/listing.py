"""Writes stored transactions as CSV, for analysts and their spreadsheets."""

import csv
from contextlib import closing
from typing import TextIO

from tqdm import tqdm

from fraud_detection.store import listed_columns
from jobs.installation import Installation


def write_transactions(
    out: TextIO,
    here: Installation,
    *,
    unlabelled_only: bool = False,
    since: str = "",
    limit: int | None = None,
) -> int:
    """Write the transactions of the store that the API writes, from a snapshot, and return how many there are.

    `unlabelled_only` writes the scored ones of which nobody said what they are, the highest scores first, with an
    empty is_fraud column: filled in, the file is one that `label_file` reads.

    Raises DatabaseRefused.
    """
    store = here.open_store()
    writer = csv.DictWriter(out, [*listed_columns(here.features), "label_source"])
    writer.writeheader()
    written = 0
    with closing(store), store.snapshot() as connection:
        rows = store.listing(connection, unlabelled_only=unlabelled_only, since=since, limit=limit)
        for row in tqdm(rows, desc="writing", unit=" rows", delay=1, disable=None, leave=False):
            writer.writerow(row)
            written += 1
    return written
