"""Tells about a model version, one paragraph per fact, for `models show` and lineage."""

import textwrap
from typing import Any

from fraud_detection.counted import counted
from fraud_detection.model.manifest import Manifest

LINES = 40  # what one screen shows


def tell(version: str, manifest: Manifest, journal: list[dict[str, Any]], *, is_current: bool) -> str:
    """Return what is known about a version on at most LINES lines; of a longer `journal` only the newest entries."""
    features, holdout, scaling = manifest.features, manifest.holdout, manifest.amount_scaling
    lines = [
        f"Version {version}{', the current one' if is_current else ''}",
        step("sha256", manifest.digest),
        *training(manifest),
        step("measured", _figures(manifest) or "never, on labelled transactions"),
        step("threshold", f"{manifest.threshold:g} when it was judged; FRAUD_THRESHOLD decides when it serves"),
        step("features", f"{len(features)}, from {features[0]} to {features[-1]}"),
    ]
    if holdout is not None:
        lines.append(step("hold-out", f"{counted(holdout.rows, 'row')}, {counted(holdout.alerts, 'alert')}"))
    if scaling is not None:
        lines.append(step("amounts", f"(amount - {scaling.mean:g}) / {scaling.standard_deviation:g} is Amount_scaled"))
    lines.append(step("libraries", ", ".join(f"{name} {release}" for name, release in manifest.libraries.items())))
    told = [line for paragraph in lines for line in paragraph.splitlines()]
    entries = [step("journal", journal_line(entry)).splitlines() for entry in journal]
    while entries and len(told) + sum(map(len, entries)) > LINES:
        del entries[0]
    return "\n".join([*told, *(line for entry in entries for line in entry)][:LINES])


def training(manifest: Manifest) -> list[str]:
    """Return how the version was trained and judged."""
    window = "" if manifest.training_window is None else " from {} to {}".format(*manifest.training_window)
    rows = ", ".join(f"{count:,} {name}" for name, count in manifest.rows.items()) or "an unknown number of rows"
    lines = [
        step("trained", f"{manifest.created} on {rows}{window}; seed {manifest.seed}"),
        step("labels", _labels(manifest)),
    ]
    if manifest.parent is not None:
        lines.append(step("replaced", manifest.parent))
    if manifest.verdict is not None:
        lines.append(step("verdict", str(manifest.verdict.get("decision", "none"))))
        lines += [
            step("passed" if check["passed"] else "failed", check["sentence"])
            for check in manifest.verdict.get("checks", [])
        ]
    return lines


def measured(manifest: Manifest) -> dict[str, Any]:
    """Return the figures of the judgement by their names; none if the version was never judged against the truth."""
    figures = (manifest.verdict or {}).get("measured")
    return figures if isinstance(figures, dict) else {}


def metric(figure: object) -> str:
    """Return a metric with three digits; a dash if it has no value, as precision without an alert."""
    return f"{figure:.3f}" if isinstance(figure, float) else "-"


def journal_line(entry: dict[str, Any]) -> str:
    """Return an entry of the journal of promotions for a person; `step` escapes it."""
    reason = f": {entry['reason']}" if entry.get("reason") else ""
    return f"{entry.get('at')} {entry.get('event')} by {entry.get('actor', 'unknown')}{reason}"


def step(name: str, text: str) -> str:
    """Return one fact under its name, escaped and wrapped."""
    return textwrap.fill(
        escaped(text),
        width=112,
        initial_indent=f"  {name:<10}",
        subsequent_indent=" " * 12,
        break_long_words=False,
        break_on_hyphens=False,
    )


def escaped(text: str) -> str:
    """Return text that begins no line of its own and sends nothing to the terminal but letters."""
    return "".join(letter if letter.isprintable() else ascii(letter)[1:-1] for letter in text)


def _figures(manifest: Manifest) -> str:
    return ", ".join(f"{name.replace('_', ' ')} {metric(figure)}" for name, figure in measured(manifest).items())


def _labels(manifest: Manifest) -> str:
    meaning = {
        "synthetic": "none: synthetic transactions (the baseline)",
        "labels": "true labels",
        "derived": "DERIVED: an earlier model's own decisions, never judged against the truth",
        "unknown": "unknown: the model was adopted",
    }[manifest.trained_on]
    sources = ", ".join(f"{count:,} {source}" for source, count in manifest.label_sources.items())
    return f"{meaning}{f' ({sources})' if sources else ''}"
