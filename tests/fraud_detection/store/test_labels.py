"""The label that was reported last counts, in whatever order labels arrive."""

from collections.abc import Callable
from dataclasses import replace
from itertools import permutations
from typing import Any

import pytest

from fraud_detection.store import Store, decisions, history, labels
from fraud_detection.store.labels import (
    Label,
    NewLabel,
    ReportedTooEarly,
    TooManyRows,
    UnknownTransaction,
    label_that_counts,
)
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


def second(number: int) -> str:
    return f"2026-01-01 {number // 3600:02d}:{number // 60 % 60:02d}:{number % 60:02d}.000000"


def by_id(transaction_id: str, reporter: str = "ann") -> NewLabel:
    return NewLabel(True, "analyst", reporter, NOW, transaction_id=transaction_id)


@pytest.fixture
def few_rows(store: Store, monkeypatch: pytest.MonkeyPatch) -> Store:
    """Two rows each under the ids a, b and c, and seven under many, with limits that are as low."""
    monkeypatch.setattr(labels, "MAX_ROWS_PER_LABEL", 2)
    monkeypatch.setattr(labels, "MAX_LABEL_ROWS", 5)
    with store.begin() as connection:
        requests = [scored(2, transaction_ids=[name] * 2) for name in "abc"]
        decisions.append(store, connection, [*requests, scored(7, transaction_ids=["many"] * 7)])
    return store


@pytest.mark.parametrize(
    ("new", "message"),
    [
        (
            [by_id("a"), by_id("many")],
            "label 1: its transaction_id names more than 2 stored rows; name one of them by req",
        ),
        (
            [by_id("a"), by_id("b"), by_id("c")],
            "labels 0 to 2 name more than 5 stored rows: send fewer labels in a req",
        ),
        ([by_id("a", reporter) for reporter in "xyz"], "labels 0 to 2 name more than 5 stored rows: send fewer labels"),
        (
            [by_id(name) for name in ("many", "a", "b", "c")],
            "label 0: its transaction_id names more than 2 stored rows",
        ),
        ([by_id("unknown"), by_id("many")], "label 0: no such transaction is stored"),
        ([by_id("a"), by_id("unknown"), by_id("b"), by_id("c")], "label 1: no such transaction is stored"),
    ],
)
def test_labels_that_name_too_many_rows_are_refused_before_a_write(
    few_rows: Store, new: list[NewLabel], message: str
) -> None:
    with few_rows.begin() as connection:
        with pytest.raises((TooManyRows, UnknownTransaction)) as refused:
            labels.add(few_rows, connection, new, NOW)

        assert str(refused.value).startswith(message)
        assert set(history.read(few_rows, connection).is_fraud.tolist()) == {-1}


def test_labels_up_to_the_limits_are_taken(few_rows: Store) -> None:
    with few_rows.begin() as connection:
        (one, *_) = decisions.rows_of(few_rows, connection, "many")
        row = NewLabel(True, "analyst", "ann", NOW, *one)

        assert labels.add(few_rows, connection, [by_id("a"), by_id("b"), row], NOW) == 3

        assert history.read(few_rows, connection).is_fraud.tolist() == [1, 1, 1, 1, -1, -1, 1, *[-1] * 6]


class Ended(Exception):
    pass


def test_work_reports_between_its_statements_and_ends_when_it_is_told_to(
    few_rows: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(labels, "_ROWS_PER_STATEMENT", 1)
    steps: list[int] = []

    def end_at(step: int) -> Callable[[], None]:
        def go_on() -> None:
            steps.append(step)
            if len(steps) == step:
                raise Ended

        steps.clear()
        return go_on

    with few_rows.begin() as connection:
        labels.add(few_rows, connection, [by_id("a")], NOW, end_at(-1))
        statements = len(steps)
        for step in range(1, statements + 1):
            with pytest.raises(Ended), connection.begin_nested():
                labels.add(few_rows, connection, [by_id("b")], NOW, end_at(step))
        stored = history.read(few_rows, connection)

    # Two rows: the labels that count and equal ones are read, theirs are added, their Class is set.
    assert statements == 4 * 2
    assert stored.is_fraud.tolist() == [1, 1, *[-1] * 11]


def test_a_row_stays_labelable_whatever_it_has_collected_at_the_same_cost(sqlite_store: Store) -> None:
    few, many = scored(), scored()
    steps: list[int] = []
    costs: list[int] = []
    with sqlite_store.begin() as connection:
        decisions.append(sqlite_store, connection, [few, many])
        for request, count in ((few, 2), (many, 5000)):
            loop = [replace(label(request, is_fraud=turn % 2 == 0), reported_at=second(turn)) for turn in range(count)]
            labels.add(sqlite_store, connection, loop, NOW)
        driver: Any = connection.connection.driver_connection
        driver.set_progress_handler(lambda: steps.append(1), 10)
        for request in (few, many):
            steps.clear()
            for is_fraud, at in ((True, NOW), (False, None), (False, NOW)):
                new = label(request, is_fraud=is_fraud, reported_at=at)
                assert labels.add(sqlite_store, connection, [new], LATER) == 1
            costs.append(len(steps))

        assert history.read(sqlite_store, connection).is_fraud.tolist() == [0, 0]
    assert costs[1] < 1.2 * costs[0]


FIRST, SECOND, THIRD = (f"2026-02-0{day} 12:00:00.000000" for day in (2, 3, 4))
DATE, LATER_DATE = "2026-02-02 00:00:00.000000", "2026-02-04 00:00:00.000000"  # as the API reads a date


@pytest.mark.parametrize(
    ("said", "added", "is_fraud"),
    [
        # A label is (verdict, reported_at), with None for one without a time; they are received at noon of three days.
        ([(True, None), (True, None), (True, None)], [1, 0, 0], True),
        ([(True, None), (False, None), (True, None)], [1, 1, 1], True),
        ([(True, None), (True, DATE), (False, None)], [1, 1, 1], False),
        ([(True, None), (False, DATE), (True, None)], [1, 1, 0], True),
        ([(True, None), (False, DATE), (False, None)], [1, 1, 1], False),
        ([(True, None), (False, DATE), (False, DATE)], [1, 1, 0], True),
        ([(True, None), (False, SECOND), (True, None)], [1, 1, 1], True),
        ([(True, None), (True, FIRST), (True, FIRST)], [1, 0, 0], True),
        ([(True, None), (False, FIRST), (True, None)], [1, 1, 1], True),
        ([(True, DATE), (True, DATE), (True, None)], [1, 0, 0], True),
        ([(True, DATE), (False, DATE), (True, None)], [1, 1, 1], True),
        ([(True, DATE), (False, DATE), (True, DATE)], [1, 1, 0], False),
        ([(True, DATE), (False, LATER_DATE), (False, None)], [1, 1, 0], False),
        ([(True, LATER_DATE), (False, DATE), (True, None)], [1, 1, 0], True),
        ([(True, DATE), (False, FIRST), (True, DATE)], [1, 1, 0], False),
        ([(True, DATE), (False, FIRST), (True, None)], [1, 1, 1], True),
        ([(True, FIRST), (False, FIRST), (True, FIRST)], [1, 1, 0], False),
        ([(True, FIRST), (False, SECOND), (True, FIRST)], [1, 1, 0], False),
        ([(True, SECOND), (False, FIRST), (False, None)], [1, 1, 1], False),
        ([(True, SECOND), (False, DATE), (True, None)], [1, 1, 0], True),
    ],
)
def test_what_repeats_and_what_counts_agree(
    store: Store, said: list[tuple[bool, str | None]], added: list[int], is_fraud: bool
) -> None:
    request = scored()
    with store.begin() as connection:
        decisions.append(store, connection, [request])

        counted = [
            labels.add(store, connection, [label(request, is_fraud=verdict, reported_at=at)], received_at)
            for (verdict, at), received_at in zip(said, (FIRST, SECOND, THIRD), strict=True)
        ]

        (decision,) = decisions.find(store, connection, request.request_id)
    assert (counted, decision.is_fraud) == (added, is_fraud)
    assert label_that_counts(decision.labels).is_fraud is is_fraud


@pytest.mark.parametrize("order", [*permutations((True, False, True)), *permutations((False, True, False))])
def test_contradicting_labels_of_one_request_are_fraud_until_the_reporter_says_otherwise(
    store: Store, order: tuple[bool, ...]
) -> None:
    request = scored()
    with store.begin() as connection:
        decisions.append(store, connection, [request])

        together = [label(request, is_fraud=is_fraud, reported_at=None) for is_fraud in order]
        assert labels.add(store, connection, together, FIRST) == 2
        assert [found.is_fraud for found in decisions.find(store, connection, request.request_id)] == [True]
        later = [label(request, is_fraud=is_fraud, reported_at=None) for is_fraud in (True, False)]
        added = [labels.add(store, connection, [each], at) for each, at in zip(later, (SECOND, THIRD), strict=True)]

        assert (added, history.read(store, connection).is_fraud.tolist()) == ([0, 1], [0])


def test_of_labels_of_one_time_the_same_one_counts_for_requests_and_for_jobs(store: Store) -> None:
    request = scored()
    said = [
        (source, is_fraud, received_at)
        for source in ("review", "chargeback", "customer")
        for is_fraud, received_at in ((True, SECOND), (False, THIRD), (True, FIRST))
    ]
    with store.begin() as connection:
        decisions.append(store, connection, [request])
        for place, (source, is_fraud, received_at) in enumerate(said):
            new = NewLabel(is_fraud, source, f"reporter {place}", DATE, request.request_id, 0)
            labels.add(store, connection, [new], received_at)

            (decision,) = decisions.find(store, connection, request.request_id)
            assert decision.is_fraud is label_that_counts(decision.labels).is_fraud


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
