"""Defines manifest.json: everything known about a version."""

import dataclasses
import json
import sys
from dataclasses import dataclass
from types import UnionType
from typing import Any, Literal, TypeVar, get_args, get_origin

import numpy as np
from numpy.typing import NDArray

from fraud_detection.clock import parse_timestamp
from fraud_detection.decision import flagged
from fraud_detection.model.files import MANIFEST, ONNX, is_plain_name
from fraud_detection.strict_json import NotStrictJson, parse

MANIFEST_FORMAT = 1
MANIFEST_LIMIT_BYTES = 1024 * 1024  # 500 features with their golden rows take 400 kB
ONNX_LIMIT_BYTES = 512 * 1024 * 1024  # it is read into memory
SIZE_LIMIT_BYTES = 8 * 1024 * 1024 * 1024  # reading more for a digest would take minutes

Amount = TypeVar("Amount", float, NDArray[np.float64])


@dataclass(frozen=True)
class AmountScaling:
    """How an amount becomes Amount_scaled: (amount - mean) / standard_deviation, in units of the currency."""

    mean: float
    standard_deviation: float

    def scaled(self, amount: Amount) -> Amount:
        """Return an amount, or each of an array, as Amount_scaled; equal amounts give equal bits.

        >>> AmountScaling(mean=100.0, standard_deviation=50.0).scaled(150.0)
        1.0
        """
        return (amount - self.mean) / self.standard_deviation


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
    def from_json(cls, content: bytes) -> "Manifest":
        """Read manifest.json, which others may have written; raises ValueError that says what was expected."""
        try:
            fields = parse(content)
        except NotStrictJson as error:
            raise ValueError(f"expected JSON; {error}") from error
        if not isinstance(fields, dict) or fields.get("format") != MANIFEST_FORMAT:
            raise ValueError(f"expected manifest format {MANIFEST_FORMAT}")
        manifest: Manifest = _typed(cls, fields, "the manifest")
        sizes, scaling = {name: file.size for name, file in manifest.files.items()}, manifest.amount_scaling
        for is_so, expected in (
            (manifest.features, "features"),
            (ONNX in sizes, f"{ONNX} among the files"),
            (all(map(is_plain_name, sizes)) and MANIFEST not in sizes, "names of other files, not paths"),
            (max(sizes.values(), default=0) <= SIZE_LIMIT_BYTES, f"files of at most {SIZE_LIMIT_BYTES:,} bytes"),
            (sizes.get(ONNX, 0) <= ONNX_LIMIT_BYTES, f"{ONNX} to have at most {ONNX_LIMIT_BYTES:,} bytes"),
            (scaling is None or scaling.standard_deviation > 0, "a standard_deviation above 0"),
            (manifest.parent is None or is_plain_name(manifest.parent), "parent to be the name of a version"),
        ):
            if not is_so:
                raise ValueError(f"expected {expected}")
        try:
            parse_timestamp(manifest.created)  # checked here, so that callers can rely on it
        except ValueError as error:  # whose text repeats it
            raise ValueError("expected created to be a time as `ts` has it") from error
        return manifest


def _typed(kind: Any, value: Any, name: str) -> Any:
    """Return a JSON value as the type of a field; raises ValueError that names the field."""
    origin, inner = get_origin(kind), get_args(kind)
    typed: Any
    match value:
        case None if origin is UnionType:
            typed = None
        case _ if origin is UnionType:  # of one type and None
            typed = _typed(inner[0], value, name)
        case list() if origin is list:
            typed = [_typed(inner[0], element, name) for element in value]
        case list() if origin is tuple and len(value) == len(inner):
            typed = tuple(_typed(*pair, name) for pair in zip(inner, value, strict=True))
        case dict() if origin is dict:
            typed = {key: _typed(inner[1], element, name) for key, element in value.items()}
        case dict() if dataclasses.is_dataclass(kind):
            typed = _fields_of(kind, value, name)
        case _ if _fits(kind, value):
            typed = value
        case _:
            raise ValueError(f"expected {name} of another type or range")
    return typed


def _fits(kind: Any, value: Any) -> bool:
    if kind is float:
        return type(value) in {int, float} and abs(value) <= sys.float_info.max  # 1e400 is read as infinity
    if kind is int:  # not bool; every whole number here is a count, a size or a seed
        return type(value) is int and 0 <= value < 2**63
    if get_origin(kind) is Literal:
        return value in get_args(kind)
    return kind is Any or type(value) is kind


def _fields_of(kind: Any, value: dict[str, Any], name: str) -> Any:
    known = {field.name: field for field in dataclasses.fields(kind)}
    if not value.keys() <= known.keys():
        raise ValueError(f"expected only fields of this format in {name}")
    for field in known.values():
        has_default = (field.default, field.default_factory) != (dataclasses.MISSING, dataclasses.MISSING)
        if field.name not in value and not has_default:
            raise ValueError(f"expected {field.name} in {name}")
    return kind(**{key: _typed(known[key].type, element, key) for key, element in value.items()})


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
