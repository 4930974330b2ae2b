"""Decides on a transaction: the one place that compares a score with the threshold."""

from collections.abc import Sequence
from typing import overload

import numpy as np
from numpy.typing import NDArray


@overload
def flagged(scores: NDArray[np.float64], threshold: float) -> NDArray[np.bool_]: ...


@overload
def flagged(scores: Sequence[float], threshold: float) -> list[bool]: ...


def flagged(scores: NDArray[np.float64] | Sequence[float], threshold: float) -> NDArray[np.bool_] | list[bool]:
    """Return for each score whether its transaction is flagged: if the score is at least the threshold.

    A list gives a list, which is faster than an array for the few rows of a request.

    >>> flagged([0.39, 0.4, 1.0], 0.4)
    [False, True, True]
    >>> flagged(np.array([0.39, 0.4, 1.0]), 0.4).tolist()
    [False, True, True]
    """
    if isinstance(scores, np.ndarray):
        return scores >= threshold
    return [score >= threshold for score in scores]
