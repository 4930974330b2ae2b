"""What a user brings to a command: the environment, the token file, and a name."""

import getpass
import os
from collections.abc import Mapping
from pathlib import Path

import click

from fraud_detection import logs
from fraud_detection.environment import BadSetting, open_file_warning, read_secret_file, short_token_warning
from fraud_detection.settings import ClientSettings, JobSettings
from jobs.installation import Installation
from jobs.rollout.running_api import RunningApi, running_api

TOKEN_FILE = Path(".api_token")
"""Where `fraudctl serve --first-time` keeps the token that it creates."""


def environment() -> dict[str, str]:
    """Return the environment, with the token that `serve --first-time` created if no other is set.

    Raises BadSetting if that file is empty or cannot be read.
    """
    environ = dict(os.environ)
    if not has_token(environ) and TOKEN_FILE.exists():
        if not token_was_made():
            raise BadSetting(f"{TOKEN_FILE}: is empty; `fraudctl serve --first-time` creates a new token")
        environ["API_TOKEN_FILE"] = str(TOKEN_FILE)
    return environ


def has_token(environ: Mapping[str, str]) -> bool:
    """Return whether the environment names a token of the API."""
    return any(environ.get(name) for name in ("API_TOKEN", "API_TOKEN_FILE"))


def token_was_made() -> bool:
    """Return whether `serve --first-time` has created a token; an empty file is none.

    Raises BadSetting if the file cannot be read.
    """
    return TOKEN_FILE.exists() and bool(read_secret_file("API_TOKEN", TOKEN_FILE).strip())


def installation() -> Installation:
    """Read the settings and the feature list; raises BadSetting, BadFeatureList.

    A command reports what it did; the log of the jobs appears only if LOG_LEVEL is set.
    """
    settings = JobSettings.from_env(os.environ)
    logs.configure(settings.log_level if os.environ.get("LOG_LEVEL") else "CRITICAL", settings.log_format)
    if settings.backup_key_file is not None:
        warn(open_file_warning("BACKUP_KEY_FILE", settings.backup_key_file))
    return Installation.of(settings)


def client_settings() -> ClientSettings:
    """Return address and token of the running API; raises BadSetting."""
    environ = environment()
    if not has_token(environ):
        raise BadSetting(
            f"API_TOKEN is not set, and {TOKEN_FILE.absolute()}, which `fraudctl serve --first-time` makes, is not "
            "there; set it, or run this in the folder of your installation"
        )
    settings = ClientSettings.from_env(environ)
    warn(short_token_warning("API_TOKEN", settings.api_token))
    return settings


def api_to_ask(settings: JobSettings) -> RunningApi | None:
    """Return the API that a promotion waits for, if API_URL names one; raises BadSetting."""
    api = running_api(settings, environment())
    if api is not None:
        warn(short_token_warning("API_TOKEN", api.client.api_token))
    return api


def warn(warning: str | None) -> None:
    """Print a warning, if there is one."""
    if warning is not None:
        click.echo(f"Warning: {warning}", err=True)


def actor() -> str:
    """Return the user's name, for the journal of promotions."""
    try:
        name = getpass.getuser()
    except (KeyError, OSError):  # a container may run as a user without a name
        name = f"uid {os.getuid()}"
    return f"fraudctl ({name})"
