"""Shows where a decision came from: the model, its training, its promotion, and labels since."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fraud_detection.exit_codes import ExpectedError
from fraud_detection.model.manifest import Manifest
from fraud_detection.model.read import ModelRefused, current_version, read_manifest, versions
from fraud_detection.store import decisions
from fraud_detection.store.decisions import Decision
from fraud_detection.store.labels import Label, label_that_counts
from jobs.installation import Installation
from jobs.reporting.version import escaped, journal_line, step, training


class UnknownDecision(ExpectedError):
    """No transaction is stored under the identifier."""


@dataclass(frozen=True)
class Lineage:
    """One stored transaction and everything that led to its decision."""

    decision: Decision
    version: str | None
    """The version that scored it, None if it was never scored."""
    manifest: Manifest | None
    """None if it was never scored, or if that version is deleted."""
    is_in_service: bool
    journal: list[dict[str, Any]]
    """What happened to that version, the oldest first."""


def lineage(identifier: str, here: Installation) -> list[Lineage]:
    """Return the lineage of the newest transactions that an identifier names, as `decisions.find` reads it.

    An identifier is a client's transaction id, `request_id:row`, or a request id.

    Raises UnknownDecision, DatabaseRefused.
    """
    named = _decisions(identifier, here)
    if not named:
        raise UnknownDecision(f"{identifier}: no transaction is stored under this id")
    by_digest = _manifests(here.models_dir)
    entries = here.journal()
    current = current_version(here.models_dir)
    found = []
    for decision in named:
        version, manifest = by_digest.get(decision.model_digest or "", (decision.model_version, None))
        found.append(
            Lineage(
                decision,
                version,
                manifest,
                is_in_service=version is not None and version == current,
                journal=[entry for entry in entries if version is not None and entry.get("version") == version],
            )
        )
    return found


def _decisions(identifier: str, here: Installation) -> list[Decision]:
    found: list[Decision] = []
    with here.stores() as stores:
        for store in stores:
            with store.begin() as connection:
                found += decisions.find(store, connection, identifier)
    return found


def _manifests(models_dir: Path) -> dict[str, tuple[str, Manifest]]:
    by_digest = {}
    for version in versions(models_dir):
        try:
            manifest = read_manifest(models_dir / version)
        except ModelRefused:  # a damaged version has no readable manifest
            continue
        by_digest[manifest.digest] = (version, manifest)
    return by_digest


# -- for a person ----------------------------------------------------------------------------------------------------


def tell(found: Lineage) -> str:
    """Return the lineage for a person, one paragraph per step from the transaction back to its model's labels."""
    decision = found.decision
    name = decision.transaction_id or f"{decision.request_id}:{decision.row_index}"
    lines = [
        f"Transaction {escaped(name)}",
        step("stored", f"{decision.ts} UTC as row {decision.row_index} of request {decision.request_id}"),
        step("features", ", ".join(f"{feature}={value:g}" for feature, value in decision.features.items())),
        step("decision", _decision(decision)),
        *(step("label", _label(label, decision.labels)) for label in decision.labels),
    ]
    if decision.is_fraud is not None and not decision.labels:
        lines.append(step("label", f"{_truth(decision.is_fraud)}: Class was set in the table by hand"))
    elif decision.is_fraud is None:
        lines.append(step("label", "none: no label has arrived"))
    if found.version is not None:
        lines += _model(found)
    return "\n".join(lines)


def _decision(decision: Decision) -> str:
    if decision.fraud_probability is None:
        return "none: imported history, which this installation never scored"
    verdict = "flagged" if decision.is_flagged else "not flagged"
    return f"score {decision.fraud_probability:.4f}, {verdict} at threshold {decision.threshold:g}"


def _label(label: Label, labels: list[Label]) -> str:
    counts = "; this label counts" if label == label_that_counts(labels) and len(labels) > 1 else ""
    token = "" if label.token_name is None else f" with token {label.token_name}"
    reported = f"reported {label.reported_at}{token}"
    return f"{_truth(label.is_fraud)}, says {label.source} ({label.reporter!r}), {reported}{counts}"


def _truth(is_fraud: bool) -> str:
    return "fraud" if is_fraud else "genuine"


def _model(found: Lineage) -> list[str]:
    service = "the current version" if found.is_in_service else "no longer current"
    lines = [
        step("model", f"{found.version}, {service}"),
        step("sha256", str(found.decision.model_digest)),
    ]
    if found.manifest is None:
        return [*lines, step("trained", "unknown: this version is no longer kept")]
    lines += training(found.manifest)
    return [*lines, *(step("journal", journal_line(entry)) for entry in found.journal)]
