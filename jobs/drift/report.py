"""The result of a drift comparison: as drift_result.json, written and read, and as a paragraph for an analyst."""

import hashlib
import json
import logging
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from fraud_detection.model.files import read_regular
from jobs.drift.distance import FeatureChange

State = Literal["ok", "warn", "drift", "insufficient_data", "error"]
STATES: tuple[State, ...] = get_args(State)
Reason = Literal["error", "insufficient_data", "baseline_reference", "data_quality", "features", "alert_rate", "score"]
REASONS: tuple[Reason, ...] = get_args(Reason)

SCHEMA_VERSION = 1

_LIMIT_BYTES = 64 * 1024 * 1024  # far more than thousands of features need

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class FeatureDrift:
    """One feature in both windows."""

    name: str
    older: FeatureChange
    newer: FeatureChange
    d_since_first: float | None  # the newer window against the oldest kept reference; decides nothing

    @property
    def d(self) -> float:
        """Return the larger distance of the two windows."""
        return max(self.older.d, self.newer.d)

    @property
    def is_warned(self) -> bool:
        """Return whether it is in either window."""
        return self.older.is_warned or self.newer.is_warned


@dataclass(frozen=True)
class AlertRate:
    """The share of flagged transactions, when the model was judged and now."""

    holdout_rows: int
    holdout_alerts: int
    rows: int
    alerts: int
    ratio: float | None  # now / then; None when nothing was flagged then
    p: float  # Fisher's exact test, two-sided
    threshold_differs: bool  # then the two rates are not comparable, and no alarm is raised
    is_changed: bool


@dataclass(frozen=True)
class WindowBounds:
    """Which rows one window held."""

    rows: int
    scored_rows: int
    start: str | None
    end: str | None


@dataclass(frozen=True)
class Provenance:
    """Which model and which reference a report is about."""

    model_version: str
    reference_digest: str  # the model whose reference was compared with
    served_digest: str | None  # the model that the newest rows name; None without rows
    seed: int | None  # that drew the reference sample


@dataclass(frozen=True)
class DriftReport:
    """The findings; to_json() writes them as drift_result.json."""

    state: State
    reasons: tuple[Reason, ...]
    retrain: bool
    explanation: tuple[str, ...]  # a sentence for each reason
    notes: tuple[str, ...] = ()
    provenance: Provenance | None = None
    reference_rows: int = 0
    older: WindowBounds | None = None
    newer: WindowBounds | None = None
    features: tuple[FeatureDrift, ...] = ()
    alert_rate: AlertRate | None = None
    score_psi_older: float | None = None
    score_psi_newer: float | None = None

    @property
    def warned(self) -> tuple[str, ...]:
        """Return the features warned in either window."""
        return tuple(feature.name for feature in self.features if feature.is_warned)

    @property
    def d_max(self) -> float | None:
        """Return the largest distance of any feature in either window; None if nothing was compared."""
        return max((feature.d for feature in self.features), default=None)

    @property
    def score_psi(self) -> float | None:
        """Return the larger score PSI of the two windows; None if scores were not compared."""
        return max((psi for psi in (self.score_psi_older, self.score_psi_newer) if psi is not None), default=None)

    @property
    def d_since_first(self) -> float | None:
        """Return the largest distance of any feature from the oldest kept reference; None without one."""
        distances = (feature.d_since_first for feature in self.features)
        return max((d for d in distances if d is not None), default=None)


def unable_to_compare(why: str, provenance: Provenance | None = None) -> DriftReport:
    """Return the report of a run that could compare nothing: state `error`, never `ok`."""
    return DriftReport("error", ("error",), retrain=False, explanation=(why,), provenance=provenance)


def paragraph(report: DriftReport, retraining: str) -> str:
    """Return a paragraph in plain words: what was found, and what to do.

    `retraining` is the sentence on what the next retraining does; only the state `error` has none.

    >>> paragraph(unable_to_compare("There is no model"), "")
    'Drift could not be judged. There is no model. Until this is solved, drift is not watched.'
    """
    opening, advice = _WORDS[report.state]
    if "baseline_reference" in report.reasons:
        opening = "Drift cannot be judged in full yet."
    if report.state == "drift":
        advice = _LABEL if report.retrain else _REPAIR
    sentences = (
        f"{sentence.rstrip('.')}." for sentence in (opening, *report.explanation, advice, retraining) if sentence
    )
    return " ".join(sentences)


def to_json(report: DriftReport) -> str:
    """Return the text of drift_result.json: `drift` at the top level, the same report always the same text.

    It holds no NaN and no infinity; what could not be computed is null.
    """
    document: dict[str, Any] = {
        "schema_version": SCHEMA_VERSION,
        "drift": report.state == "drift",
        "d_max": report.d_max,
        "d_since_first": report.d_since_first,
        "warned": report.warned,
        **asdict(report),
    }
    return json.dumps(document, indent=2, allow_nan=False) + "\n"


@dataclass(frozen=True)
class DriftFinding:
    """What the newest drift_result.json requests."""

    sha256: str
    state: State | None
    """None if the file names an unknown state."""
    retrain: bool
    reference_digest: str | None
    """Digest of the model whose reference was compared."""


def read_finding(path: Path) -> DriftFinding | None:
    """Read what the newest drift report requests; None if there is none or its file is not valid."""
    try:
        content = read_regular(path, _LIMIT_BYTES)
        found = json.loads(content)
        provenance = found["provenance"] or {}
        return DriftFinding(
            hashlib.sha256(content).hexdigest(),
            state=found.get("state") if found.get("state") in STATES else None,
            retrain=bool(found["retrain"]),
            reference_digest=provenance.get("reference_digest"),
        )
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        logger.warning("%s is not valid (%s): continuing as if no drift was found", path, error)
        return None


_LABEL = "Label those of the newest transactions that have no label: a retraining learns only from labelled ones."
_REPAIR = "Repair the feed before the next retraining, which would learn from it."
_WORDS: dict[State, tuple[str, str]] = {
    "ok": ("Transactions look like the reference of the current model.", "No action is needed."),
    "warn": ("A change is worth a look; it starts no retraining.", ""),
    "drift": ("Transactions no longer look like the reference of the current model.", ""),
    "insufficient_data": ("Drift could not be judged yet.", "Wait for more transactions."),
    "error": ("Drift could not be judged.", "Until this is solved, drift is not watched."),
}
