"""Looks at a whole installation: what serves since when, what is stored and labelled, and what comes next."""

import dataclasses
import json
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Literal

from fraud_detection.clock import timestamp
from fraud_detection.counted import counted
from fraud_detection.database import DatabaseRefused, reachable
from fraud_detection.model.manifest import Manifest
from fraud_detection.model.read import ModelRefused, current_version, read_manifest
from fraud_detection.settings import ClientSettings
from fraud_detection.store import history
from fraud_detection.store.history import Counts
from jobs.drift.report import DriftFinding, State, read_finding
from jobs.exchange.api_client import ApiAway, ApiClient, ApiRefused
from jobs.installation import Installation
from jobs.reporting.version import measured, metric, step
from jobs.training.due import Due, Judgement, last_judgement, next_retraining
from jobs.training.outcome import LastRetraining, read_result
from jobs.training.truth import COVERAGE_AGES


@dataclass(frozen=True)
class CurrentModel:
    """The current version."""

    version: str
    digest: str
    trained_on: str
    measured: dict[str, Any]
    """Metrics of its judgement."""
    since: str | None
    """When it was promoted or restored, None if the journal does not say."""
    is_verified: bool
    """Whether it was seen to serve since then."""


@dataclass(frozen=True)
class Api:
    """What the API answered."""

    url: str
    state: Literal["serves", "serves_another", "no_answer", "refused"]
    version: str | None = None
    problem: str | None = None


@dataclass(frozen=True)
class Stored:
    """What one store holds; a transaction in two stores counts in both."""

    where: str
    counts: Counts


@dataclass(frozen=True)
class Drift:
    """The newest drift report."""

    at: str
    state: State | None
    is_about_current_model: bool | None
    """None if it names no model, because there was none to compare with."""


@dataclass(frozen=True)
class Status:
    """Everything that `fraudctl status` says; what could not be read is None, and among the problems."""

    model: CurrentModel | None
    api: Api | None
    """None if it was not asked, because no token is known."""
    stores: list[Stored]
    label_coverage: dict[str, float]
    """Share of transactions with a true label by age; ages without transactions are left out."""
    drift: Drift | None
    last_retraining: LastRetraining | None
    """Also one that judged nothing, because it was held, skipped, or failed."""
    judgement: Judgement | None
    """The last one of a retraining."""
    next_retraining: Due | None
    next_step: str | None
    """What to do if there is no model."""
    problems: list[str]

    def to_json(self) -> str:
        """Return the status as one JSON object."""
        return json.dumps(dataclasses.asdict(self), indent=2, default=str) + "\n"


def status(here: Installation, client: ClientSettings | None, now: datetime) -> Status:
    """Look at everything; what cannot be read is a problem, never an exception. `client` reaches the API."""
    problems: list[str] = []
    version = manifest = None
    journal: list[dict[str, Any]] = []
    try:
        version = current_version(here.models_dir)
        manifest = None if version is None else read_manifest(here.models_dir / version)
    except ModelRefused as error:
        problems.append(str(error))
    try:
        journal = here.journal()
    except ModelRefused as error:
        problems.append(str(error))
    model = None if version is None or manifest is None else _current(version, manifest, journal)
    stores, ages = _stored(here, now, problems)
    last, finding = last_judgement(journal), read_finding(here.settings.drift_result)
    return Status(
        model=model,
        api=None if client is None else _ask(client, model),
        stores=stores,
        label_coverage={
            age: sum(counts.labelled for counts in known) / sum(counts.rows for counts in known)
            for age, known in ages.items()
        },
        drift=None if finding is None else _drift(finding, here.settings.drift_result, manifest),
        last_retraining=read_result(here.settings.retrain_result),
        judgement=last,
        next_retraining=next_retraining(here, manifest, last, finding, now) if stores and not problems else None,
        next_step=here.no_model if model is None and not problems else None,
        problems=problems,
    )


def _current(version: str, manifest: Manifest, journal: list[dict[str, Any]]) -> CurrentModel:
    since, is_verified = None, False
    for entry in journal:
        if entry["event"] in {"promoted", "restored"}:
            since, is_verified = (entry["at"] if entry["version"] == version else None), False
        elif entry["event"] == "verified":
            is_verified = entry.get("version") == version
    return CurrentModel(version, manifest.digest, manifest.trained_on, measured(manifest), since, is_verified)


def _stored(here: Installation, now: datetime, problems: list[str]) -> tuple[list[Stored], dict[str, list[Counts]]]:
    """Return what each store holds, and the same by age, the youngest first."""
    until = {age: timestamp(now - timedelta(days=days)) for age, days in COVERAGE_AGES.items()}
    stores: list[Stored] = []
    ages: dict[str, list[Counts]] = {}
    for location in here.settings.store_locations:
        where = str(location) if isinstance(location, Path) else "PostgreSQL"
        try:
            with closing(here.open_store(location)) as store, reachable(location), store.begin() as connection:
                by_age = history.counts_by_age(store, connection, until)
        except DatabaseRefused as error:
            if error.reason != "missing":
                problems.append(str(error))
            continue
        stores.append(Stored(where, Counts.together(by_age.values())))
        for age in until:
            if age in by_age:
                ages.setdefault(age, []).append(by_age[age])
    return stores, ages


def _ask(client: ClientSettings, model: CurrentModel | None) -> Api:
    try:
        with ApiClient(client, attempts=1) as api:
            served = api.served_model()
    except ApiAway as error:
        return Api(client.address, "no_answer", problem=str(error))
    except ApiRefused as error:
        return Api(client.address, "refused", problem=str(error))
    is_current = model is not None and served.digest == model.digest
    return Api(client.address, "serves" if is_current else "serves_another", served.version)


def _drift(finding: DriftFinding, path: Path, manifest: Manifest | None) -> Drift:
    written = datetime.fromtimestamp(path.stat().st_mtime, UTC)
    is_about_it = None
    if finding.reference_digest is not None:
        is_about_it = manifest is not None and finding.reference_digest == manifest.digest
    return Drift(timestamp(written), finding.state, is_about_it)


# -- for a person ----------------------------------------------------------------------------------------------------


def tell(found: Status) -> str:
    """Return the status for a person, one line per subject, the next step last."""
    lines = [
        step("model", _tell_model(found.model)),
        step("api", _tell_api(found.api)),
        *([step("stored", _tell_stored(stored)) for stored in found.stores] or [step("stored", "nothing yet")]),
        step("labelled", _tell_coverage(found.label_coverage)),
        step("drift", _tell_drift(found.drift)),
        step("retrained", _tell_retraining(found.last_retraining)),
        step("judged", _tell_judgement(found.judgement)),
    ]
    if found.next_retraining is not None:
        lines.append(step("next", found.next_retraining.sentence))
    lines += [step("problem", problem) for problem in found.problems]
    if found.next_step is not None:
        lines.append(step("next step", f"{found.next_step}."))
    return "\n".join(lines)


def _tell_model(model: CurrentModel | None) -> str:
    if model is None:
        return "none is current"
    figures = ", ".join(f"{name.replace('_', ' ')} {metric(figure)}" for name, figure in model.measured.items())
    since = "since an unknown time" if model.since is None else f"since {_minute(model.since)}"
    verified = "" if model.is_verified else ", not verified yet"
    return (
        f"{model.version}, trained on {model.trained_on}, current {since}{verified}{f'; {figures}' if figures else ''}"
    )


def _tell_api(api: Api | None) -> str:
    if api is None:
        return "was not asked, because API_TOKEN is not set"
    if api.state == "serves":
        return f"{api.url} serves this model"
    if api.state == "serves_another":
        return f"{api.url} serves another model: {api.version}"
    return api.problem or api.url


def _tell_stored(stored: Stored) -> str:
    counts = stored.counts
    newest = "" if counts.newest is None else f", the newest of {counts.newest[:16]} UTC"
    return (
        f"{stored.where}: {counted(counts.rows, 'transaction')}{newest}; {counts.scored:,} scored, "
        f"{counts.labelled:,} labelled, {counted(counts.frauds, 'fraud')}"
    )


def _tell_coverage(coverage: Mapping[str, float]) -> str:
    return ", ".join(f"{age.replace('_', ' ')} {share:.1%}" for age, share in coverage.items()) or "nothing"


def _tell_drift(drift: Drift | None) -> str:
    if drift is None:
        return "no report yet; `fraudctl drift` writes one"
    about = ", about a model that is not current" if drift.is_about_current_model is False else ""
    return f"{drift.state or 'unknown'}, reported {drift.at[:16]} UTC{about}"


def _tell_retraining(last: LastRetraining | None) -> str:
    if last is None:
        return "no retraining has run yet"
    return f"{last.outcome}, {last.at[:16]} UTC. {last.paragraph}"


def _tell_judgement(judgement: Judgement | None) -> str:
    if judgement is None:
        return "no retraining has judged a model yet"
    ended = {"promote": "promoted", "reject": "rejected", "hold": "held"}.get(judgement.decision or "", "unknown")
    return f"{ended} by a retraining, {_minute(str(judgement.at))}"


def _minute(moment: str) -> str:
    return f"{datetime.fromisoformat(moment).astimezone(UTC):%Y-%m-%d %H:%M} UTC"
