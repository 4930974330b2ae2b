"""Commands on the whole installation: serve, bootstrap, reset."""

import importlib.util
import json
import os
import secrets
import shlex
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import click
import numpy as np

from fraud_detection.configuration import read_configuration
from fraud_detection.counted import counted
from fraud_detection.features import FeatureList
from fraud_detection.listening import local_url, require_ports
from fraud_detection.model.files import MANIFEST
from fraud_detection.model.read import Model, current_version, load, read_manifest
from fraud_detection.remembered import features_file
from fraud_detection.settings import ApiSettings, JobSettings, SharedSettings
from fraud_detection.vanished import Mark
from fraudctl.arguments import ask
from fraudctl.caller import TOKEN_FILE, environment, has_token, installation, token_was_made
from jobs.installation import Installation


@click.command()
@click.option("--first-time", is_flag=True, help="First create what is missing: token, first model, database.")
def serve(first_time: bool) -> None:
    """Start the API in this terminal; Ctrl-C ends it.

    \b
      fraudctl serve --first-time     # creates what is missing
      API_TOKEN=... PORT=8080 fraudctl serve

    Without API_TOKEN, the API uses the token in .api_token, which --first-time creates and only you can read.
    """
    if first_time and not has_token(os.environ) and not token_was_made():
        write_token(TOKEN_FILE)
        click.echo(f"Created a token in {TOKEN_FILE} (only you can read it)", err=True)
    environ = environment()
    settings = ApiSettings.from_env(environ)
    features = read_configuration(settings)
    require_ports(settings)
    if first_time:
        _bootstrap(environ)  # it may train for a minute
        listed = features_file(settings)
        model = load(settings.model_path, features)
        if listed is not None:
            click.echo(f"Transactions have the {counted(len(features), 'feature')} of {listed}.")
        click.echo(_how_to_try(settings, environ, features, model))
    sys.stdout.flush()
    os.execve(  # noqa: S606  this process becomes the server, so that signals reach it
        sys.executable, [sys.executable, "-m", "gunicorn", "-c", "python:api.gunicorn_conf"], environ
    )


@click.command()
def bootstrap() -> None:
    """Create what an installation needs to serve: the database and a first model. Repeating it is safe.

    The first model is trained on synthetic transactions. With a FEATURES_FILE their statistics come from the labelled
    history in the store, so import some first.

    If the API ended because its database vanished, this accepts what is there now: another file, or a new empty one.
    """
    _accept_store(installation().settings)
    if importlib.util.find_spec("api") is None:  # in the image of the jobs
        click.echo("The API, which is not installed here, creates what is missing when it starts.")
        return
    _bootstrap(environment())


def _accept_store(settings: SharedSettings) -> None:
    mark = Mark.of(settings)
    what = mark.found if mark is not None else None
    if mark is None or what is None:
        return
    mark.clear()
    click.echo(f"{what}. Accepted: {'the file there' if mark.database.exists() else 'a new, empty database'}.")


def _bootstrap(environ: dict[str, str]) -> None:
    here = installation()
    if current_version(here.settings.models_dir) is None and _lacks_baseline(here):
        _make_baseline(here)
    ended = subprocess.run([sys.executable, "-m", "api.bootstrap"], env=environ, check=False)
    if ended.returncode:
        raise click.exceptions.Exit(ended.returncode)


def _lacks_baseline(here: Installation) -> bool:
    """Return whether a first model must be trained: there is none, or a synthetic one of another feature list."""
    folder = here.settings.baseline_dir
    if not (folder / MANIFEST).exists():
        return True
    manifest = read_manifest(folder)
    return manifest.features_digest != here.features.digest and manifest.trained_on == "synthetic"


def _make_baseline(here: Installation) -> None:
    from jobs.synthetic.baseline import seed_baseline
    from jobs.synthetic.statistics import statistics_for

    click.echo("Training the first model on synthetic transactions (a minute, once)", err=True)
    seed_baseline(
        here.settings.baseline_dir,
        here.features,
        statistics_for(here),
        threshold=here.settings.fraud_threshold,
        now=datetime.now(UTC),
    )


def write_token(path: Path) -> None:
    """Write a new token that only this user can read."""
    path.unlink(missing_ok=True)  # an empty one: its writer was killed
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(secrets.token_urlsafe(32) + "\n")


def _how_to_try(settings: ApiSettings, environ: dict[str, str], features: FeatureList, model: Model) -> str:
    """Return a command to paste into any terminal, with the golden row that looks most like fraud."""
    golden = model.manifest.golden
    row = np.clip(np.round(golden.rows[int(np.argmax(golden.scores))], 3), features.minimums, features.maximums)
    if environ.get("API_TOKEN"):
        where, token = "another terminal with the same API_TOKEN", "$API_TOKEN"
    else:
        where, token = "another terminal", f"$(cat {shlex.quote(str(Path(environ['API_TOKEN_FILE']).absolute()))})"
    url = local_url(settings)
    return f"""
Starting on {url} (its documentation: {url}/docs), which takes a few seconds. In {where}:

curl -s {shlex.quote(f"{url}/predict")} -H "Authorization: Bearer {token}" -H "Content-Type: application/json" \\
  -d '{json.dumps({"data": [row.tolist()]})}'
"""


@click.command()
@click.option("--yes", is_flag=True, help="Do not ask.")
def reset(yes: bool) -> None:
    """Delete stores, models, training runs and drift result for good, to start over. Stop the API first.

    The command lists them and asks; without a terminal it needs --yes. Token, backups, the first model in BASELINE_DIR
    and your own files stay.

    \b
      fraudctl db backup before.tar.gz
      fraudctl reset
    """
    from jobs.upkeep.reset import delete, to_delete

    settings = JobSettings.from_env(os.environ)
    with to_delete(settings) as paths:
        if paths:
            click.echo("\n  ".join(["To delete:", *map(str, paths)]))
        if paths and not yes:
            ask(
                "Delete all of it for good?",
                otherwise="nothing was deleted, because there is no terminal to ask on; add --yes to delete it",
            )
        delete(paths, settings)
    click.echo("Deleted. `fraudctl serve --first-time` starts over." if paths else "There was nothing to delete.")


COMMANDS = (serve, bootstrap, reset)
