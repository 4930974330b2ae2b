"""Defines what a retraining returns: outcome, paragraph, exit code, and metrics; keeps how the last one ended."""

import json
import logging
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Literal, get_args

from fraud_detection.clock import timestamp
from fraud_detection.exit_codes import ExitCode
from fraud_detection.model.files import NAMED_LIMIT_BYTES, read_regular, write_whole
from jobs.evaluation.gate import Verdict
from jobs.evaluation.measures import Evaluation

RetrainOutcome = Literal[
    "skipped",
    "held_rows",
    "held_frauds",
    "held_one_class",
    "held_derived",
    "rejected",
    "promoted",
    "failed",
    "restored",
]
RETRAIN_OUTCOMES: tuple[RetrainOutcome, ...] = get_args(RetrainOutcome)

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class RetrainFigures:
    """What a retraining measured; `champion` is None if there was no model to compare with."""

    label_source: Literal["true", "derived"]
    challenger: Evaluation
    champion: Evaluation | None
    training_labels: Mapping[str, int]  # how many each source gave


@dataclass(frozen=True)
class Retraining:
    """What a retraining did, for people and for programs."""

    outcome: RetrainOutcome
    paragraph: str
    exit_code: int = ExitCode.DONE
    version: str | None = None
    """The version that was promoted."""
    verdict: Verdict | None = None
    figures: RetrainFigures | None = None
    label_coverage: dict[str, float] | None = None


@dataclass(frozen=True)
class LastRetraining:
    """How the last retraining ended, whether it judged a model or not."""

    at: str
    outcome: str
    paragraph: str


def write_result(path: Path, done: Retraining, now: datetime) -> None:
    """Replace the last retrain_result.json; a failure is only logged, because the outcome matters more."""
    kept = LastRetraining(timestamp(now), done.outcome, done.paragraph)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, (json.dumps(asdict(kept), indent=2) + "\n").encode())
    except OSError as error:
        logger.warning("%s cannot be written (%s): `fraudctl status` shows an earlier run", path, error.strerror)


def read_result(path: Path) -> LastRetraining | None:
    """Read how the last retraining ended; None if there was none or its file is not valid."""
    try:
        found = json.loads(read_regular(path, NAMED_LIMIT_BYTES))
        return LastRetraining(str(found["at"]), str(found["outcome"]), str(found["paragraph"]))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        logger.warning("%s is not valid (%s): continuing as if no retraining had run", path, error)
        return None
