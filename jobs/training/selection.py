"""Selects the transactions that train a challenger and those that judge it, or says what is missing."""

import hashlib
import logging
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from fraud_detection.clock import CLOCK_DIFFERENCE, timestamp
from fraud_detection.counted import counted
from fraud_detection.model.manifest import Manifest
from fraud_detection.settings import JobSettings
from fraud_detection.store.history import History
from jobs.training.outcome import RetrainOutcome
from jobs.training.truth import Known, Split, derived_labels, split, truly_labelled

MIN_TRAINING_ROWS = 100
MIN_TRAINING_FRAUDS = 10  # and as many genuine ones; with fewer a forest overfits

_LABEL = (
    "Say what transactions turned out to be: `POST /labels`, `fraudctl label`, `fraudctl import-labels FILE`, or "
    "import history that has a Class column (`fraudctl import FILE`)."
)

logger = logging.getLogger(__name__)


class Held(Exception):
    """Too few labels to train or to judge, or none that is new; `outcome` says which, the message what to do."""

    def __init__(self, outcome: RetrainOutcome, message: str) -> None:
        super().__init__(message)
        self.outcome: RetrainOutcome = outcome


@dataclass(frozen=True)
class Selection:
    """What trains and what judges, and whether labels are true or the previous model's decisions."""

    training: Known
    holdout: Known
    label_source: Literal["true", "derived"]

    def fingerprint(self) -> str:
        """Return a digest of which transactions are labelled and how, so that the next run sees whether any is new."""
        digest = hashlib.sha256()
        for part in (self.training, self.holdout):
            for column in (part.history.request_id, part.history.row_index, part.is_fraud):
                digest.update("\n".join(map(str, column.tolist())).encode() + b"\n")
        return digest.hexdigest()


def select(history: History, served: Manifest | None, settings: JobSettings, now: datetime) -> Selection:
    """Select from everything that is stored.

    Takes only true labels; derived ones only if there is no true one and ALLOW_DERIVED_LABELS is set. A transaction
    with a time ahead of now is left out: it was stored while a clock was wrong, and would be the newest for long.

    Raises Held.
    """
    is_past = history.ts <= timestamp(now + CLOCK_DIFFERENCE)
    if not is_past.all():
        logger.warning("%d transactions have a time ahead of now and are left out", len(history) - int(is_past.sum()))
        history = history.take(is_past)  # only then, because it copies
    known = truly_labelled(
        history,
        cutoff=now,
        maturity_days=settings.label_maturity_days,
        negatives_by_maturity=settings.negatives_by_maturity,
    )
    label_source: Literal["true", "derived"] = "true"
    if len(known) == 0:
        if not settings.allow_derived_labels:
            raise Held("held_derived", _nothing_is_known(history, settings))
        known, label_source = derived_labels(history), "derived"
    _require_both_classes(known, history, label_source, settings)
    parts = split(known, trained_until=_trained_until(served), min_frauds=settings.gate_min_frauds)
    _require_enough(parts, label_source, served, settings)
    return Selection(parts.training, parts.holdout, label_source)


def _trained_until(served: Manifest | None) -> str | None:
    if served is None or not served.training_window:
        return None
    return min(served.training_window[1], served.created)  # nothing is newer than the model, whatever time was stored


def _nothing_is_known(history: History, settings: JobSettings) -> str:
    if len(history) == 0:
        return f"No transaction is stored yet. {_LABEL}"
    return (
        f"No true label counts yet, among {counted(len(history), 'stored transaction')}. "
        f"{_unsettled(history, settings)}The model's own decisions are no labels: a model that learns from them learns "
        f"to agree with the previous one, and finds less fraud each time. {_LABEL}"
    )


def _unsettled(history: History, settings: JobSettings) -> str:
    unsettled = int((history.is_fraud == 0).sum())
    if not unsettled:
        return ""
    return (
        f"Not counted yet: {unsettled:,} labelled as genuine and younger than LABEL_MATURITY_DAYS "
        f"({settings.label_maturity_days:g}); a report may still come. "
    )


def _require_both_classes(known: Known, history: History, label_source: str, settings: JobSettings) -> None:
    rows = len(known)
    if 0 < known.frauds < rows:
        return
    if rows == 0:
        raise Held("held_rows", "No transaction was scored yet, so there are no decisions to train on.")
    if label_source == "derived":
        flagged = "flagged all" if known.frauds else "flagged none"
        raise Held(
            "held_one_class",
            f"The current model {flagged} of {counted(rows, 'transaction')}, so its decisions cannot train a model.",
        )
    if known.frauds == 0:
        raise Held(
            "held_one_class",
            f"Every transaction with a settled true label ({rows:,}) is genuine; frauds are needed too. {_LABEL}",
        )
    raise Held(
        "held_one_class",
        f"Every transaction with a settled true label ({rows:,}) is a fraud. "
        f"{_unsettled(history, settings)}{_only_frauds(settings)}",
    )


def _only_frauds(settings: JobSettings) -> str:
    if settings.negatives_by_maturity:
        return (
            "NEGATIVES_BY_MATURITY is set, but no transaction was scored, passed, and left without a report for "
            f"LABEL_MATURITY_DAYS ({settings.label_maturity_days:g}) yet: wait, or label genuine ones."
        )
    return (
        "A model needs genuine ones too. If every fraud is reported to you, set NEGATIVES_BY_MATURITY=true: a "
        "transaction that was scored, not flagged, and not reported within LABEL_MATURITY_DAYS "
        f"({settings.label_maturity_days:g}) counts as genuine. A flagged one never does, because a blocked payment is "
        "never reported. Otherwise label a random sample of genuine transactions as well."
    )


def _require_enough(parts: Split, label_source: str, served: Manifest | None, settings: JobSettings) -> None:
    training, holdout = parts.training, parts.holdout
    if label_source == "true" and holdout.frauds < settings.gate_min_frauds:
        raise Held("held_frauds", _too_few_to_judge(parts, _trained_until(served), settings.gate_min_frauds))
    if len(training) < MIN_TRAINING_ROWS:
        raise Held(
            "held_rows",
            f"Of {counted(len(training) + len(holdout), 'labelled transaction')}, the newest {len(holdout):,} judge a "
            f"new model and {len(training):,} can train it; {MIN_TRAINING_ROWS} are needed to train. {_LABEL}",
        )
    if training.frauds < MIN_TRAINING_FRAUDS:
        raise Held(
            "held_frauds",
            f"Of {counted(training.frauds + holdout.frauds, 'known fraud')}, {holdout.frauds:,} are among the newest "
            f"transactions, which judge a new model, and {training.frauds:,} can train it; {MIN_TRAINING_FRAUDS} are "
            "needed to train. Label frauds among older transactions, or import older history (`fraudctl import FILE`).",
        )
    genuine, judging = len(training) - training.frauds, len(holdout) - holdout.frauds
    if genuine < MIN_TRAINING_FRAUDS or judging == 0:
        raise Held(
            "held_one_class",
            f"Of {counted(genuine + judging, 'transaction')} known to be genuine, {judging:,} are among the newest, "
            f"which judge a new model, and {genuine:,} can train it; 1 and {MIN_TRAINING_FRAUDS} are needed. "
            f"{_only_frauds(settings)}",
        )


def _too_few_to_judge(parts: Split, trained_until: str | None, min_frauds: int) -> str:
    training, holdout = parts.training, parts.holdout
    known, missing = training.frauds + holdout.frauds, min_frauds - holdout.frauds
    if trained_until is None or (len(training) and str(training.history.ts[-1]) > trained_until):
        judging, where = "The newest transactions judge a new model.", f"since {str(holdout.history.ts[0])[:10]}"
    else:
        judging = (
            f"The current model learned from transactions up to {trained_until[:10]}, so only newer ones can judge a "
            "new model."
        )
        where = "newer than that"
    if len(holdout) == 0:
        return (
            f"{judging} No label of a newer one counts yet, of {counted(known, 'known fraud')}; {min_frauds} frauds "
            f"are needed (GATE_MIN_FRAUDS): label {counted(missing, 'fraud')} among transactions {where}."
        )
    return (
        f"{judging} These hold {holdout.frauds:,} of {counted(known, 'known fraud')}; {min_frauds} are needed "
        f"(GATE_MIN_FRAUDS). Label {counted(missing, 'more fraud')} among transactions {where}: with fewer, chance "
        "decides which model looks better."
    )
