"""Make scored requests and labels for tests that write to a store."""

import numpy as np

from fraud_detection.clock import Clock
from fraud_detection.store.decisions import ScoredRequest
from fraud_detection.store.labels import NewLabel

CLOCK = Clock()


def scored(rows: int = 1, *, transaction_ids: list[str | None] | None = None, key: str | None = None) -> ScoredRequest:
    """Return a request of `rows` rows, every second of which is flagged."""
    ts, request_id = CLOCK.tick()
    random = np.random.default_rng(rows)
    return ScoredRequest(
        request_id=request_id,
        ts=ts,
        matrix=random.normal(size=(rows, 29)),
        fraud_probability=[0.25 + 0.5 * (index % 2) for index in range(rows)],
        threshold=0.4,
        model_version="20260101T000000Z-0123456789ab",
        model_digest="0" * 64,
        transaction_ids=transaction_ids or [None] * rows,
        idempotency_key=key,
        body_sha256="b" * 64 if key else None,
    )


def label(
    request: ScoredRequest,
    row: int = 0,
    *,
    is_fraud: bool = True,
    reported_at: str | None = "2026-02-01 00:00:00.000000",
) -> NewLabel:
    """Return a label of the bank for one row of a request."""
    return NewLabel(
        is_fraud=is_fraud,
        source="chargeback",
        reporter="bank",
        reported_at=reported_at,
        request_id=request.request_id,
        row_index=row,
    )
