"""What a retraining can end with: the values of the metric fraud_retrain_outcome, in the log and in the answers."""

from typing import Literal, get_args

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
