"""Made-up transactions have the marginals and the dependence of what was described."""

import numpy as np
import pytest
from scipy import stats

from fraud_detection.features import Feature, FeatureList
from jobs.synthetic.statistics import PUBLIC_STATISTICS, describe, read_statistics
from jobs.synthetic.transactions import Transactions, synthetic

TWO = FeatureList((Feature("amount"), Feature("age_days")))


def made_up(rows: int = 4000) -> Transactions:
    """Make up skewed amounts that fall with the age of the account; frauds are large and of young accounts."""
    random = np.random.default_rng(5)
    is_fraud = np.arange(rows) % 10 == 0
    age = random.exponential(200, rows) * np.where(is_fraud, 0.2, 1)
    amount = np.exp(random.normal(3, 1, rows) - age / 200) * np.where(is_fraud, 6, 1)
    return Transactions(np.column_stack([amount, age]), is_fraud)


def test_made_up_transactions_have_the_marginals_and_the_dependence_of_what_was_described() -> None:
    described = made_up()

    drawn = synthetic(20_000, seed=1, statistics=describe(described.matrix, described.is_fraud, TWO, source="test"))

    assert drawn.is_fraud.mean() == pytest.approx(0.1)
    for is_fraud in (False, True):
        real, made = described.matrix[described.is_fraud == is_fraud], drawn.matrix[drawn.is_fraud == is_fraud]
        for place in range(2):
            assert stats.ks_2samp(real[:, place], made[:, place]).statistic < 0.05
        assert stats.spearmanr(made)[0] == pytest.approx(stats.spearmanr(real)[0], abs=0.1)


def test_the_same_seed_makes_the_same_transactions_and_another_seed_others() -> None:
    first, again, other = (synthetic(500, seed=seed) for seed in (1, 1, 2))

    assert np.array_equal(first.matrix, again.matrix)
    assert np.array_equal(first.is_fraud, again.is_fraud)
    assert not np.array_equal(first.matrix, other.matrix)


def test_frauds_lie_everywhere_among_the_genuine_ones() -> None:
    drawn = synthetic(1000, seed=1, fraud_share=0.2)

    assert 60 < drawn.is_fraud[:500].sum() < 140


@pytest.mark.parametrize(("share", "frauds"), [(0.0, 1), (1.0, 99), (0.25, 25)])
def test_both_classes_are_always_made(share: float, frauds: int) -> None:
    assert synthetic(100, seed=1, fraud_share=share).is_fraud.sum() == frauds


def test_amounts_of_the_public_statistics_are_never_below_zero() -> None:
    statistics = read_statistics(PUBLIC_STATISTICS)
    assert statistics.amount_scaling is not None

    scaled = synthetic(5000, seed=1).matrix[:, 28]

    amounts = scaled * statistics.amount_scaling.standard_deviation + statistics.amount_scaling.mean
    assert amounts.min() > -0.1  # the table is rounded


def test_a_constant_feature_stays_constant() -> None:
    transactions = made_up()
    transactions.matrix[:, 1] = 7

    drawn = synthetic(100, seed=1, statistics=describe(transactions.matrix, transactions.is_fraud, TWO, source="test"))

    assert np.array_equal(drawn.matrix[:, 1], np.full(100, 7.0))
