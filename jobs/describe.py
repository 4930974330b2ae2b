"""`python -m jobs.describe FILE.csv[.gz]`: the table of statistics that synthetic transactions are made from.

public_statistics.json was made from a sample of the public credit-card data with `--fraud-share 0.00173`.
"""

import argparse
import logging
import os
import sys
from pathlib import Path

import numpy as np

from fraud_detection import logs
from fraud_detection.contract import SCALED_AMOUNT
from fraud_detection.exit_codes import ExitCode, ExpectedError
from fraud_detection.features import FeatureList, load_features
from fraud_detection.model.files import write_whole
from fraud_detection.model.manifest import AmountScaling
from fraud_detection.remembered import features_file
from fraud_detection.settings import JobSettings
from jobs.exchange.transaction_file import pages, read_layout
from jobs.synthetic.statistics import PUBLIC_SCALING, describe, to_json
from jobs.synthetic.transactions import Transactions

logger = logging.getLogger(__name__)


def read_labelled(path: Path, features: FeatureList, scaling: AmountScaling) -> Transactions:
    """Read the labelled transactions of a CSV file; a plain Amount is scaled.

    Raises BadTransactionFile.
    """
    layout = read_layout(path, features, strict=False)
    rows, truths = [], []
    for page in pages(path, features, layout, scaling=scaling):
        rows.append(page.matrix)
        truths += page.is_fraud
    known = np.array([truth is not None for truth in truths])
    return Transactions(np.vstack(rows)[known], np.array([truth is True for truth in truths])[known])


def main(arguments: list[str] | None = None) -> int:
    """Run from the command line and return the exit code: 0, 2 bad configuration, 3 unusable transactions."""
    parser = argparse.ArgumentParser(prog="python -m jobs.describe", description=__doc__)
    parser.add_argument("file", type=Path, help="labelled transactions: CSV, also gzipped")
    parser.add_argument("--out", type=Path, required=True, help="the table to write")
    parser.add_argument(
        "--fraud-share", type=float, help="share of fraud in real traffic, if the file has another (0 to 1)"
    )
    given = parser.parse_args(arguments)
    try:
        settings = JobSettings.from_env(os.environ)
        logs.configure(settings.log_level, settings.log_format)
        features = load_features(features_file(settings))
        labelled = read_labelled(given.file, features, PUBLIC_SCALING)
        statistics = describe(
            labelled.matrix,
            labelled.is_fraud,
            features,
            source=given.file.name,
            fraud_share=given.fraud_share,
            amount_scaling=PUBLIC_SCALING if SCALED_AMOUNT in features.names else None,
        )
    except ExpectedError as error:
        logger.error("%s", error)  # noqa: TRY400  the message is for a person, a traceback is not
        return error.exit_code
    write_whole(given.out, to_json(statistics).encode())
    logger.info("%s: statistics of %s features in two classes", given.out, len(features))
    return ExitCode.DONE


if __name__ == "__main__":
    sys.exit(main())
