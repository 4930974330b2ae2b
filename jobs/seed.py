"""`python -m jobs.seed`: train on synthetic transactions and write the baseline, the first model of an installation."""

import argparse
import logging
import os
import sys
from datetime import UTC, datetime
from pathlib import Path

from fraud_detection import logs
from fraud_detection.exit_codes import ExitCode, ExpectedError
from fraud_detection.settings import JobSettings
from jobs.installation import Installation
from jobs.synthetic.baseline import ROWS, seed_baseline
from jobs.synthetic.statistics import read_statistics, statistics_for

logger = logging.getLogger(__name__)


def main(arguments: list[str] | None = None) -> int:
    """Run from the command line and return the exit code: 0, 2 bad configuration, 3 statistics of other features."""
    parser = argparse.ArgumentParser(prog="python -m jobs.seed", description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("baseline"), help="the folder to write (default: %(default)s)")
    parser.add_argument("--rows", type=int, default=ROWS, help="transactions to train on (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=1, help="the same seed gives the same model (default: %(default)s)")
    parser.add_argument(
        "--statistics",
        type=Path,
        help="a table of jobs.describe (default: the public set's, or the history in the store)",
    )
    given = parser.parse_args(arguments)
    try:
        settings = JobSettings.from_env(os.environ)
        logs.configure(settings.log_level, settings.log_format)
        here = Installation.of(settings)
        manifest = seed_baseline(
            given.out,
            here.features,
            read_statistics(given.statistics) if given.statistics else statistics_for(here),
            threshold=settings.fraud_threshold,
            now=datetime.now(UTC),
            rows=given.rows,
            seed=given.seed,
        )
    except ExpectedError as error:
        logger.error("%s", error)  # noqa: TRY400  the message is for a person, a traceback is not
        return error.exit_code
    except FileExistsError as error:
        logger.error("%s", error)  # noqa: TRY400
        return ExitCode.UNUSABLE
    logger.info("%s: baseline %s, trained on %s synthetic rows", given.out, manifest.created, given.rows)
    return ExitCode.DONE


if __name__ == "__main__":
    sys.exit(main())
