"""Collects what MLflow keeps of a judged challenger: parameters, metrics, and artefacts with pictures."""

import json

from fraud_detection.model.files import MANIFEST, REFERENCE
from fraud_detection.model.manifest import Manifest
from fraud_detection.settings import JobSettings
from jobs.evaluation import plots
from jobs.training.challenger import SEED, Challenger
from jobs.training.forest import PARAMETERS
from jobs.training.selection import Selection


def params(challenger: Challenger, selection: Selection, settings: JobSettings) -> dict[str, object]:
    """Return how it was trained and judged."""
    manifest = challenger.manifest
    first, last = manifest.training_window or ("", "")
    return {
        **PARAMETERS,
        "seed": SEED,
        "threshold": manifest.threshold,
        "features": ",".join(manifest.features),
        "training_window": f"{first} to {last}",
        "training_rows": len(selection.training),
        "training_frauds": selection.training.frauds,
        "holdout_rows": len(selection.holdout),
        "holdout_frauds": selection.holdout.frauds,
        "label_sources": json.dumps(manifest.label_sources),
        "allow_derived_labels": settings.allow_derived_labels,
        "negatives_by_maturity": settings.negatives_by_maturity,
        "label_maturity_days": settings.label_maturity_days,
        "gate_min_frauds": settings.gate_min_frauds,
        "gate_margin": settings.gate_margin,
    }


def metrics(challenger: Challenger) -> dict[str, float]:
    """Return every metric of the hold-out, of the current model there, and of the validation."""
    found: dict[str, float] = {}
    measured = {
        "": challenger.evaluation,
        "champion_": challenger.champion_evaluation,
        "validation_": challenger.validation,
    }
    for prefix, evaluation in measured.items():
        for name, value in ({} if evaluation is None else vars(evaluation)).items():
            if isinstance(value, int | float):
                found[f"{prefix}{name}"] = float(value)
    return found


def files(challenger: Challenger, manifest: Manifest, selection: Selection) -> dict[str, bytes]:
    """Return the model, the verdict, and pictures, by path."""
    is_fraud, threshold, evaluation = selection.holdout.is_fraud, manifest.threshold, challenger.evaluation
    curves = {"new model": challenger.scores}
    if challenger.champion_scores is not None:
        curves["current model"] = challenger.champion_scores
    counts = {
        name: getattr(evaluation, name)
        for name in ("true_positives", "false_positives", "false_negatives", "true_negatives")
    }
    return {
        **{f"model/{name}": content for name, content in challenger.files.items() if name != REFERENCE},
        f"model/{MANIFEST}": manifest.to_json().encode(),
        "verdict.json": json.dumps(manifest.verdict, indent=2).encode(),
        "confusion_matrix.json": json.dumps(counts, indent=2).encode(),
        **(
            {"plots/precision_recall.png": plots.precision_recall(curves, is_fraud, threshold)}
            if is_fraud.any()
            else {}
        ),
        "plots/scores.png": plots.score_histogram(challenger.scores, is_fraud, threshold),
        "plots/confusion_matrix.png": plots.confusion_matrix(**counts),
        "plots/feature_importances.png": plots.feature_importances(challenger.importances, tuple(manifest.features)),
    }
