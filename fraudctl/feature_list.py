"""Commands on the feature list: features check, show, init."""

import shlex
from pathlib import Path

import click

from fraud_detection.counted import counted
from fraud_detection.database import DatabaseRefused
from fraud_detection.exit_codes import ExitCode
from fraud_detection.features import LIMIT, load_features
from fraud_detection.model.read import ModelRefused
from fraud_detection.remembered import features_file
from fraudctl.arguments import FILE, FORCE, in_place_of, seekable
from fraudctl.caller import installation
from jobs.installation import Installation


@click.group()
def features() -> None:
    """Write, check and show the list of features of every transaction (FEATURES_FILE)."""


@features.command()
@click.argument("file", type=FILE, required=False)
def check(file: Path | None) -> None:
    """Check the feature list, and that store and model belong to it. Exits with 3 if one does not.

    \b
      fraudctl features check
      fraudctl features check wider.json     # before FEATURES_FILE names it
    """
    settings = installation().settings
    listed = file or features_file(settings)
    here = Installation(settings, load_features(listed))
    click.echo(f"{listed or 'the default list'}: {counted(len(here.features), 'feature')}, ok")
    refusals: list[str] = []
    for location in settings.store_locations:
        try:
            here.open_store(location).close()
        except DatabaseRefused as error:
            refusals += [str(error)] if error.reason != "missing" else []
    try:
        here.served_model()
    except ModelRefused as error:
        refusals += [str(error)] if error.reason != "missing" else []
    for refusal in refusals:
        click.echo(refusal)
    if refusals:
        raise click.exceptions.Exit(ExitCode.UNUSABLE)


@features.command()
@click.option("--json", "as_json", is_flag=True, help="Print a FEATURES_FILE instead.")
def show(*, as_json: bool) -> None:
    """Print the features in order, with the bounds outside which the API rejects a value.

    To accept values beyond a bound, write the list to a file, widen the bound there, and let FEATURES_FILE name the
    file. Store and models stay, because the names are the same.

    \b
      fraudctl features show --json > wider.json
      export FEATURES_FILE=wider.json
    """
    from jobs.exchange.feature_file import to_json

    shown = installation().features
    if as_json:
        click.echo(to_json(shown), nl=False)
        return
    for place, feature in enumerate(shown.features):
        bounds = (
            ""
            if (feature.minimum, feature.maximum) == (-LIMIT, LIMIT)
            else f"{feature.minimum:g} to {feature.maximum:g}"
        )
        click.echo(f"{place:>3}  {feature.name:<24} {bounds:<24} {feature.description}".rstrip())


@features.command()
@click.argument("file", type=FILE)
@click.option("--out", type=click.Path(dir_okay=False, path_type=Path), help="Write to this file.")
@FORCE
@click.option("--leave-out", "left_out", multiple=True, metavar="COLUMN", help="Column that is no feature; repeatable.")
def init(file: Path, out: Path | None, *, force: bool, left_out: tuple[str, ...]) -> None:
    """Write a first FEATURES_FILE from the header and the values of a CSV or Parquet file.

    Every column becomes a feature but Class, Time, ts, transaction_id and what is left out. The bounds are generous;
    correct them by hand: a value outside is refused. If columns cannot become features, or an import would reject what
    the other four hold, each is named with a way out, and nothing is written. A warning names columns that look like
    the truth. An existing file that differs stays, because its bounds may be corrected; --force replaces it.

    \b
      fraudctl features init history.csv --leave-out shop --out features.json
      export FEATURES_FILE=features.json
    """
    from jobs.exchange.feature_file import draft_of, to_json
    from jobs.progress import step

    with seekable(file) as path, step(f"reading {path.name}"):
        draft = draft_of(path, left_out=left_out)
    for warning in draft.warnings:
        click.echo(f"Warning: {warning}", err=True)
    text = to_json(draft.features)
    if out is None:
        click.echo(text, nl=False)
        return
    with in_place_of(out, force=force) as written:
        written.write_text(text, encoding="utf-8")
    click.echo(f"{out}: {counted(len(draft.features), 'feature')}. Correct the bounds, then:", err=True)
    click.echo(f"  export FEATURES_FILE={shlex.quote(str(out))}", err=True)
    if draft.has_labels:
        ignored = "".join(f" --ignore {shlex.quote(name)}" for name in left_out)
        click.echo(f"  fraudctl import {shlex.quote(str(file))}{ignored}", err=True)
    else:
        click.echo("  fraudctl features check     # and to import the file, add a column Class", err=True)


COMMANDS = (features,)
