"""`python -m jobs.describe FILE.csv[.gz]`: the table of statistics that synthetic transactions are made from.

public_statistics.json was made from a sample of the public credit-card data with `--fraud-share 0.00173`.
"""

import argparse
import gzip
import logging
import sys
from pathlib import Path

import numpy as np

from fraud_detection import logs
from fraud_detection.features import BadFeatureList, FeatureList, load_features
from fraud_detection.model import AmountScaling, write_whole
from jobs.synthetic import BadStatistics, Transactions, describe, to_json

PUBLIC_SCALING = AmountScaling(88.35, 250.12)  # of the whole public data set, 284,807 transactions

logger = logging.getLogger(__name__)


def read_labelled(path: Path, features: FeatureList, scaling: AmountScaling) -> Transactions:
    """Read a CSV file, gzipped or not, whose first line names the features and `Class`; other columns are ignored.

    Where Amount_scaled is wanted and only Amount is there, it is scaled.

    Raises BadStatistics.
    """
    try:
        with gzip.open(path, "rt", encoding="utf-8") if path.suffix == ".gz" else path.open(encoding="utf-8") as file:
            header = [name.strip().strip('"') for name in file.readline().split(",")]
            columns = np.loadtxt(file, delimiter=",", quotechar='"', ndmin=2)
    except (OSError, ValueError) as error:
        raise BadStatistics(f"{path}: cannot be read as numbers separated by commas ({error})") from error
    by_name = dict(zip(header, columns.T, strict=False))
    if "Amount" in by_name:
        scaled = (by_name["Amount"] - scaling.mean) / scaling.standard_deviation
        by_name.setdefault("Amount_scaled", scaled)
    missing = [name for name in (*features.names, "Class") if name not in by_name]
    if missing:
        raise BadStatistics(f"{path}: expected a column {missing[0]}, got {', '.join(header)}")
    return Transactions(np.column_stack([by_name[name] for name in features.names]), by_name["Class"] == 1)


def main(arguments: list[str] | None = None) -> int:
    """Run from the command line and return the exit code."""
    logs.configure("INFO", "auto")
    parser = argparse.ArgumentParser(prog="python -m jobs.describe", description=__doc__)
    parser.add_argument("file", type=Path, help="labelled transactions: CSV, also gzipped")
    parser.add_argument("--features-file", type=Path, help="the feature list, as in FEATURES_FILE")
    parser.add_argument("--out", type=Path, required=True, help="the table to write")
    parser.add_argument(
        "--fraud-share", type=float, help="share of fraud in real traffic, where the file holds another (0 to 1)"
    )
    given = parser.parse_args(arguments)
    try:
        features = load_features(given.features_file)
        scaled = "Amount_scaled" in features.names
        statistics = describe(
            read_labelled(given.file, features, PUBLIC_SCALING),
            features,
            source=given.file.name,
            fraud_share=given.fraud_share,
            amount_scaling=PUBLIC_SCALING if scaled else None,
        )
    except (BadFeatureList, BadStatistics) as error:
        logger.error("%s", error)  # noqa: TRY400  the message is for a person, a traceback is not
        return 3
    write_whole(given.out, to_json(statistics).encode())
    logger.info("%s: statistics of %s features in two classes", given.out, len(features))
    return 0


if __name__ == "__main__":
    sys.exit(main())
