"""Runs a drift drill: sends a running API transactions that differ from its model's reference."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from fraud_detection.exit_codes import ExpectedError
from fraud_detection.features import FeatureList, Matrix
from fraud_detection.model.files import CURRENT
from jobs.drift.reference import read_reference
from jobs.exchange.api_client import ApiClient, rows_per_request
from jobs.installation import Installation
from jobs.progress import bar


class UnknownFeature(ExpectedError):
    """A shift names a feature that this installation does not have; the message names its features."""


@dataclass(frozen=True)
class Drill:
    """Counts of the transactions that were sent, and their id."""

    rows: int
    flagged: int
    transaction_id: str
    """The id under which all of them are stored, so that `forget` can erase them."""


def shifted(reference: Matrix, features: FeatureList, shifts: Mapping[str, float]) -> Matrix:
    """Shift features by multiples of their standard deviations, within the bounds of each.

    >>> from fraud_detection.features import Feature
    >>> two = FeatureList((Feature("amount", maximum=10), Feature("age_days")))
    >>> shifted(np.array([[1.0, 0.0], [3.0, 0.0]]), two, {"amount": 8})
    array([[ 9.,  0.],
           [10.,  0.]])

    Raises UnknownFeature.
    """
    unknown = sorted(set(shifts) - set(features.names))
    if unknown:
        raise UnknownFeature(f"{unknown[0]}: no such feature; choose from {', '.join(features.names)}")
    amounts = np.array([shifts.get(name, 0.0) for name in features.names])
    moved: Matrix = np.clip(reference + amounts * reference.std(axis=0), features.minimums, features.maximums)
    return moved


def simulate_drift(
    here: Installation,
    client: ApiClient,
    *,
    shifts: Mapping[str, float],
    rows: int,
    seed: int,
    run: str,
) -> Drill:
    """Draw `rows` transactions from the reference of the current model, shift them, and let the API score them.

    Raises UnknownFeature, ModelRefused, ApiRefused, ApiAway.
    """
    here.served_model()  # rejects a model of other features before its reference is read
    reference = read_reference(here.models_dir / CURRENT, here.features)
    drawn = np.random.default_rng(seed).choice(reference, rows)
    matrix = shifted(drawn, here.features, shifts)
    transaction_id = f"drill-{run}"
    flagged = 0
    size = rows_per_request(here.features)
    for start in bar(range(0, rows, size), desc="sending", unit=" requests"):
        part = matrix[start : start + size]
        scored = client.score(part.tolist(), [transaction_id] * len(part), idempotency_key=f"{transaction_id}-{start}")
        flagged += sum(scored.is_flagged)
    return Drill(rows, flagged, transaction_id)
