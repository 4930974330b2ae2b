"""A score at the threshold is flagged, the next lower number is not, in lists and in arrays alike."""

import math

import numpy as np
import pytest

from fraud_detection.decision import flagged


@pytest.mark.parametrize("threshold", [0.001, 0.1, 0.4, 0.999])
def test_a_score_is_flagged_from_the_threshold_on(threshold: float) -> None:
    scores = [0.0, math.nextafter(threshold, 0), threshold, math.nextafter(threshold, 1), 1.0]

    assert flagged(scores, threshold) == [False, False, True, True, True]
    assert flagged(np.array(scores), threshold).tolist() == flagged(scores, threshold)


def test_no_scores_give_no_decisions() -> None:
    assert flagged([], 0.4) == []
    assert flagged(np.array([]), 0.4).tolist() == []
