"""Writes labelled synthetic transactions, for demonstrations."""

from typing import BinaryIO, TextIO

from jobs.exchange.write_table import TableWriter
from jobs.installation import Installation
from jobs.progress import bar
from jobs.synthetic.statistics import statistics_for
from jobs.synthetic.transactions import synthetic


def write_demo_data(
    out: TextIO | BinaryIO, here: Installation, *, rows: int, seed: int, fraud_share: float | None = None
) -> int:
    """Write `rows` transactions and return how many of them are fraud; the same seed gives the same transactions.

    They are drawn from the same statistics as the baseline's, with other random numbers. A text stream gets CSV, a
    binary one Parquet.

    Raises BadStatistics, DatabaseRefused.
    """
    made = synthetic(rows, seed, fraud_share=fraud_share, statistics=statistics_for(here))
    columns = {"transaction_id": str, **dict.fromkeys(here.features.names, float), "Class": int}
    with TableWriter(out, columns) as table:
        drawn = bar(
            zip(made.matrix.tolist(), made.is_fraud.tolist(), strict=True), desc="writing", unit=" rows", total=rows
        )
        for place, (numbers, is_fraud) in enumerate(drawn):
            table.add([f"demo-{seed}-{place}", *(float(f"{number:.6g}") for number in numbers), int(is_fraud)])
    return int(made.is_fraud.sum())
