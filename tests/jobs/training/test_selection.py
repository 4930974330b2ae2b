"""Older labels train and newer ones judge, and too few of either hold the training."""

import dataclasses
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest

from fraud_detection.clock import timestamp
from fraud_detection.model.manifest import Golden, Manifest
from fraud_detection.settings import JobSettings
from fraud_detection.store.history import History
from jobs.training.selection import Held, select

NOW = datetime(2026, 6, 1, tzinfo=UTC)
ROWS = 1000


def history(
    is_fraud: list[int], *, age_days: float = 60, flagged: list[bool] | None = None, scored: bool = True
) -> History:
    """Make up transactions a minute apart that end `age_days` before NOW; is_fraud is 1, 0, or -1 for unknown."""
    rows = len(is_fraud)
    end = NOW - timedelta(days=age_days)
    return History(
        request_id=np.array([f"r{number:06d}" for number in range(rows)], dtype=np.str_),
        row_index=np.zeros(rows, dtype=np.int64),
        ts=np.array([timestamp(end - timedelta(minutes=rows - number)) for number in range(rows)], dtype=np.str_),
        matrix=np.zeros((rows, 2)),
        fraud_probability=np.full(rows, 0.1 if scored else np.nan),
        is_flagged=np.array(flagged if flagged is not None else [False] * rows),
        model_digest=np.full(rows, "d"),
        is_fraud=np.array(is_fraud, dtype=np.int8),
        label_source=np.array(["chargeback" if truth >= 0 else "" for truth in is_fraud], dtype=np.str_),
        schema_version=np.full(rows, 5),
    )


def settings(**variables: str) -> JobSettings:
    return JobSettings.from_env(variables)


def served(trained_until: str) -> Manifest:
    return Manifest(
        created=trained_until,
        features=["a", "b"],
        features_digest="f",
        threshold=0.4,
        trained_on="labels",
        golden=Golden([], []),
        training_window=(trained_until, trained_until),
    )


EVERY_FIFTH = [int(number % 5 == 0) for number in range(ROWS)]


def test_older_transactions_train_and_later_ones_judge() -> None:
    chosen = select(history(EVERY_FIFTH), None, settings(), NOW)

    assert (len(chosen.training), len(chosen.holdout), chosen.label_source) == (700, 300, "true")
    assert chosen.training.history.ts[-1] < chosen.holdout.history.ts[0]


def test_what_trained_the_current_model_does_not_judge() -> None:
    rows = history(EVERY_FIFTH)

    chosen = select(rows, served(str(rows.ts[729])), settings(), NOW)

    assert len(chosen.holdout) == 270


def held(rows: History, manifest: Manifest | None = None, /, **variables: str) -> Held:
    with pytest.raises(Held) as raised:
        select(rows, manifest, settings(**variables), NOW)
    return raised.value


def test_without_a_single_true_label_it_is_held_and_says_how_to_give_some() -> None:
    refusal = held(history([-1] * ROWS))

    assert refusal.outcome == "held_derived"
    assert "No true label counts yet, among 1,000 stored transactions." in str(refusal)
    assert "POST /labels" in str(refusal)


def test_genuine_labels_that_are_too_young_are_counted_in_the_message() -> None:
    refusal = held(history([0] * ROWS, age_days=3))

    assert refusal.outcome == "held_derived"
    assert "Not counted yet: 1,000 labelled as genuine and younger than LABEL_MATURITY_DAYS (30)" in str(refusal)


def test_young_genuine_labels_are_not_forgotten_beside_frauds() -> None:
    refusal = held(history(EVERY_FIFTH, age_days=3))

    assert refusal.outcome == "held_one_class"
    assert (
        "Every transaction with a settled true label (200) is a fraud. Not counted yet: 800 labelled as genuine"
        in str(refusal)
    )


@pytest.mark.parametrize(
    ("variables", "advice"),
    [
        ({}, "set NEGATIVES_BY_MATURITY=true"),
        (
            {"NEGATIVES_BY_MATURITY": "true", "LABEL_MATURITY_DAYS": "90"},
            "without a report for LABEL_MATURITY_DAYS (90)",
        ),
    ],
)
def test_when_only_frauds_are_labelled_it_explains_negatives_by_maturity(
    variables: dict[str, str], advice: str
) -> None:
    refusal = held(history([1 if truth else -1 for truth in EVERY_FIFTH]), **variables)

    assert refusal.outcome == "held_one_class"
    assert "Every transaction with a settled true label (200) is a fraud" in str(refusal)
    assert advice in str(refusal)


def test_with_negatives_by_maturity_silence_is_the_missing_half() -> None:
    rows = history([1 if truth else -1 for truth in EVERY_FIFTH])

    chosen = select(rows, None, settings(NEGATIVES_BY_MATURITY="true"), NOW)

    assert chosen.training.sources == {"chargeback": 140, "matured": 560}


def test_genuine_ones_alone_are_held() -> None:
    refusal = held(history([0] * ROWS))

    assert refusal.outcome == "held_one_class"
    assert "Every transaction with a settled true label (1,000) is genuine" in str(refusal)


def test_too_few_frauds_to_judge_by_says_how_many_are_missing_and_where() -> None:
    rows = history([int(number % 20 == 0) for number in range(ROWS)])

    refusal = held(rows, GATE_MIN_FRAUDS="40")

    assert refusal.outcome == "held_frauds"
    assert str(refusal).startswith(
        "The newest transactions judge a new model. These hold 15 of 50 known frauds; 40 are needed (GATE_MIN_FRAUDS). "
        f"Label 25 more frauds among transactions since {str(rows.ts[700])[:10]}: "
    )


def test_nothing_new_since_the_current_model_is_too_few_frauds() -> None:
    rows = history(EVERY_FIFTH)

    refusal = held(rows, served(str(rows.ts[-1])))

    assert refusal.outcome == "held_frauds"
    assert str(refusal) == (
        f"The current model learned from transactions up to {str(rows.ts[-1])[:10]}, so only newer ones can judge a "
        "new model. No label of a newer one counts yet, of 200 known frauds; 50 frauds are needed (GATE_MIN_FRAUDS): "
        "label 50 frauds among transactions newer than that."
    )


def test_few_new_frauds_are_told_from_those_that_trained_the_current_model() -> None:
    rows = history(EVERY_FIFTH)

    refusal = held(rows, served(str(rows.ts[990])))

    assert "so only newer ones can judge a new model. These hold 1 of 200 known frauds; 50 are needed" in str(refusal)
    assert "Label 49 more frauds among transactions newer than that: " in str(refusal)


def test_when_the_newest_share_judges_the_current_model_is_not_the_reason() -> None:
    rows = history([int(number % 20 == 0) for number in range(ROWS)])

    refusal = held(rows, served(str(rows.ts[10])), GATE_MIN_FRAUDS="40")

    assert str(refusal).startswith("The newest transactions judge a new model. These hold 15 of 50 known frauds; ")


def test_an_empty_store_is_called_empty() -> None:
    assert str(held(history([]))).startswith("No transaction is stored yet. Say what transactions turned out to be")


@pytest.mark.parametrize(
    ("is_fraud", "minimum", "outcome", "message"),
    [
        ([1, 0] * 50, "10", "held_rows", "Of 100 labelled transactions, the newest 30 judge a new model and 70 can"),
        (
            [0] * 700 + [1, 0] * 150,
            "50",
            "held_frauds",
            "and 0 can train it; 10 are needed to train. Label frauds among older",
        ),
        (
            [1] * 700 + [1, 0] * 150,
            "50",
            "held_one_class",
            "Of 150 transactions known to be genuine, 150 are among the newest, which judge a new model, and 0 can",
        ),
        (
            [1, 0] * 350 + [1] * 300,
            "50",
            "held_one_class",
            "Of 350 transactions known to be genuine, 0 are among the newest, which judge a new model, and 350 can",
        ),
    ],
)
def test_parts_too_small_to_use_are_held(is_fraud: list[int], minimum: str, outcome: str, message: str) -> None:
    refusal = held(history(is_fraud), GATE_MIN_FRAUDS=minimum)

    assert refusal.outcome == outcome
    assert message in str(refusal)


def test_under_the_override_decisions_stand_in_for_labels() -> None:
    rows = history([-1] * ROWS, flagged=[truth == 1 for truth in EVERY_FIFTH])

    chosen = select(rows, None, settings(ALLOW_DERIVED_LABELS="true"), NOW)

    assert chosen.label_source == "derived"
    assert chosen.training.sources == {"derived": 700}
    assert chosen.training.frauds == 140


def test_a_single_true_label_keeps_derived_ones_out_even_under_the_override() -> None:
    rows = history([-1] * (ROWS - 1) + [0], flagged=[truth == 1 for truth in EVERY_FIFTH])

    assert held(rows, ALLOW_DERIVED_LABELS="true").outcome == "held_one_class"


@pytest.mark.parametrize(
    ("rows", "outcome", "message"),
    [
        (history([-1] * ROWS), "held_one_class", "flagged none of 1,000 transactions"),
        (history([-1] * ROWS, flagged=[True] * ROWS), "held_one_class", "flagged all of 1,000 transactions"),
        (history([-1] * ROWS, scored=False), "held_rows", "No transaction was scored yet"),
    ],
)
def test_decisions_that_hold_nothing_to_learn_are_held(rows: History, outcome: str, message: str) -> None:
    refusal = held(rows, ALLOW_DERIVED_LABELS="true")

    assert refusal.outcome == outcome
    assert message in str(refusal)


def test_transactions_that_a_wrong_clock_dated_ahead_neither_train_nor_judge() -> None:
    past, ahead = history(EVERY_FIFTH), history(EVERY_FIFTH, age_days=-365)
    both = History(**{name: np.concatenate([vars(past)[name], vars(ahead)[name]]) for name in vars(past)})

    chosen, without = (select(known, None, settings(), NOW) for known in (both, past))

    assert chosen.fingerprint() == without.fingerprint()


def test_a_model_that_learned_from_transactions_dated_ahead_is_judged_by_those_after_it_was_made() -> None:
    made, next_year = timestamp(NOW - timedelta(days=90)), timestamp(NOW + timedelta(days=365))
    misled = dataclasses.replace(served(made), training_window=(made, next_year))

    chosen = select(history(EVERY_FIFTH), misled, settings(), NOW)

    assert len(chosen.holdout) == 300
