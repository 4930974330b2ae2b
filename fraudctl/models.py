"""Commands on model versions: models list, show, promote, rollback, adopt."""

import contextlib
from datetime import UTC, datetime
from pathlib import Path

import click

from fraud_detection.counted import counted
from fraud_detection.exit_codes import ExpectedError
from fraud_detection.model.files import shown
from fraud_detection.model.read import ModelRefused, current_version, journal, read_manifest, versions
from fraudctl.arguments import FILE, ask, seekable
from fraudctl.caller import actor, api_to_ask, installation

_COLUMNS = "{:<32}  {:<19}  {:>9}  {:>6}  {:>9}  {:<7}  {}"


def _versions(context: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    """Return the versions that the shell offers after a Tab: none if a setting is wrong, because Tab shows no error."""
    del context, param
    with contextlib.suppress(ExpectedError):
        return [version for version in versions(installation().settings.models_dir) if version.startswith(incomplete)]
    return []


REASON = click.option("--reason", default="by hand", show_default=True, help="Reason, for the journal.")


@click.group()
def models() -> None:
    """List model versions, and change by hand which one serves."""


@models.command("list")
def list_versions() -> None:
    """List every kept version, the oldest first; an arrow marks the current one.

    The figures are those of its judgement, on labelled transactions that it was not trained on.
    """
    from jobs.reporting.version import measured, metric

    models_dir = installation().settings.models_dir
    current = current_version(models_dir)
    click.echo(
        _COLUMNS.format("   VERSION", "CREATED (UTC)", "AV. PREC.", "RECALL", "PRECISION", "VERDICT", "TRAINED ON")
    )
    for version in versions(models_dir):
        mark = "->" if version == current else "  "
        try:
            manifest = read_manifest(models_dir / version)
        except ModelRefused as error:
            click.echo(f"{mark} {version}  damaged: {error}")
            continue
        rows = sum(manifest.rows.values())
        learned = f"{counted(rows, 'row')}, {manifest.rows.get('fraud', 0):,} fraud" if rows else "rows unknown"
        verdict = manifest.verdict or {}
        figures = measured(manifest)
        click.echo(
            _COLUMNS.format(
                f"{mark} {version}",
                manifest.created[:19],
                *(metric(figures.get(name)) for name in ("average_precision", "recall", "precision")),
                str(verdict.get("decision", "-")),
                f"{manifest.trained_on} ({learned})",
            )
        )


@models.command()
@click.argument("version", required=False, shell_complete=_versions)
@click.option("--json", "as_json", is_flag=True, help="Print the whole manifest as JSON.")
def show(version: str | None, *, as_json: bool) -> None:
    """Show how a version was trained, judged and promoted. Without VERSION: the current one."""
    from jobs.reporting.version import tell

    models_dir = installation().settings.models_dir
    chosen = _kept(version, models_dir) if version else current_version(models_dir)
    if chosen is None:
        raise ModelRefused("missing", f"{models_dir}: there is no current model; `fraudctl bootstrap` installs one")
    manifest = read_manifest(models_dir / chosen)
    if as_json:
        click.echo(manifest.to_json(), nl=False)
        return
    history = [entry for entry in journal(models_dir) if entry.get("version") == chosen]
    click.echo(tell(chosen, manifest, history, is_current=chosen == current_version(models_dir)))


@models.command()
@click.argument("version", shell_complete=_versions)
@REASON
def promote(version: str, reason: str) -> None:
    """Promote a kept version without asking the gate; the command verifies it first.

    \b
      fraudctl models promote 20260822T101530Z-3f9ac1d07b52 --reason "the newer one misses refunds"
    """
    from jobs.rollout.by_hand import promote_by_hand

    here = installation()
    name = _kept(version, here.models_dir)
    seen = promote_by_hand(name, here, actor=actor(), reason=reason, api=api_to_ask(here.settings))
    click.echo(f"{name} is the current version. {seen}")


def _kept(version: str, models_dir: Path) -> str:
    """Return the name of a kept version, of which a path may have been given; raises ModelRefused."""
    name = Path(version).name
    if name not in versions(models_dir):
        raise ModelRefused(
            "missing", f"{models_dir}: has no version {shown(name)}; `fraudctl models list` shows those that are kept"
        )
    return name


@models.command()
@REASON
def rollback(reason: str) -> None:
    """Go back to the previous version; repeat the command to go back one more."""
    from jobs.rollout.by_hand import roll_back

    here = installation()
    version, seen = roll_back(here, actor=actor(), reason=reason, api=api_to_ask(here.settings))
    click.echo(f"{version} is the current version again. {seen}")


@models.command()
@click.argument("file", type=FILE)
@click.option("--trust", is_flag=True, help="Do not ask: you trust the file and where it comes from.")
def adopt(file: Path, trust: bool) -> None:
    """Convert a pickled scikit-learn classifier, compare both, and promote it.

    A pickle can run any code as you. A process with limits loads this one, and refuses all but scikit-learn's own
    parts; still, adopt only a file that you trust. The command asks on a terminal, and elsewhere needs --trust.

    \b
      fraudctl models adopt old/rf_model.pkl
    """
    if not trust:
        ask(
            f"{file} is a pickle, which can run any code as you. Do you trust it?",
            otherwise=f"{file}: a pickle can run any code as you, and there is no terminal to ask on; "
            "add --trust if you trust the file",
        )
    from jobs.adopt import adopt as run

    here = installation()
    with seekable(file, ".pkl") as path:
        adopted = run(path, here, actor=actor(), now=datetime.now(UTC), api=api_to_ask(here.settings))
    click.echo(
        f"{adopted.version} is the current version: the {adopted.kind} of {file.name}. On {adopted.compared_rows:,} "
        f"transactions its scores and those of its conversion differ by at most {adopted.largest_difference:.1e}."
    )
    for note in (*adopted.notes, adopted.seen):
        click.echo(note)


COMMANDS = (models,)
