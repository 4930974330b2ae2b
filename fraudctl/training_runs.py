"""Show each training and its judgement: mlflow."""

import os

import click

from fraud_detection.environment import BadSetting, without_password
from fraudctl.caller import installation
from jobs.rollout.artifacts import follow_move, have_moved
from jobs.rollout.mlflow_ui import DEFAULT_PORT, HOST, serve_ui


@click.command()
@click.option("--port", type=click.IntRange(1, 65535), default=DEFAULT_PORT, show_default=True, help=f"Port on {HOST}.")
def mlflow(port: int) -> None:
    """Open MLflow's UI on the runs of this installation, reachable only from this machine; Ctrl-C stops it.

    \b
      fraudctl mlflow
      fraudctl mlflow --port 5060

    Use it only to read. MLflow allows changes, but what you delete or rename there is missing at the next retraining.
    Telemetry is off. If MLFLOW_TRACKING_URI names a server, the command only prints the address of its UI.

    In a container, it needs a writable TMPDIR or /tmp, and a way to 127.0.0.1 inside: `kubectl port-forward`, or
    `docker run --network host`.
    """
    here = installation()
    server = here.settings.mlflow_tracking_uri
    if server is not None:
        click.echo(f"MLFLOW_TRACKING_URI names a server. Its UI is at {_ui_of(server)}")
        return
    if have_moved(here.mlflow_folder):
        with here.promoter():
            follow_move(here.mlflow_folder)
    serve_ui(here.mlflow_folder, port, os.environ, when_ready=_say_where)


def _ui_of(uri: str) -> str:
    if not uri.lower().startswith("http"):
        raise BadSetting("MLFLOW_TRACKING_URI: expected an address such as http://HOST:PORT or https://HOST")
    return without_password(uri)


def _say_where(address: str) -> None:
    click.echo(f"MLflow's UI is at {address} (read it, change nothing there). Ctrl-C stops it.")


COMMANDS = (mlflow,)
