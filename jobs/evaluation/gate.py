"""Decides whether a new model may replace the current one, on labelled transactions; in doubt it may not."""

from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np

from fraud_detection.counted import counted
from fraud_detection.decision import flagged
from jobs.evaluation.measures import Numbers, Truths, average_precision, check_scores, resampled_average_precisions

RECALL_LOSS = 0.05  # recall at the threshold that a better ranking may cost
ALERT_GROWTH = 1.5  # more would overload a review team
LOWER_BOUND = 0.05


@dataclass(frozen=True)
class Check:
    """One condition: what was measured, what was required, and a sentence for an analyst."""

    name: str
    value: float | None  # None if it could not be computed; then the check has failed
    limit: float | None
    passed: bool
    sentence: str


@dataclass(frozen=True)
class Verdict:
    """All conditions of a promotion. Without checks, or with a failed one, there is no promotion."""

    checks: tuple[Check, ...]

    @property
    def decision(self) -> Literal["promote", "hold", "reject"]:
        """Return `promote`, `hold` (too few labels to judge) or `reject` (judged, and not good enough)."""
        if self.checks and all(check.passed for check in self.checks):
            return "promote"
        if not self.checks or any(check.name == "enough_frauds" and not check.passed for check in self.checks):
            return "hold"
        return "reject"

    def also(self, *checks: Check) -> "Verdict":
        """Return the verdict with more conditions, such as those on the files of the model."""
        return Verdict(self.checks + checks)

    def to_dict(self) -> dict[str, Any]:
        """Return the verdict as manifest, MLflow and promotions.jsonl keep it."""
        return {"decision": self.decision, "checks": [asdict(check) for check in self.checks]}


@dataclass(frozen=True)
class Champion:
    """The current model: its scores of the hold-out, shape (n,)."""

    scores: Numbers
    is_baseline: bool  # trained on synthetic data


def judge(
    champion: Champion | None,
    challenger: Numbers,
    is_fraud: Truths,
    *,
    threshold: float,
    days: float,
    min_frauds: int,
    margin: float,
    seed: int,
) -> Verdict:
    """Judge the challenger's scores of the hold-out, shape (n,), against the truth and against the champion's.

    The rows must be truly labelled and unknown to both models; `days` is the time that they span.

    Always: at least `min_frauds` frauds, both classes predicted, average precision above the share of frauds (what
    a model that knows nothing reaches). Against a champion, in 2,000 paired resamples of the rows: the 5 % lower
    bound of the difference in average precision at least -`margin`; recall at the threshold lower by at most 0.05;
    alerts a day at most 1.5 times the champion's, or 1.5 times the frauds a day if these are more (a champion that
    misses most frauds raises few alerts, and would otherwise keep every better model out).

    Against the synthetic baseline, which knows no real transaction: mean difference at least -`margin`, and nothing
    else of it is compared. With 50 frauds the 5 % bound would reject nine of ten models that are as good. Without any
    champion nothing is compared.

    What cannot be computed (no rows, a score that is not a number from 0 to 1) fails its check.

    >>> random = np.random.default_rng(1)
    >>> is_fraud = random.random(20_000) < 0.01
    >>> def scores(skill):
    ...     return np.clip(random.normal(0.1 + skill * is_fraud, 0.1), 0, 1)
    >>> rules = dict(threshold=0.4, days=10, min_frauds=50, margin=0.02, seed=1)
    >>> champion = Champion(scores(0.3), is_baseline=False)
    >>> judge(champion, scores(0.35), is_fraud, **rules).decision
    'promote'
    >>> verdict = judge(champion, scores(0.2), is_fraud, **rules)
    >>> verdict.decision, [check.name for check in verdict.checks if not check.passed]
    ('reject', ['better_or_equal', 'recall'])
    >>> print(judge(champion, scores(0.35)[:900], is_fraud[:900], **rules).checks[0].sentence)
    The hold-out has 9 known frauds, 50 are needed: label 41 more.
    """
    frauds = int(is_fraud.sum())
    enough = _enough_frauds(frauds, min_frauds)
    intact = _scores_are_usable(champion, challenger, is_fraud, days)
    if not intact.passed or frauds == 0:
        return Verdict((enough, intact))
    checks = [
        enough,
        intact,
        _predicts_both_classes(challenger, threshold),
        _knows_something(challenger, is_fraud),
    ]
    if champion is not None:
        differences = _average_precision_differences(champion.scores, challenger, is_fraud, seed)
        if champion.is_baseline:
            checks.append(_replaces_the_baseline(differences, margin))
        else:
            checks.append(_better_or_equal(differences, margin))
            checks.append(_keeps_recall(champion.scores, challenger, is_fraud, threshold))
            checks.append(_keeps_alerts(champion.scores, challenger, frauds, threshold, days))
    return Verdict(tuple(checks))


def _enough_frauds(frauds: int, min_frauds: int) -> Check:
    missing = max(0, min_frauds - frauds)
    sentence = f"The hold-out has {counted(frauds, 'known fraud')}, {min_frauds} are needed"
    sentence += f": label {missing} more." if missing else "."
    return Check("enough_frauds", float(frauds), float(min_frauds), missing == 0, sentence)


def _scores_are_usable(champion: Champion | None, challenger: Numbers, is_fraud: Truths, days: float) -> Check:
    problem = None if 0 < days < float("inf") else f"the hold-out spans {days} days"
    for scores in (challenger, champion.scores if champion is not None else challenger):
        try:
            check_scores(scores, is_fraud)
        except ValueError as error:
            problem = str(error)
    if len(is_fraud) == 0:
        problem = "the hold-out is empty"
    sentence = f"Nothing can be compared: {problem}." if problem else "Every row of the hold-out has its scores."
    return Check("scores_usable", None, None, problem is None, sentence)


def _predicts_both_classes(challenger: Numbers, threshold: float) -> Check:
    share = float(np.mean(flagged(challenger, threshold)))
    sentence = f"The new model flags {share:.3%} of the hold-out; it must flag some and pass some."
    return Check("both_classes", share, None, 0 < share < 1, sentence)


def _knows_something(challenger: Numbers, is_fraud: Truths) -> Check:
    reached, share = average_precision(challenger, is_fraud), float(np.mean(is_fraud))
    sentence = f"The new model's average precision is {reached:.3f}; guessing reaches the share of frauds, {share:.3f}."
    return Check("better_than_guessing", reached, share, reached is not None and reached > share, sentence)


def _average_precision_differences(champion: Numbers, challenger: Numbers, is_fraud: Truths, seed: int) -> Numbers:
    paired = resampled_average_precisions([champion, challenger], is_fraud, seed=seed)
    differences = paired[:, 1] - paired[:, 0]
    known: Numbers = differences[~np.isnan(differences)]  # a resample without a fraud has no value
    return known


def _better_or_equal(differences: Numbers, margin: float) -> Check:
    bound = float(np.quantile(differences, LOWER_BOUND))
    sentence = (
        f"Average precision changes by {np.mean(differences):+.3f} against the current model, "
        f"at worst (5 % bound) by {bound:+.3f}; {-margin:+.3f} is allowed."
    )
    return Check("better_or_equal", bound, -margin, bound >= -margin, sentence)


def _replaces_the_baseline(differences: Numbers, margin: float) -> Check:
    change = float(np.mean(differences))
    sentence = f"Average precision changes by {change:+.3f} against the synthetic baseline; {-margin:+.3f} is allowed."
    return Check("replaces_baseline", change, -margin, change >= -margin, sentence)


def _keeps_recall(champion: Numbers, challenger: Numbers, is_fraud: Truths, threshold: float) -> Check:
    before, after = (float(np.mean(flagged(scores[is_fraud], threshold))) for scores in (champion, challenger))
    sentence = f"The new model flags {after:.1%} of the frauds, the current one {before:.1%}."
    # Rounded, because 0.85 - 0.05 is not 0.8 in binary, and 8 of 10 must pass a limit of 0.80.
    return Check("recall", after, before - RECALL_LOSS, round(after - before + RECALL_LOSS, 9) >= 0, sentence)


def _keeps_alerts(champion: Numbers, challenger: Numbers, frauds: int, threshold: float, days: float) -> Check:
    before, after = (int(np.sum(flagged(scores, threshold))) for scores in (champion, challenger))
    limit = ALERT_GROWTH * max(before, frauds)
    sentence = (
        f"The new model would raise {_rate(after / days)} alerts per day, the current one {_rate(before / days)}; "
        f"at most {_rate(limit / days)} are allowed."
    )
    return Check("alerts_per_day", after / days, limit / days, after <= limit, sentence)


def _rate(number: float) -> str:
    """Return a number with one decimal, and a whole one, as of a hold-out of a day, without.

    >>> _rate(201.0), _rate(2.25), _rate(1500.0)
    ('201', '2.2', '1,500')
    """
    return f"{number:,.1f}".removesuffix(".0")
