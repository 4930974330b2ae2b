"""The label that was reported last counts, in whatever order labels arrive."""

from dataclasses import replace
from itertools import permutations

import pytest

from fraud_detection.store import Store, decisions, history, labels
from fraud_detection.store.labels import Label, NewLabel, ReportedTooEarly, UnknownTransaction, label_that_counts
from tests.support.transactions import label, scored

NOW = "2026-02-02 00:00:00.000000"
LATER = "2026-02-03 00:00:00.000000"
LABEL = Label("r", 0, True, "customer", "ann", "2026-01-01 00:00:00.000000", "2026-01-02 00:00:00.000000")


def test_the_label_reported_last_counts_in_whatever_order_it_arrives(store: Store) -> None:
    first, second = scored(), scored()
    with store.begin() as connection:
        decisions.append(store, connection, [first, second])

        for request, is_fraud, day in ((first, True, 1), (first, False, 2), (second, False, 2), (second, True, 1)):
            reported_at = f"2026-01-0{day} 00:00:00.000000"
            labels.add(store, connection, [label(request, is_fraud=is_fraud, reported_at=reported_at)], NOW)

        stored = history.read(store, connection)
    assert stored.is_fraud.tolist() == [0, 0]
    assert stored.label_source.tolist() == ["chargeback", "chargeback"]


def test_repeating_a_label_changes_nothing(store: Store) -> None:
    request = scored()
    with store.begin() as connection:
        decisions.append(store, connection, [request])

        assert labels.add(store, connection, [label(request)], NOW) == 1
        assert labels.add(store, connection, [label(request), label(request)], NOW) == 0

        (decision,) = decisions.find(store, connection, request.request_id)
    assert len(decision.labels) == 1
    assert decision.is_fraud is True


def test_a_verdict_without_a_time_is_a_repetition_until_its_reporter_says_otherwise(store: Store) -> None:
    request = scored()
    with store.begin() as connection:
        decisions.append(store, connection, [request])

        added = [
            labels.add(store, connection, [label(request, is_fraud=is_fraud, reported_at=None)], received_at)
            for is_fraud, received_at in ((True, NOW), (True, LATER), (False, LATER), (False, LATER))
        ]

        (decision,) = decisions.find(store, connection, request.request_id)
    assert added == [1, 0, 1, 0]
    assert [(said.is_fraud, said.reported_at) for said in decision.labels] == [(True, NOW), (False, LATER)]
    assert decision.is_fraud is False


def test_an_unknown_transaction_among_labels_undoes_them_all(store: Store) -> None:
    request = scored()
    with store.begin() as connection:
        decisions.append(store, connection, [request])

    with pytest.raises(UnknownTransaction) as refused, store.begin() as connection:
        labels.add(store, connection, [label(request), label(scored())], NOW)

    with store.begin() as connection:
        assert history.read(store, connection).is_fraud.tolist() == [-1]
    assert refused.value.position == 1


def test_a_label_by_transaction_id_reaches_every_row_of_it(store: Store) -> None:
    with store.begin() as connection:
        decisions.append(store, connection, [scored(transaction_ids=["t"]), scored(transaction_ids=["t"])])
        by_id = NewLabel(True, "analyst", "ann", NOW, transaction_id="t")

        assert labels.add(store, connection, [by_id], NOW) == 1

        assert history.read(store, connection).is_fraud.tolist() == [1, 1]


def test_a_label_may_be_older_than_a_later_row_of_its_transaction(store: Store) -> None:
    first, again = scored(transaction_ids=["t"]), scored(transaction_ids=["t"])
    between = NewLabel(True, "analyst", "ann", first.ts, transaction_id="t", latest_ts=first.ts)
    with store.begin() as connection:
        decisions.append(store, connection, [again, first])

        assert labels.add(store, connection, [between], NOW) == 1

        assert history.read(store, connection).is_fraud.tolist() == [1, 1]


def test_an_early_label_that_is_stored_already_stays_and_is_known(store: Store) -> None:
    request = scored()
    early = label(request)
    bounded = replace(early, latest_ts=early.reported_at)
    with store.begin() as connection:
        decisions.append(store, connection, [request])
        labels.add(store, connection, [early], NOW)  # as an earlier version took it

        assert labels.add(store, connection, [bounded], NOW) == 0
        with pytest.raises(ReportedTooEarly, match=r"^label 1, reported_at: 2026-02-01 00:00:00 UTC is before"):
            labels.add(store, connection, [bounded, replace(bounded, is_fraud=False)], NOW)

        assert history.read(store, connection).is_fraud.tolist() == [1]


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
