"""Which label of a transaction counts when it has several."""

from collections.abc import Iterable
from dataclasses import dataclass

from fraud_detection.schema import SOURCES

_STRENGTH = {source: len(SOURCES) - place for place, source in enumerate(SOURCES)}


@dataclass(frozen=True)
class Label:
    """What somebody said a transaction turned out to be."""

    request_id: str
    row_index: int
    is_fraud: bool
    source: str
    reporter: str
    reported_at: str
    received_at: str


def label_that_counts(labels: Iterable[Label]) -> Label:
    """Return the label reported last; on a tie the stronger source, then the one received last.

    The order in which labels arrive does not matter. When even these agree and the verdicts do not, fraud counts.
    """
    return max(
        labels,
        key=lambda label: (
            label.reported_at,
            _STRENGTH[label.source],
            label.received_at,
            label.is_fraud,
            label.reporter,
        ),
    )
