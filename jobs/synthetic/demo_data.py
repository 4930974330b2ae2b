"""Writes made-up transactions with the truth about them, for trying things out."""

import csv
from typing import TextIO

from jobs.installation import Installation
from jobs.synthetic.statistics import statistics_for
from jobs.synthetic.transactions import synthetic


def write_demo_data(out: TextIO, here: Installation, *, rows: int, seed: int, fraud_share: float | None = None) -> int:
    """Write `rows` transactions as CSV and return how many of them are fraud; the same seed gives the same ones.

    They are drawn from the same statistics as the baseline's, with other random numbers.

    Raises BadStatistics, DatabaseRefused.
    """
    made = synthetic(rows, seed, fraud_share=fraud_share, statistics=statistics_for(here))
    writer = csv.writer(out)
    writer.writerow(["transaction_id", *here.features.names, "Class"])
    for place, (numbers, is_fraud) in enumerate(zip(made.matrix.tolist(), made.is_fraud.tolist(), strict=True)):
        writer.writerow([f"demo-{seed}-{place}", *(f"{number:.6g}" for number in numbers), int(is_fraud)])
    return int(made.is_fraud.sum())
