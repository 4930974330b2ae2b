"""Read or make up transactions in the public data set's form, for walks of the whole loop."""

import csv
import gzip
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from fraud_detection.features import default_features
from fraud_detection.model.manifest import AmountScaling
from jobs.synthetic.transactions import synthetic

CALM = 600
"""Transactions before the change."""

SHIFT = {"V4": -4.0, "V10": 6.0, "V12": 7.0, "V14": 8.0, "V17": 7.0}
"""What a new kind of fraud and new customers do to the features that the current model relies on."""

_HEADER = ["Time", *default_features().names[:-1], "Amount", "Class"]
_EUROS = AmountScaling(mean=88.0, standard_deviation=250.0)


@dataclass(frozen=True)
class Sample:
    """Transactions in order of time: half is history; of the rest the first are calm, and the others can be shifted."""

    lines: list[list[str]]

    @property
    def history(self) -> slice:
        """The transactions that an installation imports first."""
        return slice(0, len(self.lines) // 2)

    @property
    def calm(self) -> slice:
        """Later transactions that are distributed as history is."""
        return slice(len(self.lines) // 2, len(self.lines) // 2 + CALM)

    @property
    def changed(self) -> slice:
        """Later transactions after the change."""
        return slice(len(self.lines) // 2 + CALM, None)

    def text(self, rows: slice) -> str:
        """Return rows as a CSV file."""
        file = io.StringIO()
        csv.writer(file).writerows([_HEADER, *self.lines[rows]])
        return file.getvalue()

    def scaled(self, rows: slice, scaling: dict[str, float]) -> list[list[float]]:
        """Return rows as the API takes them, with the amount scaled as GET /model says."""
        return [
            [*map(float, line[1:29]), (float(line[29]) - scaling["mean"]) / scaling["standard_deviation"]]
            for line in self.lines[rows]
        ]

    def truths(self, rows: slice) -> list[int]:
        """Return 1 for each fraud, else 0."""
        return [int(line[30]) for line in self.lines[rows]]


def read_sample(path: Path) -> Sample:
    """Read the gzipped CSV file of real transactions."""
    with gzip.open(path, "rt", newline="") as file:
        header, *lines = csv.reader(file)
    assert header == _HEADER
    return Sample(sorted(lines, key=lambda line: float(line[0])))


def made_up_sample() -> Sample:
    """Make up 10,000 transactions of other customers than those on which the model of the images was trained."""
    made = synthetic(10_000, seed=7, fraud_share=0.025)
    others = {name: shift / 2 for name, shift in SHIFT.items()}
    rows = shifted(made.matrix.tolist(), others)
    amounts = [max(0.0, row[-1] * _EUROS.standard_deviation + _EUROS.mean) for row in rows]
    return Sample(
        [
            [str(second * 17), *map(str, row[:-1]), f"{amount:.2f}", str(int(truth))]
            for second, (row, amount, truth) in enumerate(zip(rows, amounts, made.is_fraud, strict=True))
        ]
    )


def shifted(rows: Sequence[Sequence[float]], shift: dict[str, float] = SHIFT) -> list[list[float]]:
    """Move features by the amounts of `shift`."""
    names = default_features().names
    return [[value + shift.get(name, 0.0) for name, value in zip(names, row, strict=True)] for row in rows]
