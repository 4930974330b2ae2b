"""Sends a file of transactions to a running API, and writes the scores to a table."""

import contextlib
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, TextIO

from jobs.exchange.api_client import ApiClient, ApiRefused, Scored, rows_per_request
from jobs.exchange.table import BadTransactionFile
from jobs.exchange.transaction_file import Page, pages, read_layout
from jobs.exchange.write_table import TableWriter
from jobs.progress import bar

COLUMNS = {
    "line": int,
    "transaction_id": str,
    "request_id": str,
    "row": int,
    "fraud_probability": float,
    "is_flagged": int,
    "threshold": float,
    "model_version": str,
    "is_fraud": int,
}


@dataclass
class ScoredFile:
    """Counts of the decisions on a file; frauds and genuine ones count only rows that are labelled in the file."""

    rows: int = 0
    flagged: int = 0
    frauds: int = 0
    frauds_flagged: int = 0
    genuine: int = 0
    genuine_flagged: int = 0
    threshold: float = 0.0
    model_versions: dict[str, int] = field(default_factory=dict)
    """Rows that each version scored, in the order in which the versions served."""

    def add(self, scored: Scored, is_fraud: list[bool | None]) -> None:
        """Count the decisions of one reply."""
        said = list(zip(scored.is_flagged, is_fraud, strict=True))
        self.rows += len(said)
        self.flagged += sum(flagged for flagged, _ in said)
        self.frauds += is_fraud.count(True)
        self.genuine += is_fraud.count(False)
        self.frauds_flagged += sum(flagged and truth is True for flagged, truth in said)
        self.genuine_flagged += sum(flagged and truth is False for flagged, truth in said)
        self.threshold = scored.threshold
        self.model_versions[scored.model_version] = self.model_versions.get(scored.model_version, 0) + len(said)


def score_file(path: Path, client: ApiClient, *, run: str, out: TextIO | BinaryIO | None = None) -> ScoredFile:
    """Score every transaction of a file; columns that are not features are ignored.

    `run` names this attempt: if it stops early, run the same file with the same name to complete it; no row is
    stored twice. `out` gets a row for each transaction, a text stream as CSV, a binary one as Parquet. When its column
    is_fraud is filled in, `label_file` reads it.

    Raises BadTransactionFile, ApiRefused (the message names the line; earlier requests are stored), ApiAway.
    """
    served = client.served_model()
    layout = read_layout(path, served.features, strict=False)
    if layout.amount_place is not None and served.amount_scaling is None:
        raise BadTransactionFile(
            f"{path}: has a plain Amount, but the current model does not say how to scale it; "
            "give Amount_scaled instead"
        )
    total = ScoredFile()
    with (
        contextlib.nullcontext() if out is None else TableWriter(out, COLUMNS) as table,
        bar(total=path.stat().st_size, desc=path.name, unit="B", unit_scale=True) as drawn,
    ):
        for page in pages(path, served.features, layout, scaling=served.amount_scaling):
            for part in _parts(page, rows_per_request(served.features)):
                try:
                    scored = client.score(
                        part.matrix.tolist(), part.transaction_ids, idempotency_key=f"{run}-{part.lines[0]}"
                    )
                except ApiRefused as error:
                    named = re.search(r"\brow (\d+)\b", str(error))
                    if named is None:
                        raise
                    place = f"{path}, {layout.unit} {part.lines[int(named[1])]}"
                    raise ApiRefused(error.status, f"{place}: {error}", error.code) from error
                total.add(scored, part.is_fraud)
                if table is not None:
                    for row in _rows(part, scored):
                        table.add(row)
            drawn.update(page.bytes_read - drawn.n)
    return total


def _parts(page: Page, rows: int) -> Iterator[Page]:
    for start in range(0, len(page.lines), rows):
        part = slice(start, start + rows)
        yield Page(
            page.lines[part],
            page.matrix[part],
            page.ts[part],
            page.is_fraud[part],
            page.transaction_ids[part],
            page.bytes_read,
        )


def _rows(page: Page, scored: Scored) -> Iterator[tuple[object, ...]]:
    for row, (line, transaction_id, score, is_flagged, is_fraud) in enumerate(
        zip(
            page.lines,
            page.transaction_ids,
            scored.fraud_probability,
            scored.is_flagged,
            page.is_fraud,
            strict=True,
        )
    ):
        yield (
            line,
            transaction_id,
            scored.request_id,
            row,
            score,
            int(is_flagged),
            scored.threshold,
            scored.model_version,
            None if is_fraud is None else int(is_fraud),
        )
