"""Decides whether a retraining is due, from the journal, the drift result and their ages: pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from fraud_detection.clock import CLOCK_DIFFERENCE, parse_timestamp
from fraud_detection.counted import counted
from fraud_detection.model.manifest import Manifest
from jobs.drift.report import DriftFinding


@dataclass(frozen=True)
class Judgement:
    """The judgement of a challenger: when, on which labels, and which drift report requested it."""

    at: datetime
    labels: str
    drift: str | None


@dataclass(frozen=True)
class Due:
    """Whether to train now, and why or why not: the end of a sentence."""

    is_due: bool
    why: str


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
            return Judgement(parse_timestamp(entry["at"]), verdict["labels"], verdict.get("drift"))
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


def due(
    served: Manifest | None,
    last: Judgement | None,
    drift: DriftFinding | None,
    *,
    now: datetime,
    after_days: float,
    cooldown_days: float,
) -> Due:
    """Decide whether to train.

    While the synthetic baseline serves, every day; on drift that no judgement answered yet, unless the
    last one is younger than the cooldown; and a month (`after_days`) after the last judgement, or after the model in
    service was made if there was none. A judgement that a wrong clock dated ahead of now does not count.
    """
    if served is None or served.trained_on == "synthetic":
        return Due(True, "no model that learned from real transactions serves yet")
    judged = last.at if last is not None else parse_timestamp(served.created)
    if judged > now + CLOCK_DIFFERENCE:  # otherwise nothing would be due until that time has come
        return Due(True, "the last judgement has a time ahead of now, so its age is unknown")
    if drift is not None and drift.retrain and drift.reference_digest == served.digest:
        if last is not None and last.drift == drift.sha256:
            why_not = "the last judgement answered the drift that was reported"
        elif last is not None and now - last.at < timedelta(days=cooldown_days):
            rests_until = last.at + timedelta(days=cooldown_days)
            why_not = (
                f"drift was reported, but the cooldown after the last judgement ends at {rests_until:%Y-%m-%d %H:%M}"
            )
        else:
            return Due(True, "drift was reported")
    else:
        why_not = "no drift was reported"
    if now - judged >= timedelta(days=after_days):
        return Due(True, f"the last judgement is {counted((now - judged).days, 'day')} old")
    return Due(False, f"{why_not}, and the monthly retraining is due on {judged + timedelta(days=after_days):%Y-%m-%d}")
