"""Goes once round the loop on made-up transactions, by the jobs of an installation of its own: `fraudctl demo`."""

import textwrap
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np

from fraud_detection.clock import timestamp
from jobs.detect_drift import detect_drift
from jobs.evaluation.measures import Evaluation, Numbers, evaluate
from jobs.exchange.api_client import ApiClient, rows_per_request
from jobs.exchange.import_file import import_file
from jobs.exchange.write_table import TableWriter
from jobs.installation import Installation
from jobs.progress import bar, step
from jobs.retrain import retrain
from jobs.rollout.artifacts import ARTIFACTS
from jobs.rollout.running_api import RunningApi
from jobs.synthetic.baseline import seed_baseline
from jobs.synthetic.simulate_drift import shifted
from jobs.synthetic.statistics import statistics_for
from jobs.synthetic.transactions import Transactions, synthetic
from jobs.training.outcome import RetrainOutcome

HISTORY_ROWS = 6_000
A_DAY = 2_000
DAYS_AFTER_THE_CHANGE = 4
FRAUD_SHARE = 0.04  # real traffic has fewer; the gate needs 50 frauds among the newest transactions
CHANGE = {"V4": -3.0, "V10": 4.0, "V12": 4.0, "V14": 4.0, "V17": 4.0}
"""What moves when the world changes: the features that a model relies on most, by standard deviations."""

SETTINGS = {
    "LABEL_MATURITY_DAYS": ("0", "labels of today count at once"),
    "RETRAIN_COOLDOWN_DAYS": ("0", "drift need not wait a week after the first judgement"),
    "DRIFT_WINDOW_ROWS": (str(A_DAY), "a window of drift is one day of these transactions"),
}
"""Each variable that the demonstration sets to another value than the default, and why."""

_COMPARED = {"replaces_baseline", "better_or_equal"}


@dataclass(frozen=True)
class _Scored:
    """Transactions with the scores that the API gave them before their labels arrived."""

    transactions: Transactions
    scores: Numbers

    def measured(self, threshold: float) -> Evaluation:
        return evaluate(self.scores, self.transactions.is_fraud, threshold=threshold, days=1, seed=1)


class Demo:
    """One walk round the loop: `tell` prints a line of its story.

    Call the methods in their order; the API starts before `go_round`. Equal seeds give equal transactions.
    """

    def __init__(self, here: Installation, *, seed: int, tell: Callable[[str], None]) -> None:
        self._here, self._seed, self._tell = here, seed, tell
        self._steps = self._draws = 0
        self.last_transaction = "history-0"

    def prepare(self, folder: Path, now: datetime) -> None:
        """Import labelled history, and train the first model of the installation on synthetic transactions."""
        history = self._transactions(HISTORY_ROWS)
        file = folder / "history.csv"
        first = now - timedelta(days=75)  # 60 days that ended 15 days ago, before anything that drift compares
        columns = {"transaction_id": str, "ts": str, **dict.fromkeys(self._here.features.names, float), "Class": int}
        with file.open("w", encoding="utf-8", newline="") as out, TableWriter(out, columns) as table:
            for place, (numbers, truth) in enumerate(zip(history.matrix.tolist(), history.is_fraud, strict=True)):
                ts = timestamp(first + timedelta(days=60) * place / HISTORY_ROWS)
                table.add([f"history-{place}", ts, *numbers, int(truth)])
        imported = import_file(file, self._here, now=now)
        self._tell_step(f"History: {imported.rows:,} labelled transactions imported, {imported.frauds} of them fraud.")

        with step("training the first model"):
            seed_baseline(
                self._here.settings.baseline_dir,
                self._here.features,
                statistics_for(self._here),
                threshold=self._here.settings.fraud_threshold,
                now=now,
            )

    def go_round(self, api: RunningApi) -> RetrainOutcome:
        """Score, label, change the world, find drift, retrain and serve; return how the last retraining ended."""
        threshold = self._here.settings.fraud_threshold
        with ApiClient(api.client) as client:
            self._tell_step(f"API: serves {client.served_model().version}, trained on synthetic transactions.")
            outcome = self._retrained(api)
            if outcome != "promoted":
                return outcome

            before = self._scored(client, "calm", self._transactions(A_DAY))
            self._tell_step(f"A day: {A_DAY:,} transactions scored by the API, then labelled.")
            self._drift()

            rows = A_DAY * DAYS_AFTER_THE_CHANGE
            after = self._scored(client, "changed", self._changed(self._transactions(rows)))
            self._tell_step(
                f"The world changes: {', '.join(CHANGE)} move. "
                f"{DAYS_AFTER_THE_CHANGE} days: {rows:,} transactions scored by the API, then labelled."
            )
            self._drift()
            outcome = self._retrained(api)
            if outcome != "promoted":
                return outcome

            again = self._scored(client, "retrained", self._changed(self._transactions(A_DAY)))
            digest = client.served_model().digest
        self._tell_step(f"Served: GET /model names digest {digest[:12]}…, the sha256 of models/current/model.onnx.")
        self._tell("")
        self._tell("On transactions that the model had not seen        recall   precision   average precision")
        for what, scored in (
            ("before the change, first real model", before),
            ("after the change, the same model", after),
            ("after the change, retrained model", again),
        ):
            measured = scored.measured(threshold)
            self._tell(
                f"  {what:<46} {_figure(measured.recall, '.0%'):>8}   {_figure(measured.precision, '.0%'):>9}"
                f"   {_figure(measured.average_precision, '.3f'):>17}"
            )
        return outcome

    def pictures(self) -> Path:
        """Return the folder of the newest training's pictures."""
        artifacts = self._here.mlflow_folder / ARTIFACTS
        return max(artifacts.glob("**/plots"), key=lambda folder: folder.stat().st_mtime, default=artifacts)

    def _transactions(self, rows: int) -> Transactions:
        self._draws += 1
        return synthetic(rows, 100 * self._seed + self._draws, fraud_share=FRAUD_SHARE)

    def _changed(self, made: Transactions) -> Transactions:
        return replace(made, matrix=shifted(made.matrix, self._here.features, CHANGE))

    def _scored(self, client: ApiClient, name: str, made: Transactions) -> _Scored:
        scores: list[float] = []
        size = rows_per_request(self._here.features)
        for start in bar(range(0, len(made.matrix), size), desc="scoring and labelling", unit=" requests"):
            rows, truths = made.matrix[start : start + size], made.is_fraud[start : start + size]
            ids = [f"{name}-{place}" for place in range(start, start + len(rows))]
            self.last_transaction = ids[-1]
            scores += client.score(rows.tolist(), ids, idempotency_key=f"demo-{name}-{start}").fraud_probability
            client.label(
                [
                    {"transaction_id": transaction_id, "is_fraud": bool(is_fraud), "source": "analyst"}
                    for transaction_id, is_fraud in zip(ids, truths, strict=True)
                ]
            )
        return _Scored(made, np.array(scores))

    def _drift(self) -> None:
        report = detect_drift(self._here.settings)
        self._tell_step(f"Drift: {report.state}. {' '.join(report.explanation)}".rstrip())

    def _retrained(self, api: RunningApi) -> RetrainOutcome:
        done = retrain(self._here.settings, find_api=lambda: api)
        told = done.paragraph
        if done.outcome == "promoted" and done.verdict is not None:
            told = " ".join(check.sentence for check in done.verdict.checks if check.name in _COMPARED)
        self._tell_step(f"Retraining: {done.outcome}. {told}")
        return done.outcome

    def _tell_step(self, line: str) -> None:
        self._steps += 1
        indent = " " * len(f"{self._steps}. ")
        self._tell(textwrap.fill(f"{self._steps}. {line}", 112, subsequent_indent=indent, break_on_hyphens=False))


def _figure(value: float | None, form: str) -> str:
    return "none" if value is None else format(value, form)
