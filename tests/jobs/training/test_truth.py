"""Labels count by source and maturity, silence can mean genuine, and rows are split by time."""

from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fraud_detection.clock import timestamp
from fraud_detection.store.history import History
from jobs.training.truth import Known, derived_labels, label_coverage, split, truly_labelled

NOW = datetime(2026, 3, 1, tzinfo=UTC)


def row(
    days_ago: float,
    is_fraud: int = -1,
    source: str = "analyst",
    *,
    score: float | None = 0.1,
    flagged: bool = False,
    name: str = "a",
) -> tuple[object, ...]:
    """Return one stored transaction; is_fraud -1 means no label, score None means never scored."""
    moment = timestamp(NOW - timedelta(days=days_ago))
    return (
        name, 0, moment, np.nan if score is None else score, flagged, "" if is_fraud < 0 else source, is_fraud
    )  # fmt: skip


def history(*rows: tuple[object, ...]) -> History:
    names, indexes, moments, scores, flagged, sources, truths = zip(*rows, strict=True) if rows else [[]] * 7
    return History(
        request_id=np.array(names, dtype=np.str_),
        row_index=np.array(indexes, dtype=np.int64),
        ts=np.array(moments, dtype=np.str_),
        matrix=np.arange(len(rows), dtype=np.float64).reshape(-1, 1),
        fraud_probability=np.array(scores, dtype=np.float64),
        is_flagged=np.array(flagged, dtype=np.bool_),
        model_digest=np.array([""] * len(rows), dtype="U1"),
        is_fraud=np.array(truths, dtype=np.int8),
        label_source=np.array(sources, dtype=np.str_),
        schema_version=np.full(len(rows), 5),
    )


def labelled(*rows: tuple[object, ...], maturity_days: float = 30, negatives_by_maturity: bool = False) -> Known:
    return truly_labelled(
        history(*rows), cutoff=NOW, maturity_days=maturity_days, negatives_by_maturity=negatives_by_maturity
    )  # fmt: skip


def sources(known: Known) -> list[tuple[bool, str]]:
    return list(zip(known.is_fraud.tolist(), known.source.tolist(), strict=True))


def test_a_true_label_counts_with_its_source() -> None:
    known = labelled(row(50, 1, "chargeback"), row(40, 0, "analyst"), row(35, 1, "external"))

    assert sources(known) == [(True, "chargeback"), (False, "analyst"), (True, "external")]
    assert known.sources == {"chargeback": 1, "analyst": 1, "external": 1}


def test_a_transaction_without_a_label_does_not_count() -> None:
    assert len(labelled(row(50), row(45, flagged=True))) == 0


@pytest.mark.parametrize(
    ("days_ago", "is_fraud", "counts"), [(29.9, 0, False), (30, 0, True), (29.9, 1, True), (0, 1, True)]
)
def test_a_recent_transaction_counts_only_as_a_confirmed_fraud(days_ago: float, is_fraud: int, counts: bool) -> None:
    assert len(labelled(row(days_ago, is_fraud))) == int(counts)


def test_without_a_maturity_window_every_label_counts_at_once() -> None:
    assert len(labelled(row(0, 0), row(0, 1), maturity_days=0)) == 2


@pytest.mark.parametrize(
    ("silent", "counts"),
    [
        (row(40), True),
        (row(29), False),
        (row(40, flagged=True, score=0.9), False),
        (row(40, score=None), False),
    ],
    ids=["settled", "recent", "flagged", "never scored"],
)
def test_silence_means_genuine_only_where_reports_would_have_come(silent: tuple[object, ...], counts: bool) -> None:
    assert len(labelled(silent)) == 0
    assert sources(labelled(silent, negatives_by_maturity=True)) == ([(False, "matured")] if counts else [])


def test_a_label_outweighs_silence() -> None:
    known = labelled(row(40, 1, "customer"), row(40, 0, "review"), negatives_by_maturity=True)

    assert sources(known) == [(True, "customer"), (False, "review")]


def test_derived_labels_are_the_stored_decisions_of_unlabelled_transactions() -> None:
    known = derived_labels(history(row(4, score=0.9, flagged=True), row(3), row(2, 1), row(1, score=None)))

    assert sources(known) == [(True, "derived"), (False, "derived")]


def test_rows_come_in_order_of_time_whatever_their_order() -> None:
    known = labelled(row(40, 1, name="c"), row(50, 0, name="b"), row(40, 0, name="a"))

    assert known.history.request_id.tolist() == ["b", "a", "c"]
    assert known.is_fraud.tolist() == [False, False, True]


def test_days_and_window_are_those_of_the_first_and_last_row() -> None:
    known = labelled(row(50, 1), row(40, 0))

    assert known.days == 10
    assert known.window == (timestamp(NOW - timedelta(days=50)), timestamp(NOW - timedelta(days=40)))
    assert known.frauds == 1


def test_less_than_a_day_counts_as_a_day_and_nothing_has_no_window() -> None:
    assert labelled(row(40.1, 1), row(40, 0)).days == 1
    assert (labelled().days, labelled().window, labelled().sources) == (1, None, {})


def timeline(truths: str, *, step_days: float = 1) -> Known:
    """Return labelled transactions, the oldest first: F is a fraud, g genuine."""
    rows = [row(40 + step_days * (len(truths) - place), int(truth == "F")) for place, truth in enumerate(truths)]
    return labelled(*rows)


def shape(known: Known) -> str:
    return "".join("F" if fraud else "g" for fraud in known.is_fraud)


def test_the_newest_three_tenths_judge_and_the_rest_trains() -> None:
    parts = split(timeline("FgFgFgg" + "FFg"), trained_until=None, min_frauds=2)

    assert (shape(parts.training), shape(parts.holdout)) == ("FgFgFgg", "FFg")


def test_the_hold_out_reaches_back_for_frauds() -> None:
    parts = split(timeline("FFgggFgFgggg"), trained_until=None, min_frauds=2)

    assert (shape(parts.training), shape(parts.holdout)) == ("FFggg", "FgFgggg")


def test_it_does_not_when_training_would_lose_more_than_half_of_the_frauds() -> None:
    parts = split(timeline("FggggFgFgggg"), trained_until=None, min_frauds=2)

    assert (shape(parts.training), shape(parts.holdout)) == ("FggggFgF", "gggg")


def test_the_hold_out_starts_after_what_the_current_model_has_seen() -> None:
    known = timeline("FFgggFgFgFgF")
    seen_until = str(known.history.ts[9])

    parts = split(known, trained_until=seen_until, min_frauds=2)

    assert (shape(parts.training), shape(parts.holdout)) == ("FFgggFgFgF", "gF")


def test_a_model_that_has_seen_everything_leaves_no_hold_out() -> None:
    known = timeline("FFgg")

    parts = split(known, trained_until=str(known.history.ts[-1]), min_frauds=1)

    assert (len(parts.training), len(parts.holdout)) == (4, 0)


def test_transactions_of_one_moment_stay_together() -> None:
    known = labelled(*(row(days_ago, 1, name=str(place)) for place, days_ago in enumerate([90, 80] + [50] * 8)))

    parts = split(known, trained_until=None, min_frauds=1)

    assert (len(parts.training), len(parts.holdout)) == (2, 8)


def test_nothing_can_be_split_into_nothing() -> None:
    parts = split(labelled(), trained_until=None, min_frauds=1)

    assert (len(parts.training), len(parts.holdout)) == (0, 0)


def test_coverage_is_the_labelled_share_of_each_age() -> None:
    rows = [row(1), row(8, 1), row(9), row(10), row(40, 0), row(200, 0), row(201)]

    assert label_coverage(history(*rows), NOW) == {
        "under_7_days": 0, "7_to_30_days": pytest.approx(1 / 3), "30_to_90_days": 1, "over_90_days": 0.5
    }  # fmt: skip
    assert label_coverage(history(), NOW) == {}


@st.composite
def stored_rows(draw: st.DrawFn) -> list[tuple[object, ...]]:
    count = draw(st.integers(0, 40))
    return [
        row(
            draw(st.integers(0, 60)),
            draw(st.sampled_from([-1, 0, 1])),
            draw(st.sampled_from(["analyst", "chargeback", "import", "external"])),
            score=draw(st.sampled_from([None, 0.1])),
            name=f"r{place:03d}",
        )
        for place in range(count)
    ]


@given(stored_rows(), st.randoms(use_true_random=False), st.booleans(), st.integers(0, 40))
def test_the_order_of_arrival_does_not_matter(
    rows: list[tuple[object, ...]], random: object, by_maturity: bool, maturity_days: int
) -> None:
    shuffled = list(rows)
    random.shuffle(shuffled)  # type: ignore[attr-defined]  # a random.Random of Hypothesis

    once, again = (
        labelled(*each, maturity_days=maturity_days, negatives_by_maturity=by_maturity) for each in (rows, shuffled)
    )

    assert once.history.request_id.tolist() == again.history.request_id.tolist()
    assert sources(once) == sources(again)


@given(stored_rows(), st.booleans(), st.integers(0, 40))
def test_whatever_counts_is_settled_or_a_confirmed_fraud(
    rows: list[tuple[object, ...]], by_maturity: bool, maturity_days: int
) -> None:
    known = labelled(*rows, maturity_days=maturity_days, negatives_by_maturity=by_maturity)

    settled = timestamp(NOW - timedelta(days=maturity_days))
    for ts, is_fraud, source in zip(known.history.ts, known.is_fraud, known.source, strict=True):
        assert is_fraud or ts <= settled
        assert source != "matured" or (by_maturity and not is_fraud)


@given(stored_rows(), st.one_of(st.none(), st.integers(0, 60)), st.integers(1, 10))
def test_a_split_loses_nothing_and_judges_only_later_unseen_transactions(
    rows: list[tuple[object, ...]], seen_days_ago: int | None, min_frauds: int
) -> None:
    known = labelled(*rows, maturity_days=0)
    trained_until = None if seen_days_ago is None else timestamp(NOW - timedelta(days=seen_days_ago))

    parts = split(known, trained_until=trained_until, min_frauds=min_frauds)

    both = parts.training.history.request_id.tolist() + parts.holdout.history.request_id.tolist()
    assert both == known.history.request_id.tolist()
    if len(parts.holdout):
        first = parts.holdout.history.ts[0]
        assert trained_until is None or first > trained_until
        assert len(parts.training) == 0 or first > parts.training.history.ts[-1]
