"""Makes a challenger: fits and exports it, measures it beside the current model, and checks its files."""

import dataclasses
import hashlib
import tempfile
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.model_selection import train_test_split

from fraud_detection.clock import timestamp
from fraud_detection.model.files import ONNX, REFERENCE
from fraud_detection.model.manifest import AmountScaling, Manifest, holdout_of
from fraud_detection.model.read import Model
from fraud_detection.model.write import write_version
from fraud_detection.settings import JobSettings
from fraud_detection.store.history import History
from jobs.drift.reference import reference_bytes
from jobs.evaluation.gate import Champion, Check, Verdict, judge
from jobs.evaluation.measures import Evaluation, Numbers, evaluate
from jobs.installation import Installation
from jobs.progress import step
from jobs.training.export import export, library_versions
from jobs.training.forest import fit
from jobs.training.golden import golden
from jobs.training.outcome import RetrainFigures
from jobs.training.selection import Selection
from jobs.training.usable import TOLERANCE, largest_difference, loads_in_fresh_process, score

SEED = 1
VALIDATION_SHARE = 0.2
ALERT_RATIO = 2.0  # a model trained on decisions should flag about as often as the model that made them


@dataclass(frozen=True)
class Challenger:
    """A trained model with everything known about it before the gate decides."""

    files: dict[str, bytes]
    manifest: Manifest
    """Without a verdict."""
    importances: Numbers
    validation: Evaluation
    """On a stratified fifth of the training window, from a forest of its own that did not see it."""
    scores: Numbers
    """Of the hold-out, shape (n,)."""
    evaluation: Evaluation
    champion_scores: Numbers | None
    champion_evaluation: Evaluation | None

    @property
    def digest(self) -> str:
        """Return the sha256 of model.onnx."""
        return hashlib.sha256(self.files[ONNX]).hexdigest()


def train(
    selection: Selection,
    history: History,
    served: Model | None,
    here: Installation,
    *,
    scaling: AmountScaling | None,
    now: datetime,
) -> Challenger:
    """Fit on the whole training window, export, and measure on the hold-out beside the current model.

    Raises ExportFailed.
    """
    training, holdout = selection.training, selection.holdout
    validation = _validate(selection, here.settings.fraud_threshold)
    forest = fit(training.history.matrix, training.is_fraud, SEED)
    with step("converting the new model"):
        files = export(forest, here.features)
    # All transactions of a window, not only the labelled ones: the reference must look like traffic, and people
    # label what looks like fraud.
    ends = training.history.ts[-1]
    files[REFERENCE] = reference_bytes(history.take(history.ts <= ends), here.features, SEED)
    later = history.matrix[history.ts > ends]
    scores = score(files[ONNX], holdout.history.matrix)
    manifest = Manifest(
        created=timestamp(now),
        features=list(here.features.names),
        features_digest=here.features.digest,
        threshold=here.settings.fraud_threshold,
        trained_on="labels" if selection.label_source == "true" else "derived",
        golden=golden(files[ONNX], history.matrix, SEED),
        holdout=holdout_of(score(files[ONNX], later), here.settings.fraud_threshold),
        training_window=training.window,
        seed=SEED,
        rows={"fraud": training.frauds, "genuine": len(training) - training.frauds},
        label_sources=training.sources,
        parent=None if served is None else served.version,
        amount_scaling=scaling or (None if served is None else served.manifest.amount_scaling),
        libraries=library_versions(),
    )
    champion_scores = None if served is None else served.score(holdout.history.matrix)
    return Challenger(
        files=files,
        manifest=manifest,
        importances=forest.feature_importances_,
        validation=validation,
        scores=scores,
        evaluation=_evaluate(scores, selection, here.settings),
        champion_scores=champion_scores,
        champion_evaluation=None if champion_scores is None else _evaluate(champion_scores, selection, here.settings),
    )


def _validate(selection: Selection, threshold: float) -> Evaluation:
    training = selection.training
    rows = np.arange(len(training))
    fitted, tested = train_test_split(rows, test_size=VALIDATION_SHARE, stratify=training.is_fraud, random_state=SEED)
    forest = fit(training.history.matrix[fitted], training.is_fraud[fitted], SEED)
    scores = forest.predict_proba(training.history.matrix[tested])[:, 1]
    return evaluate(scores, training.is_fraud[tested], threshold=threshold, days=training.days, seed=SEED)


def _evaluate(scores: Numbers, selection: Selection, settings: JobSettings) -> Evaluation:
    holdout = selection.holdout
    return evaluate(scores, holdout.is_fraud, threshold=settings.fraud_threshold, days=holdout.days, seed=SEED)


def verdict_on(challenger: Challenger, selection: Selection, served: Model | None, settings: JobSettings) -> Verdict:
    """Judge a challenger and its files.

    A challenger trained on derived labels cannot be judged. Only its files are checked, and whether it
    flags about as much as the model whose decisions it learned from.

    Raises NoAnswer if the check of the files gave no verdict.
    """
    holdout = selection.holdout
    if selection.label_source == "derived":
        verdict = Verdict(_derived_checks(challenger))
    else:
        champion = None
        if served is not None and challenger.champion_scores is not None:
            champion = Champion(challenger.champion_scores, is_baseline=served.manifest.trained_on == "synthetic")
        verdict = judge(
            champion,
            challenger.scores,
            holdout.is_fraud,
            threshold=settings.fraud_threshold,
            days=holdout.days,
            min_frauds=settings.gate_min_frauds,
            margin=settings.gate_margin,
            seed=SEED,
        )
    return verdict.also(*_file_checks(challenger, holdout.history))


def _derived_checks(challenger: Challenger) -> tuple[Check, ...]:
    after, before = challenger.evaluation, challenger.champion_evaluation
    flagged = after.alerts / after.rows
    both = Check(
        "both_classes", flagged, None, 0 < flagged < 1, f"The new model flags {flagged:.3%} of the newest transactions."
    )
    ratio = after.alerts / before.alerts if before is not None and before.alerts else None
    passed = ratio is not None and 1 / ALERT_RATIO <= ratio <= ALERT_RATIO
    times = "cannot be compared with" if ratio is None else f"is {ratio:.2f} times that of"
    sentence = (
        f"Its number of alerts {times} the current model; between {1 / ALERT_RATIO} and {ALERT_RATIO} is allowed."
    )
    return both, Check("alert_ratio", ratio, ALERT_RATIO, passed, sentence)


def _file_checks(challenger: Challenger, holdout: History) -> tuple[Check, ...]:
    difference = largest_difference(challenger.files, holdout.matrix)
    parity = Check(
        "onnx_equals_pickle",
        difference if np.isfinite(difference) else None,
        TOLERANCE,
        difference <= TOLERANCE,
        f"The two files of the model score the hold-out alike, up to {difference:.1g}.",
    )
    with tempfile.TemporaryDirectory(prefix="fraud-challenger-") as scratch:
        version = write_version(Path(scratch), challenger.files, challenger.manifest)
        problem = loads_in_fresh_process(Path(scratch) / version)
    sentence = "A new process loads the model and finds its golden scores"
    loads = Check(
        "loads",
        None,
        None,
        problem is None,
        f"{sentence}." if problem is None else f"A new process cannot use the model: {problem}.",
    )
    return parity, loads


@dataclass(frozen=True)
class Judged:
    """A challenger after its judgement."""

    selection: Selection
    challenger: Challenger
    verdict: Verdict
    manifest: Manifest
    """With the verdict."""

    @property
    def figures(self) -> RetrainFigures:
        """Return the measurements for Prometheus."""
        return RetrainFigures(
            self.selection.label_source,
            self.challenger.evaluation,
            self.challenger.champion_evaluation,
            self.selection.training.sources,
        )


def with_verdict(manifest: Manifest, verdict: Verdict, facts: dict[str, Any]) -> Manifest:
    """Return the manifest with the verdict, and facts such as those by which the next run finds it again."""
    return dataclasses.replace(manifest, verdict={**verdict.to_dict(), **facts})
