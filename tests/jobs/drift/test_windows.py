"""The newest transactions form two equal windows with the scores of one model."""

import numpy as np
import pytest

from fraud_detection.store.history import History
from jobs.drift.windows import consecutive_windows


def history(rows: int) -> History:
    """Make up transactions a day apart; every third was scored by another model."""
    texts = np.array([f"2026-01-{day + 1:02}" for day in range(rows)], dtype=np.str_)
    return History(
        request_id=texts, row_index=np.zeros(rows, np.int64), ts=texts,
        matrix=np.arange(rows, dtype=float).reshape(-1, 1),
        fraud_probability=np.arange(rows) / 100, is_flagged=np.zeros(rows, np.bool_),
        model_digest=np.array(["other" if day % 3 == 0 else "ours" for day in range(rows)], dtype=np.str_),
        is_fraud=np.full(rows, -1, np.int8), label_source=texts, schema_version=np.full(rows, 5),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("rows", "older", "newer"), [(6, [0, 1, 2], [3, 4, 5]), (7, [1, 2, 3], [4, 5, 6]), (1, [], [])]
)
def test_the_newest_transactions_are_cut_into_equal_consecutive_windows(
    rows: int, older: list[int], newer: list[int]
) -> None:
    windows = consecutive_windows(history(rows), "ours")

    assert [window.rows[:, 0].tolist() for window in windows] == [older, newer]


def test_a_window_says_when_it_was_and_holds_the_scores_of_the_one_model() -> None:
    older, newer = consecutive_windows(history(6), "ours")

    assert (older.start, older.end, newer.start, newer.end) == ("2026-01-01", "2026-01-03", "2026-01-04", "2026-01-06")
    assert older.scores.tolist() == [0.01, 0.02]
    assert consecutive_windows(history(0), "ours")[0].start is None
