"""The gate promotes a model only if it is not worse, with numbers that say so."""

import json

import numpy as np
import pytest

from jobs.evaluation.gate import Champion, Check, Verdict, judge

FRAUDS, ROWS = 100, 5000
IS_FRAUD = np.arange(ROWS) < FRAUDS


def scores(seed: int, skill: float, is_fraud: np.ndarray = IS_FRAUD) -> np.ndarray:
    """Return scores around 0.1 for genuine transactions and around 0.1 + skill for frauds."""
    return np.clip(np.random.default_rng(seed).normal(0.1 + skill * is_fraud, 0.1), 0, 1)


def verdict(
    champion: Champion | np.ndarray | None,
    challenger: np.ndarray,
    is_fraud: np.ndarray = IS_FRAUD,
    *,
    threshold: float = 0.3,
    days: float = 10,
    min_frauds: int = 50,
    margin: float = 0.02,
) -> Verdict:
    if isinstance(champion, np.ndarray):
        champion = Champion(champion, is_baseline=False)
    return judge(
        champion, challenger, is_fraud, threshold=threshold, days=days, min_frauds=min_frauds, margin=margin, seed=1
    )  # fmt: skip


def failed(result: Verdict) -> list[str]:
    return [check.name for check in result.checks if not check.passed]


def test_a_better_model_is_promoted() -> None:
    result = verdict(scores(1, 0.25), scores(2, 0.35))

    assert result.decision == "promote"
    assert [check.name for check in result.checks] == [
        "enough_frauds", "scores_usable", "both_classes", "better_than_guessing", "better_or_equal", "recall",
        "alerts_per_day",
    ]  # fmt: skip


def test_the_same_model_again_is_promoted() -> None:
    assert verdict(scores(1, 0.3), scores(1, 0.3)).decision == "promote"


def test_a_worse_ranking_is_rejected_with_its_numbers() -> None:
    result = verdict(scores(1, 0.35), scores(2, 0.25), threshold=0.15)

    assert result.decision == "reject"
    check = next(check for check in result.checks if check.name == "better_or_equal")
    assert not check.passed
    assert check.limit == -0.02
    assert check.value is not None
    assert check.value < -0.02


def test_a_wider_margin_lets_a_slightly_worse_model_through() -> None:
    champion, challenger = scores(1, 0.32), scores(2, 0.32)

    assert failed(verdict(champion, challenger, margin=0.0)) == ["better_or_equal"]
    assert failed(verdict(champion, challenger, margin=0.3)) == []


@pytest.mark.parametrize(("frauds", "decision"), [(49, "hold"), (50, "promote"), (1, "hold"), (0, "hold")])
def test_too_few_frauds_hold_and_say_how_many_are_missing(frauds: int, decision: str) -> None:
    is_fraud = np.arange(ROWS) < frauds
    same = scores(1, 0.4, is_fraud)

    result = verdict(same, same, is_fraud)

    assert result.decision == decision
    if decision == "hold":
        assert f"label {50 - frauds} more" in result.checks[0].sentence


def flags(frauds: int) -> np.ndarray:
    """Return the scores of a model that ranks every fraud first and flags this number of them."""
    result = np.where(IS_FRAUD, 0.2, 0.1)
    result[:frauds] = 0.9
    return result


@pytest.mark.parametrize(("after", "passes"), [(85, True), (84, False)])
def test_recall_may_fall_by_five_points_and_no_more(after: int, passes: bool) -> None:
    result = verdict(flags(90), flags(after))

    assert ("recall" not in failed(result)) == passes


@pytest.mark.parametrize(("alerts", "passes"), [(300, True), (301, False)])
def test_alerts_may_grow_by_half_and_no_more(alerts: int, passes: bool) -> None:
    champion = np.where(np.arange(ROWS) < 200, 0.9, 0.1)
    challenger = np.where(np.arange(ROWS) < alerts, 0.9, 0.1)

    result = verdict(champion, challenger, margin=0.5)

    assert failed(result) == ([] if passes else ["alerts_per_day"])
    check = result.checks[-1]
    assert (check.value, check.limit) == (alerts / 10, 30)
    raised = "30" if passes else "30.1"
    assert f"would raise {raised} alerts per day, the current one 20; at most 30 are allowed." in check.sentence


def test_a_champion_that_misses_frauds_does_not_block_a_model_that_finds_them() -> None:
    blind = np.where(np.arange(ROWS) < 5, 0.9, scores(1, 0.0) / 10)
    finds_all = np.where(np.arange(ROWS) < 150, 0.9, 0.1)

    assert verdict(blind, finds_all).decision == "promote"
    assert failed(verdict(blind, np.where(np.arange(ROWS) < 151, 0.9, 0.1))) == ["alerts_per_day"]


@pytest.mark.parametrize("value", [0.0, 0.9])
def test_a_model_that_says_the_same_of_everything_is_rejected(value: float) -> None:
    """A never-fraud model is 98 % accurate here, and must fail."""
    assert {"both_classes", "better_than_guessing"} <= set(failed(verdict(None, np.full(ROWS, value))))


@pytest.mark.parametrize(
    ("champion", "challenger", "days"),
    [
        (scores(1, 0.3), np.where(np.arange(ROWS) == 7, np.nan, scores(2, 0.3)), 10),
        (np.full(ROWS, np.nan), scores(2, 0.3), 10),
        (scores(1, 0.3), scores(2, 0.3) + 1, 10),
        (scores(1, 0.3)[:-1], scores(2, 0.3), 10),
        (scores(1, 0.3), scores(2, 0.3), float("nan")),
        (scores(1, 0.3), scores(2, 0.3), 0),
    ],
    ids=["NaN", "champion NaN", "above 1", "a row missing", "days NaN", "no days"],
)
def test_what_cannot_be_computed_is_no_promotion(champion: np.ndarray, challenger: np.ndarray, days: float) -> None:
    result = verdict(champion, challenger, days=days)

    assert result.decision == "reject"
    assert failed(result) == ["scores_usable"]


def test_an_empty_hold_out_is_no_promotion() -> None:
    nothing = np.zeros(0)

    result = verdict(nothing, nothing, np.zeros(0, dtype=bool))

    assert (result.decision, failed(result)) == ("hold", ["enough_frauds", "scores_usable"])
    assert Verdict(()).decision == "hold"


@pytest.mark.parametrize(("allowed", "decision"), [(1.1, "promote"), (0.9, "reject")])
def test_a_model_replaces_the_synthetic_baseline_if_it_is_worse_by_the_margin_at_most(
    allowed: float, decision: str
) -> None:
    baseline, slightly_worse = Champion(scores(1, 0.25), is_baseline=True), scores(5, 0.25)
    measured = verdict(baseline, slightly_worse).checks[-1].value
    assert measured is not None
    assert measured < -0.02
    margin = -measured * allowed

    result = verdict(baseline, slightly_worse, margin=margin)

    assert result.decision == decision
    check = result.checks[-1]
    assert (check.name, check.value, check.limit) == ("replaces_baseline", measured, -margin)
    assert f"{measured:+.3f} against the synthetic baseline; {-margin:+.3f} is allowed" in check.sentence


def test_a_model_as_good_as_the_synthetic_baseline_is_not_asked_for_the_bound_of_a_real_one() -> None:
    before, as_good = scores(1, 0.25), scores(5, 0.26)  # average precision changes by -0.0008

    assert "better_or_equal" in failed(verdict(Champion(before, is_baseline=False), as_good))
    assert failed(verdict(Champion(before, is_baseline=True), as_good)) == []


def test_the_alerts_of_the_synthetic_baseline_are_no_measure() -> None:
    baseline = Champion(scores(1, 0.0) / 10, is_baseline=True)
    flags_many = np.where(IS_FRAUD, 0.9, np.where(np.arange(ROWS) < 400, 0.5, 0.1))

    assert verdict(baseline, flags_many).decision == "promote"


def test_without_a_champion_nothing_is_compared() -> None:
    result = verdict(None, scores(1, 0.3))

    assert result.decision == "promote"
    assert [check.name for check in result.checks][-1] == "better_than_guessing"


def test_another_condition_can_stop_a_promotion() -> None:
    result = verdict(scores(1, 0.25), scores(2, 0.35))

    intact = result.also(Check("parity", 2e-6, 1e-6, passed=False, sentence="ONNX and pickle differ."))

    assert intact.decision == "reject"
    assert failed(intact) == ["parity"]


def test_a_verdict_can_be_kept_as_json() -> None:
    result = verdict(np.full(ROWS, np.nan), scores(2, 0.3))

    kept = json.loads(json.dumps(result.to_dict(), allow_nan=False))

    assert kept["decision"] == "reject"
    assert set(kept["checks"][0]) == {"name", "value", "limit", "passed", "sentence"}


def test_the_verdict_is_the_same_each_time() -> None:
    assert verdict(scores(1, 0.3), scores(2, 0.3)) == verdict(scores(1, 0.3), scores(2, 0.3))


def promotions(skill: float, trials: int) -> int:
    """Promotions of a challenger with this skill over a champion of average precision 0.5.

    Two models of one feed find the same transactions hard: four fifths of the variance of their scores is shared.
    """
    promoted = 0
    for trial in range(trials):
        random = np.random.default_rng(trial)
        shared = np.sqrt(0.8) * random.normal(size=ROWS)
        champion, challenger = (
            np.clip(0.1 + each * IS_FRAUD + 0.1 * (shared + np.sqrt(0.2) * random.normal(size=ROWS)), 0, 1)
            for each in (0.23, skill)
        )
        promoted += verdict(champion, challenger, threshold=0.25).decision == "promote"
    return promoted


def test_at_100_frauds_a_model_worse_by_a_tenth_is_rejected_and_one_better_by_a_tenth_promoted() -> None:
    """Skills 0.207 and 0.2535 are average precisions of 0.4 and 0.6."""
    assert promotions(0.207, 25) == 0
    assert promotions(0.2535, 25) >= 22
