from dataclasses import replace
from itertools import permutations

import pytest

from fraud_detection.store.labels import Label, label_that_counts

LABEL = Label("r", 0, True, "customer", "ann", "2026-01-01 00:00:00.000000", "2026-01-02 00:00:00.000000")


@pytest.mark.parametrize(
    ("stronger", "why"),
    [
        (replace(LABEL, reported_at="2026-01-01 00:00:01.000000", source="import"), "reported later"),
        (replace(LABEL, source="chargeback"), "a stronger source"),
        (replace(LABEL, received_at="2026-01-03 00:00:00.000000", is_fraud=False), "received later"),
    ],
)
def test_what_makes_a_label_count(stronger: Label, why: str) -> None:
    assert label_that_counts([LABEL, stronger]) == stronger, why
    assert label_that_counts([stronger, LABEL]) == stronger, why


def test_the_order_of_arrival_never_matters() -> None:
    genuine = replace(LABEL, is_fraud=False)
    labels = [LABEL, genuine, replace(LABEL, source="analyst"), replace(LABEL, reporter="bob", source="review")]

    assert len({label_that_counts(order) for order in permutations(labels)}) == 1


def test_fraud_counts_when_nothing_else_decides() -> None:
    assert label_that_counts([replace(LABEL, is_fraud=False), LABEL]).is_fraud
