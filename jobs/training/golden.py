"""Makes golden rows: synthetic rows with a model's scores, by which every later load proves that it scores alike."""

import numpy as np

from fraud_detection.features import Matrix
from fraud_detection.model.manifest import Golden
from fraud_detection.model.session import Session

GOLDEN_ROWS = 32
"""Earlier releases made 24 and took their cells from transactions: by the number `is_synthetic` knows them."""
GROUP = 10
_CANDIDATES = 48
_MOVED_BY = 0.05


def is_synthetic(golden: Golden) -> bool:
    """Return whether golden rows hold no transaction's values; those of earlier releases did."""
    return len(golden.rows) == GOLDEN_ROWS


def golden(onnx_bytes: bytes, rows: Matrix, seed: int) -> Golden:
    """Return synthetic rows with their scores, from the lowest score to the highest that were found.

    Each cell is the mean of at least GROUP neighbouring values of its column (of all values, if there are fewer), moved
    at random until it is the value of no row, not even in single precision.
    """
    random = np.random.default_rng(seed)
    model = Session(onnx_bytes)
    order = np.argsort(model.score(rows), kind="stable")
    # The smaller the part at either end, the more its rows look like what the model thinks genuine, or fraud.
    sizes = [size for size in (GROUP, 100, 1000, 10_000) if size < len(rows)]
    parts = [order, *(part for size in sizes for part in (order[:size], order[-size:]))]
    candidates = np.vstack([_candidates(rows[part], random) for part in parts])
    _move_away(candidates, rows, random)
    ranked = np.argsort(model.score(candidates), kind="stable")
    chosen = candidates[ranked[np.linspace(0, len(ranked) - 1, GOLDEN_ROWS).astype(np.int64)]]
    return Golden(chosen.tolist(), model.score(chosen).tolist())


def _candidates(rows: Matrix, random: np.random.Generator) -> Matrix:
    groups = np.array_split(np.sort(rows, axis=0), max(len(rows) // GROUP, 1))
    means = np.array([group.mean(axis=0) for group in groups])
    drawn = random.integers(len(means), size=(_CANDIDATES, rows.shape[1]))
    candidates: Matrix = np.take_along_axis(means, drawn, axis=0)
    return candidates


def _move_away(cells: Matrix, rows: Matrix, random: np.random.Generator) -> None:
    """Move every cell, and farther each time those that are still the value of a row."""
    spread = np.std(rows, axis=0)
    for column, values, unit in zip(cells.T, rows.T, np.where(spread > 0, spread, 1.0).tolist(), strict=True):
        step = _MOVED_BY * unit
        is_taken = np.ones(len(column), dtype=np.bool_)
        while is_taken.any():
            column[is_taken] += step * random.normal(size=int(is_taken.sum()))
            is_taken = np.isin(column.astype(np.float32), values.astype(np.float32))
            step *= 2
