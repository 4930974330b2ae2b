"""Defines what a retraining returns: outcome, paragraph, exit code, and metrics."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, get_args

from fraud_detection.exit_codes import ExitCode
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
