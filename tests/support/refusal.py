"""Open a store that must be rejected."""

from pathlib import Path

import pytest

from fraud_detection.database import DatabaseRefused
from fraud_detection.features import FeatureList, default_features
from fraud_detection.store import Store


def refusal(location: str | Path, features: FeatureList | None = None) -> DatabaseRefused:
    """Return why a store is rejected; without features, the default list is used."""
    with pytest.raises(DatabaseRefused) as refused:
        Store.open(location, features or default_features())
    return refused.value
