"""Draws how a model performs on labelled transactions, as PNG."""

import io

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray
from sklearn.metrics import precision_recall_curve

from jobs.evaluation.measures import Numbers, Truths

_SHOWN_FEATURES = 15


def precision_recall(scores: dict[str, Numbers], is_fraud: Truths, threshold: float) -> bytes:
    """Draw precision against recall for each named model, with a dot at the threshold."""
    figure, axes = _axes("Precision and recall on the hold-out", "recall", "precision")
    for name, scored in scores.items():
        precision, recall, thresholds = precision_recall_curve(is_fraud, scored)
        (line,) = axes.plot(recall, precision, label=name, drawstyle="steps-post")
        place = int(np.searchsorted(thresholds, threshold))
        axes.plot(recall[place], precision[place], "o", color=line.get_color())
    axes.legend()
    return _png(figure)


def score_histogram(scores: Numbers, is_fraud: Truths, threshold: float) -> bytes:
    """Draw the score histograms of frauds and genuine transactions, on a logarithmic scale."""
    figure, axes = _axes("Scores on the hold-out", "score", "transactions")
    edges = np.linspace(0, 1, 41)
    axes.hist(
        [scores[~is_fraud], scores[is_fraud]],
        bins=edges.tolist(),
        label=["genuine", "fraud"],
        histtype="step",
        log=True,
    )
    axes.axvline(threshold, color="black", linestyle=":", label="threshold")
    axes.legend()
    return _png(figure)


def feature_importances(importances: NDArray[np.float64], names: tuple[str, ...]) -> bytes:
    """Draw the most important features of the forest."""
    figure, axes = _axes("What the forest looks at", "mean decrease in impurity", "", left=0.3)
    order = np.argsort(importances)[-_SHOWN_FEATURES:]
    axes.barh([names[place] for place in order], importances[order])
    return _png(figure)


def confusion_matrix(true_positives: int, false_positives: int, false_negatives: int, true_negatives: int) -> bytes:
    """Draw the four counts at the threshold."""
    figure, axes = _axes("Decisions on the hold-out", "decision", "truth")
    counts = [[true_negatives, false_positives], [false_negatives, true_positives]]
    axes.imshow(np.log1p(counts), cmap="Blues")
    for row, line in enumerate(counts):
        for column, count in enumerate(line):
            axes.text(column, row, f"{count:,}", ha="center", va="center", bbox={"facecolor": "white"})
    axes.set_xticks([0, 1], ["passed", "flagged"])
    axes.set_yticks([0, 1], ["genuine", "fraud"])
    return _png(figure)


def _axes(title: str, x: str, y: str, *, left: float = 0.14) -> tuple[Figure, Axes]:
    # A Figure of its own instead of pyplot's: no global state and no window system.
    figure = Figure(figsize=(6, 4))
    axes = figure.add_axes((left, 0.14, 0.96 - left, 0.76))  # a layout engine would draw each picture three times
    axes.set(title=title, xlabel=x, ylabel=y)
    return figure, axes


def _png(figure: Figure) -> bytes:
    content = io.BytesIO()
    figure.savefig(content, format="png", metadata={"Software": None})  # equal input, equal bytes
    return content.getvalue()
