"""Defines manifest.json: everything known about a version."""

import dataclasses
import json
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from fraud_detection.clock import parse_timestamp
from fraud_detection.decision import flagged
from fraud_detection.model.files import ONNX

MANIFEST_FORMAT = 1


@dataclass(frozen=True)
class AmountScaling:
    """How an amount becomes Amount_scaled: (amount - mean) / standard_deviation, in units of the currency."""

    mean: float
    standard_deviation: float


@dataclass(frozen=True)
class Holdout:
    """How a model scored rows that it was not trained on: what its alert rate and scores should look like."""

    rows: int
    alerts: int
    threshold: float
    score_bands: list[int]
    """Rows in each band of `band_edges(threshold)`; together they are `rows`."""


@dataclass(frozen=True)
class Golden:
    """Synthetic rows, no real transactions, and their scores when the model was made."""

    rows: list[list[float]]
    scores: list[float]


@dataclass(frozen=True)
class StoredFile:
    """Digest and size that a file of a version must have."""

    sha256: str
    size: int


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """Everything known about a version; manifest.json holds it."""

    created: str
    """UTC, as stored in `ts`."""
    features: list[str]
    features_digest: str
    threshold: float
    """The threshold at which the model was judged; FRAUD_THRESHOLD decides when it serves."""
    trained_on: Literal["synthetic", "labels", "derived", "unknown"]
    golden: Golden
    holdout: Holdout | None = None
    training_window: tuple[str, str] | None = None
    """Time of the first and of the last row that the model was trained on."""
    seed: int | None = None
    rows: dict[str, int] = dataclasses.field(default_factory=dict)
    """Training rows per class: `fraud` and `genuine`."""
    label_sources: dict[str, int] = dataclasses.field(default_factory=dict)
    parent: str | None = None
    """The version that served when this one was made."""
    verdict: dict[str, Any] | None = None
    amount_scaling: AmountScaling | None = None
    libraries: dict[str, str] = dataclasses.field(default_factory=dict)
    files: dict[str, StoredFile] = dataclasses.field(default_factory=dict)
    """sha256 and size of every other file of the version; `write_version` fills it in."""
    format: int = MANIFEST_FORMAT

    @property
    def digest(self) -> str:
        """Return the sha256 of model.onnx, the bytes that score."""
        return self.files[ONNX].sha256

    def to_json(self) -> str:
        """Render manifest.json."""
        return json.dumps(dataclasses.asdict(self), indent=2, allow_nan=False) + "\n"

    @classmethod
    def from_json(cls, text: str) -> "Manifest":
        """Read manifest.json; raises ValueError, KeyError or TypeError if it has another format."""
        fields = json.loads(text)
        if not isinstance(fields, dict) or fields.get("format") != MANIFEST_FORMAT:
            raise ValueError(f"expected manifest format {MANIFEST_FORMAT}")
        fields["golden"] = Golden(**fields["golden"])
        fields["files"] = {name: StoredFile(**entry) for name, entry in fields["files"].items()}
        if fields["holdout"] is not None:
            fields["holdout"] = Holdout(**fields["holdout"])
        if fields["amount_scaling"] is not None:
            fields["amount_scaling"] = AmountScaling(**fields["amount_scaling"])
        if fields["training_window"] is not None:
            first, last = fields["training_window"]
            fields["training_window"] = (first, last)
        if ONNX not in fields["files"]:
            raise ValueError(f"expected {ONNX} among the files")
        parse_timestamp(fields["created"])  # checked here, so that callers can rely on it
        return cls(**fields)


def band_edges(threshold: float) -> NDArray[np.float64]:
    """Return the edges of the score bands: fixed, because a forest's scores pile up on few values and deciles collapse.

    >>> band_edges(0.4).tolist()
    [0.0, 0.01, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 1.0]
    """
    return np.unique([0, 0.01, 0.05, 0.1, 0.2, threshold, 0.6, 0.8, 1])


def holdout_of(scores: NDArray[np.float64], threshold: float) -> Holdout:
    """Summarise scores (shape (n,), each from 0 to 1) of rows that the model was not trained on.

    >>> holdout_of(np.array([0.0, 0.02, 0.4, 0.9]), 0.4)
    Holdout(rows=4, alerts=2, threshold=0.4, score_bands=[1, 1, 0, 0, 0, 1, 0, 1])
    """
    bands, _ = np.histogram(scores, bins=band_edges(threshold))
    return Holdout(len(scores), int(flagged(scores, threshold).sum()), threshold, bands.tolist())
