"""Plots show their numbers: equal numbers give equal pictures."""

import zlib

import numpy as np
import pytest

from jobs.evaluation import plots

RANDOM = np.random.default_rng(1)
IS_FRAUD = RANDOM.random(2000) < 0.05
SCORES = np.clip(RANDOM.normal(0.1 + 0.5 * IS_FRAUD, 0.15), 0, 1)

PICTURES = {
    "precision_recall": lambda: plots.precision_recall({"new": SCORES, "in service": SCORES / 2}, IS_FRAUD, 0.4),
    "no_alerts": lambda: plots.precision_recall({"new": SCORES / 4}, IS_FRAUD, 0.4),
    "score_histogram": lambda: plots.score_histogram(SCORES, IS_FRAUD, 0.4),
    "feature_importances": lambda: plots.feature_importances(np.arange(3) / 3, ("V1", "V2", "Amount_scaled")),
    "confusion_matrix": lambda: plots.confusion_matrix(80, 10, 20, 0),
}


@pytest.mark.parametrize("name", PICTURES)
def test_equal_numbers_draw_equal_pictures(name: str) -> None:
    first, again = PICTURES[name](), PICTURES[name]()

    assert first == again
    assert first.startswith(b"\x89PNG")
    assert len(zlib.compress(first)) > 5_000  # an empty sheet compresses to less


def test_other_numbers_draw_another_picture() -> None:
    assert plots.confusion_matrix(1, 2, 3, 4) != plots.confusion_matrix(1, 2, 4, 3)
