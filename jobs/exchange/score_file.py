"""Has a running API score a file of transactions, and writes down what it said."""

import csv
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TextIO

from tqdm import tqdm

from jobs.exchange.api_client import ApiClient, Scored, rows_per_request
from jobs.exchange.transaction_file import BadTransactionFile, Page, pages, read_layout

COLUMNS = (
    "line",
    "transaction_id",
    "request_id",
    "row",
    "fraud_probability",
    "is_flagged",
    "threshold",
    "model_version",
    "is_fraud",
)


@dataclass
class ScoredFile:
    """What the API said of a file; the counts of frauds and genuine ones only where the file knows them."""

    rows: int = 0
    flagged: int = 0
    frauds: int = 0
    frauds_flagged: int = 0
    genuine: int = 0
    genuine_flagged: int = 0
    threshold: float = 0.0
    model_versions: dict[str, int] = field(default_factory=dict)
    """Rows that each version scored, in the order in which they served."""

    def add(self, scored: Scored, is_fraud: list[bool | None]) -> None:
        """Count one answer."""
        said = list(zip(scored.is_flagged, is_fraud, strict=True))
        self.rows += len(said)
        self.flagged += sum(flagged for flagged, _ in said)
        self.frauds += is_fraud.count(True)
        self.genuine += is_fraud.count(False)
        self.frauds_flagged += sum(flagged and truth is True for flagged, truth in said)
        self.genuine_flagged += sum(flagged and truth is False for flagged, truth in said)
        self.threshold = scored.threshold
        self.model_versions[scored.model_version] = self.model_versions.get(scored.model_version, 0) + len(said)


def score_file(path: Path, client: ApiClient, *, run: str, out: TextIO | None = None) -> ScoredFile:
    """Score every transaction of a file; columns that are no features are passed over.

    `run` names this attempt: when it breaks off, the same file under the same name is completed and no row is stored
    twice. `out` gets a CSV line a transaction, which `label_file` can read back once the truth is filled in.

    Raises BadTransactionFile, ApiRefused, ApiAway.
    """
    served = client.served_model()
    layout = read_layout(path, served.features, strict=False)
    if layout.amount_place is not None and served.amount_scaling is None:
        raise BadTransactionFile(
            f"{path}: has a plain Amount, and the model in service does not say how to scale it; "
            "give Amount_scaled instead"
        )
    writer = None if out is None else csv.writer(out)
    if writer is not None:
        writer.writerow(COLUMNS)
    total = ScoredFile()
    with tqdm(
        total=path.stat().st_size, desc=path.name, unit="B", unit_scale=True, delay=1, disable=None, leave=False
    ) as bar:
        for page in pages(path, served.features, layout, scaling=served.amount_scaling):
            for part in _parts(page, rows_per_request(served.features)):
                scored = client.score(
                    part.matrix.tolist(), part.transaction_ids, idempotency_key=f"{run}-{part.lines[0]}"
                )
                total.add(scored, part.is_fraud)
                if writer is not None:
                    writer.writerows(_lines(part, scored))
            bar.update(page.bytes_read - bar.n)
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


def _lines(page: Page, scored: Scored) -> Iterator[tuple[object, ...]]:
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
        truth = "" if is_fraud is None else int(is_fraud)
        yield (
            line,
            transaction_id,
            scored.request_id,
            row,
            score,
            int(is_flagged),
            scored.threshold,
            scored.model_version,
            truth,
        )
