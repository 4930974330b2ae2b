"""Drift is a large and significant change in both windows, and everything less is not."""

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from fraud_detection.features import Feature, FeatureList, Matrix
from fraud_detection.model.manifest import Holdout, holdout_of
from jobs.drift.compare import Decisions, Reference, Window, compare
from jobs.drift.report import DriftReport

SEVEN = FeatureList(tuple(Feature(f"f{number}", -100, 100) for number in range(7)))
NO_DECISIONS = Decisions(0, 0, ())
NO_SCORES = np.zeros(0)


def window(rows: Matrix, scores: np.ndarray = NO_SCORES) -> Window:
    return Window(
        rows, scores, "2026-01-01 00:00:00.000000", "2026-01-02 00:00:00.000000", schema_version=np.full(len(rows), 5)
    )


def judged(
    older: Matrix,
    newer: Matrix,
    *,
    reference: Matrix | None = None,
    holdout: Holdout | None = None,
    is_baseline: bool = False,
    scores: tuple[np.ndarray, np.ndarray] = (NO_SCORES, NO_SCORES),
    decisions: Decisions = NO_DECISIONS,
    min_rows: int = 500,
    first_reference: Matrix | None = None,
) -> DriftReport:
    return compare(
        Reference(rows(0, 4000) if reference is None else reference, holdout, is_baseline),
        window(older, scores[0]),
        window(newer, scores[1]),
        features=SEVEN,
        decisions=decisions,
        min_rows=min_rows,
        first_reference=first_reference,
    )


def rows(seed: int, count: int = 1000, shift: dict[int, float] | None = None) -> Matrix:
    matrix = np.random.default_rng(seed).normal(size=(count, 7))
    for place, distance in (shift or {}).items():
        matrix[:, place] += distance
    return matrix


def test_equal_distributions_are_ok() -> None:
    report = judged(rows(1), rows(2))

    assert (report.state, report.reasons, report.retrain, report.warned) == ("ok", (), False, ())


def test_a_change_in_one_half_alone_is_a_warning() -> None:
    report = judged(rows(1), rows(2, shift={3: 0.5}))

    assert (report.state, report.reasons, report.retrain) == ("warn", ("features",), False)
    assert report.warned == ("f3",)
    assert "f3" in report.explanation[0]


def test_a_change_in_both_halves_is_drift_and_asks_for_retraining() -> None:
    report = judged(rows(1, shift={3: 0.5}), rows(2, shift={3: 0.5}))

    assert (report.state, report.reasons, report.retrain) == ("drift", ("features",), True)
    assert report.d_max == pytest.approx(2 * stats.norm.cdf(0.25) - 1, abs=0.04)


def test_three_warned_features_are_drift_and_two_are_not() -> None:
    small = 0.18  # D about 0.07: warned, not drifted

    def both_halves(*places: int) -> str:
        shift = dict.fromkeys(places, small)
        return judged(rows(1, 20_000, shift), rows(2, 20_000, shift), reference=rows(0, 10_000)).state

    assert both_halves(0, 1) == "warn"
    assert both_halves(0, 1, 2) == "drift"


def test_a_shift_too_small_to_matter_is_ok_however_significant_it_is() -> None:
    report = judged(rows(1, 40_000, {0: 0.06}), rows(2, 40_000, {0: 0.06}), reference=rows(0, 10_000))

    assert report.features[0].newer.p_adjusted < 0.01
    assert report.state == "ok"


@pytest.mark.parametrize(("older", "newer"), [(499, 500), (500, 499), (0, 0)])
def test_a_half_with_too_few_rows_is_no_evidence(older: int, newer: int) -> None:
    report = judged(rows(1, older, {0: 5}), rows(2, newer, {0: 5}))

    assert (report.state, report.reasons, report.retrain) == ("insufficient_data", ("insufficient_data",), False)
    assert report.features == ()
    assert str(min(older, newer)) in report.explanation[0]


def test_a_stuck_feature_is_a_broken_feed_and_is_not_trained_on() -> None:
    stuck = rows(1)
    stuck[:, 2] = 0

    report = judged(stuck, stuck)

    assert (report.state, report.reasons, report.retrain) == ("drift", ("data_quality", "features"), False)
    assert "f2 was 0 in every row" in report.explanation[0]


def test_a_feed_that_is_broken_throughout_is_described_briefly() -> None:
    report = judged(np.zeros((1000, 7)), np.zeros((1000, 7)))

    assert report.explanation[0].count("in every row") == 5
    assert "and 9 more" in report.explanation[0]


def test_a_feature_that_never_varied_may_stay_as_it_is() -> None:
    reference, older, newer = rows(0, 4000), rows(1), rows(2)
    for matrix in (reference, older, newer):
        matrix[:, 2] = 1

    report = judged(older, newer, reference=reference)

    assert report.state == "ok"
    assert report.features[2].newer.wasserstein_sigmas is None


def test_a_rare_value_may_be_absent_by_chance() -> None:
    reference, older, newer = rows(0, 4000), rows(1), rows(2)
    for matrix in (reference, older, newer):
        matrix[:, 2] = 0
    reference[:4, 2] = 1  # one row in a thousand

    assert judged(older, newer, reference=reference).state == "ok"


@pytest.mark.parametrize(("value", "state"), [(101.0, "drift"), (-101.0, "drift"), (np.nan, "drift"), (3.0, "ok")])
def test_a_value_outside_the_bounds_is_a_broken_feed(value: float, state: str) -> None:
    newer = rows(2)
    newer[7, 5] = value

    report = judged(rows(1), newer)

    assert report.state == state
    assert report.reasons == (("data_quality",) if state == "drift" else ())


HOLDOUT = Holdout(rows=50_000, alerts=85, threshold=0.4, score_bands=[45_000, 3000, 1000, 600, 315, 45, 25, 15])


@pytest.mark.parametrize(
    ("alerts", "state"),
    [(170, "drift"), (85, "ok"), (120, "ok"), (40, "drift"), (60, "ok"), (0, "drift")],
    ids=["doubled", "same", "1.4 times", "halved", "1 / 1.4", "none"],
)
def test_a_significant_change_of_the_alert_rate_by_half_is_drift(alerts: int, state: str) -> None:
    report = judged(rows(1), rows(2), holdout=HOLDOUT, decisions=Decisions(50_000, alerts, (0.4,)))

    assert report.state == state
    assert report.retrain == (state == "drift")
    assert report.reasons == (("alert_rate",) if state == "drift" else ())


def test_a_large_change_of_few_alerts_may_be_chance() -> None:
    report = judged(rows(1), rows(2), holdout=HOLDOUT, decisions=Decisions(2_000, 7, (0.4,)))

    assert report.alert_rate is not None
    assert report.alert_rate.ratio == pytest.approx(2.06, abs=0.01)
    assert report.state == "ok"


def test_another_threshold_is_noted_and_not_an_alarm() -> None:
    report = judged(rows(1), rows(2), holdout=HOLDOUT, decisions=Decisions(50_000, 900, (0.2, 0.4)))

    assert report.state == "ok"
    assert report.alert_rate is not None
    assert report.alert_rate.threshold_differs
    assert any("FRAUD_THRESHOLD has changed" in note for note in report.notes)


def test_alerts_have_no_ratio_to_a_hold_out_without_alerts() -> None:
    holdout = replace(HOLDOUT, alerts=0)

    report = judged(rows(1), rows(2), holdout=holdout, decisions=Decisions(50_000, 60, (0.4,)))

    assert (report.state, report.reasons) == ("drift", ("alert_rate",))
    assert report.alert_rate is not None
    assert report.alert_rate.ratio is None


@pytest.mark.parametrize(
    ("holdout", "decisions"),
    [(None, Decisions(100, 1, (0.4,))), (replace(HOLDOUT, rows=0), Decisions(100, 1, (0.4,))), (HOLDOUT, NO_DECISIONS)],
)
def test_without_a_hold_out_or_decisions_the_alert_rate_is_not_compared(
    holdout: Holdout | None, decisions: Decisions
) -> None:
    report = judged(rows(1), rows(2), holdout=holdout, decisions=decisions)

    assert report.alert_rate is None
    assert any(note.startswith("the alert rate was not compared") for note in report.notes)


def scores(seed: int, count: int, mean: float) -> np.ndarray:
    return np.random.default_rng(seed).beta(mean * 5, (1 - mean) * 5, size=count)


@pytest.mark.parametrize(
    ("means", "count", "state", "reasons"),
    [
        ((0.1, 0.1), 5000, "ok", ()),
        ((0.2, 0.2), 5000, "drift", ("score",)),
        ((0.2, 0.2), 4999, "warn", ("score",)),
        ((0.1, 0.2), 5000, "warn", ("score",)),
        ((0.14, 0.14), 5000, "warn", ("score",)),
        ((0.2, 0.2), 400, "ok", ()),
    ],
    ids=["same", "both moved", "too few to decide", "one window", "moved a little", "too few to compare"],
)
def test_scores_decide_by_their_distribution(
    means: tuple[float, float], count: int, state: str, reasons: tuple[str, ...]
) -> None:
    report = judged(
        rows(1), rows(2), holdout=holdout_of(scores(0, 20_000, 0.1), 0.4),
        scores=(scores(1, count, means[0]), scores(2, count, means[1])),
    )  # fmt: skip

    assert (report.state, report.reasons, report.retrain) == (state, reasons, state == "drift")


def test_every_reason_that_holds_is_named_and_the_first_decides() -> None:
    shift = {3: 0.5}

    report = judged(
        rows(1, shift=shift), rows(2, shift=shift), holdout=HOLDOUT, decisions=Decisions(50_000, 200, (0.4,))
    )

    assert (report.state, report.reasons, report.retrain) == ("drift", ("features", "alert_rate"), True)
    assert len(report.explanation) == 2


@pytest.mark.parametrize("shift", [{}, {3: 0.5}, {3: 500}])
def test_a_synthetic_reference_never_says_more_than_warn(shift: dict[int, float]) -> None:
    report = judged(rows(1, shift=shift), rows(2, shift=shift), is_baseline=True)

    assert (report.state, report.retrain) == ("warn", False)
    assert report.reasons[0] == "baseline_reference"
    assert ("features" in report.reasons) == bool(shift)
    assert "Import history or label" in report.explanation[0]


def test_a_synthetic_model_was_trained_and_never_judged() -> None:
    report = judged(
        rows(1),
        rows(2),
        is_baseline=True,
        holdout=holdout_of(scores(0, 20_000, 0.1), 0.4),
        scores=(scores(1, 1000, 0.2), scores(2, 1000, 0.2)),
        decisions=Decisions(50_000, 10_000, (0.4,)),
    )

    assert report.reasons == ("baseline_reference", "alert_rate", "score")
    flagged = "In the last 14 days the model flagged 20.000% of transactions; when it was trained it flagged "
    assert report.explanation[1].startswith(flagged)
    assert "The score distribution has changed since the model was trained (PSI" in report.explanation[2]


def test_too_few_rows_come_before_the_synthetic_reference() -> None:
    assert judged(rows(1, 10), rows(2, 10), is_baseline=True).state == "insufficient_data"


def test_the_oldest_reference_is_compared_with_and_decides_nothing() -> None:
    report = judged(rows(1), rows(2), first_reference=rows(3, 4000, {1: 2}))

    assert report.state == "ok"
    assert report.features[1].d_since_first == report.d_since_first
    assert report.d_since_first == pytest.approx(2 * stats.norm.cdf(1) - 1, abs=0.03)


@pytest.mark.parametrize(
    ("reference", "message"),
    [
        (np.zeros((0, 7)), "expected reference rows of 7 features"),
        (np.zeros((10, 6)), "expected reference rows of 7 features"),
        (np.full((10, 7), np.nan), "finite"),
    ],
)
def test_refuses_a_reference_that_cannot_be_one(reference: Matrix, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        judged(rows(1), rows(2), reference=reference)


TWENTY_NINE = FeatureList(tuple(Feature(f"V{number}") for number in range(29)))


def simulated_states(runs: int, count: int, shift: float, places: int) -> Counter[str]:
    """Return the states of independent runs; the first `places` of 29 features move by `shift` in both windows."""
    states: Counter[str] = Counter()
    for seed in range(runs):
        random = np.random.default_rng(seed)
        moved = np.where(np.arange(29) < places, shift, 0.0)
        report = compare(
            Reference(random.normal(size=(10_000, 29)), None, is_baseline=False),
            window(random.normal(size=(count, 29)) + moved),
            window(random.normal(size=(count, 29)) + moved),
            features=TWENTY_NINE,
            decisions=NO_DECISIONS,
            min_rows=500,
        )
        states[report.state] += 1
    return states


def test_without_any_change_there_is_no_false_alarm() -> None:
    assert simulated_states(10, 500, shift=0, places=0)["drift"] == 0


def test_a_third_of_a_standard_deviation_in_three_features_is_found() -> None:
    assert simulated_states(6, 1000, shift=0.3, places=3) == {"drift": 6}


def test_a_fiftieth_of_a_standard_deviation_everywhere_is_never_drift() -> None:
    assert simulated_states(2, 10_000, shift=0.02, places=29)["drift"] == 0


def test_a_doubled_fraud_rate_is_found_by_the_alerts_and_chance_is_not() -> None:
    random = np.random.default_rng(1)
    older, newer = rows(1), rows(2)

    def share_of_alarms(rate: float) -> float:
        reports = [
            judged(
                older, newer, reference=rows(0, 1000),
                holdout=replace(HOLDOUT, alerts=int(random.binomial(50_000, 0.0017))),
                decisions=Decisions(50_000, int(random.binomial(50_000, rate)), (0.4,)),
            )
            for _ in range(40)
        ]  # fmt: skip
        return sum(report.state == "drift" for report in reports) / len(reports)

    assert share_of_alarms(0.0034) >= 0.95
    assert share_of_alarms(0.0017) <= 0.02
