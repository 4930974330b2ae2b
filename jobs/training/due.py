"""Decides whether a retraining is due, from the journal, the drift result, their ages and the labels, and says it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa

from fraud_detection.clock import CLOCK_DIFFERENCE, parse_timestamp
from fraud_detection.counted import counted
from fraud_detection.database import DatabaseRefused
from fraud_detection.model.manifest import Manifest
from fraud_detection.settings import JobSettings
from fraud_detection.store.history import History
from jobs.drift.report import DriftFinding
from jobs.installation import Installation
from jobs.training.read_history import read_history
from jobs.training.selection import Held, Selection, select


@dataclass(frozen=True)
class Judgement:
    """The judgement of a challenger: when, on which labels, which drift report requested it, and how it ended."""

    at: datetime
    labels: str
    drift: str | None
    decision: str | None


@dataclass(frozen=True)
class Due:
    """Whether to train now, and why or why not: the end of a sentence."""

    is_due: bool
    why: str

    @property
    def sentence(self) -> str:
        """Return what the next retraining does, in the words that every command uses."""
        return f"{'The next retraining is due' if self.is_due else 'No retraining is due'}: {self.why}."


def last_judgement(journal: Sequence[Mapping[str, Any]]) -> Judgement | None:
    """Return the newest judgement of a retraining in promotions.jsonl, None if there was none.

    A model that was taken back before it was verified never served, which says nothing about it: its judgement does not
    count, so that the next run tries again.

    >>> verdict = {"labels": "of today", "drift": None}
    >>> promoted = {"at": "2026-01-01T03:00:00+00:00", "event": "promoted", "version": "new", "verdict": verdict}
    >>> verified = {"event": "verified", "version": "new"}
    >>> restored = {"event": "restored", "version": "old", "previous": "new"}
    >>> last_judgement([promoted, restored]) is None
    True
    >>> last_judgement([promoted, verified, restored]).labels  # rolled back by hand
    'of today'
    """
    taken_back: set[str | None] = set()
    for entry in reversed(journal):
        if entry.get("event") == "restored":
            taken_back.add(entry.get("previous"))
        elif entry.get("event") == "verified":
            taken_back.discard(entry.get("version"))
        verdict = entry.get("verdict") or {}
        if "labels" in verdict and not (entry.get("event") == "promoted" and entry.get("version") in taken_back):
            return Judgement(
                parse_timestamp(entry["at"]), verdict["labels"], verdict.get("drift"), verdict.get("decision")
            )
    return None


def rejections_in_a_row(journal: Sequence[Mapping[str, Any]]) -> int:
    """Return how many challengers the gate rejected since the last promotion.

    >>> refused, held = ({"event": "judged", "verdict": {"decision": decision}} for decision in ("reject", "hold"))
    >>> rejections_in_a_row([refused, {"event": "promoted"}, {"event": "verified"}, refused, held, refused])
    2
    """
    rejections = 0
    for entry in reversed(journal):
        if entry.get("event") in {"promoted", "restored"}:
            break
        rejections += (entry.get("verdict") or {}).get("decision") == "reject"
    return rejections


def next_retraining(
    here: Installation, served: Manifest | None, last: Judgement | None, drift: DriftFinding | None, now: datetime
) -> Due:
    """Return what `fraudctl retrain` would do now: `due`, but not while the stored labels can train nothing new.

    If a store cannot be read, the age and drift alone decide: the retraining will say what is wrong with it.
    """
    decision = due(served, last, drift, here.settings, now)
    if not decision.is_due:
        return decision
    try:
        history, _ = read_history(here, with_features=False)
        select_new(history, served, last, here.settings, now)
    except Held as held:
        return Due(False, f"{decision.why}, but nothing can be trained yet. {str(held).rstrip('.')}")
    except (DatabaseRefused, sa.exc.SQLAlchemyError):
        pass
    return decision


def select_new(
    history: History, served: Manifest | None, last: Judgement | None, settings: JobSettings, now: datetime
) -> Selection:
    """Select as `select` does; raises Held also if no label is new since the last judgement."""
    selection = select(history, served, settings, now)
    if last is not None and last.labels == selection.fingerprint():
        raise Held(
            "skipped",
            f"No label is new since the last judgement on {last.at:%Y-%m-%d}. "
            "Label newer transactions, or import history.",
        )
    return selection


def due(
    served: Manifest | None,
    last: Judgement | None,
    drift: DriftFinding | None,
    settings: JobSettings,
    now: datetime,
) -> Due:
    """Decide whether to train, whatever labels there are.

    While the synthetic baseline serves, every day; on drift that no judgement answered yet, unless the last one is
    younger than the cooldown; and regularly, RETRAIN_AFTER_DAYS after the last judgement, or after the current model
    was made if there was none. A judgement that a wrong clock dated ahead of now does not count.
    """
    if served is None or served.trained_on == "synthetic":
        return Due(True, "no model that learned from real transactions serves yet")
    judged, what = (
        (last.at, "last judgement") if last is not None else (parse_timestamp(served.created), "current model")
    )
    if judged > now + CLOCK_DIFFERENCE:  # otherwise nothing would be due until that time has come
        return Due(True, f"the {what} has a time ahead of now, so its age is unknown")
    why_not = _why_drift_starts_none(served, last, drift, settings, now)
    if why_not is None:
        return Due(True, "drift was reported")
    regular = judged + timedelta(days=settings.retrain_after_days)
    if now >= regular:
        return Due(True, f"the {what} is {counted((now - judged).days, 'day')} old")
    return Due(False, f"{why_not}, and the regular retraining is due on {regular:%Y-%m-%d}")


def after_judgement(served: Manifest | None, settings: JobSettings, now: datetime) -> str:
    """Return when the next retraining can train after one that judged at `now`; `served` serves from then on."""
    if served is None or served.trained_on == "synthetic":
        return "The next retraining tries again when a label is new."
    cooldown, regular = (
        now + timedelta(days=days) for days in (settings.retrain_cooldown_days, settings.retrain_after_days)
    )
    return (
        f"Drift can start the next retraining from {cooldown:%Y-%m-%d} on, when the cooldown ends "
        f"(RETRAIN_COOLDOWN_DAYS). Without drift it is due on {regular:%Y-%m-%d}. It also needs labels that are new."
    )


def _why_drift_starts_none(
    served: Manifest, last: Judgement | None, drift: DriftFinding | None, settings: JobSettings, now: datetime
) -> str | None:
    """Return why the drift report makes no training due; None if it does."""
    if drift is None or drift.state == "error":  # a run that could compare nothing may name no model
        return "no drift was reported"
    if drift.reference_digest != served.digest:
        return "the last drift report is about another model"
    if not drift.retrain:
        return "the last drift report asks for none"
    if last is not None and last.drift == drift.sha256:
        return "the last judgement answered the drift that was reported"
    rests_until = None if last is None else last.at + timedelta(days=settings.retrain_cooldown_days)
    if rests_until is not None and now < rests_until:
        return (
            "drift was reported, but the cooldown after the last judgement (RETRAIN_COOLDOWN_DAYS) ends at "
            f"{rests_until:%Y-%m-%d %H:%M} UTC"
        )
    return None
