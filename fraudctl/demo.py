"""See the whole loop work on made-up transactions: demo."""

import os
import shlex
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import click

import fraud_detection
from fraud_detection import logs
from fraud_detection.exit_codes import ExitCode, ExpectedError
from fraud_detection.settings import ApiSettings, ClientSettings, JobSettings
from fraudctl.caller import TOKEN_FILE
from fraudctl.service import write_token
from jobs.exchange.api_client import ApiAway, ApiClient
from jobs.installation import Installation
from jobs.progress import step
from jobs.rollout.own_server import end, interrupted_by_signals, start
from jobs.rollout.running_api import RunningApi

ENVIRONMENT = "environment"
"""The file in the folder that makes a terminal's commands speak of the demonstration."""
_STARTS_WITHIN_SECONDS = 120


class NotEmpty(ExpectedError):
    """The folder of the demonstration holds files; the message says what to do."""

    exit_code = ExitCode.BAD_CONFIGURATION


class NotStarted(ExpectedError):
    """The API of the demonstration does not serve; the message names its log."""


@click.command()
@click.option(
    "--folder",
    type=click.Path(file_okay=False, path_type=Path),
    default="demo",
    show_default=True,
    help="New or empty folder for the demonstration.",
)
@click.option(
    "--seed", type=click.IntRange(0, 1_000_000), default=1, show_default=True, help="Seed of the transactions."
)
def demo(folder: Path, seed: int) -> None:
    """Go once round the loop on made-up transactions, with an API of its own: two minutes.

    \b
      fraudctl demo
      fraudctl demo --seed 2 --folder demo-2

    It imports history, serves, retrains, scores and labels. Then the world changes, drift is found, and a retrained
    model serves. Everything is in the folder: your installation is neither read nor changed.
    """
    from jobs.demo import SETTINGS, Demo

    environ = prepared(folder, {name: value for name, (value, _) in SETTINGS.items()})
    settings = JobSettings.from_env(environ)
    logs.configure("CRITICAL", settings.log_format)
    click.echo(f"Made-up transactions of seed {seed} in the folder {folder}. Settings other than the defaults:")
    for name, (value, reason) in SETTINGS.items():
        click.echo(f"   {f'{name}={value}':<25} {reason}")
    with interrupted_by_signals():
        story = Demo(Installation.of(settings), seed=seed, tell=click.echo)
        story.prepare(folder, datetime.now(UTC))
        with _serving(environ, folder):
            outcome = story.go_round(RunningApi(ClientSettings.from_env(environ)))
    pictures = folder / story.pictures().relative_to(folder.absolute())
    click.echo(
        f"""
The demo ends in: {outcome}. Its API has stopped. To look on, in this terminal:
   . {shlex.quote(str(folder / ENVIRONMENT))}   # from now on, fraudctl speaks of the demo
   fraudctl serve         # serve its model on {environ["API_URL"]}
   fraudctl lineage {story.last_transaction}
   fraudctl mlflow        # what each training tried
Pictures of the last training: {pictures}"""
    )


def prepared(folder: Path, chosen: Mapping[str, str]) -> dict[str, str]:
    """Make the folder with its token and its file of variables; return the environment of everything in it.

    Raises NotEmpty.
    """
    if folder.exists() and any(folder.iterdir()):
        raise NotEmpty(f"{folder}: is not empty; delete it, or name another folder with --folder")
    folder.mkdir(parents=True, exist_ok=True)
    base = folder.absolute()
    write_token(base / TOKEN_FILE)
    port, probe_port = _free_ports()
    ours = {
        "MODEL_PATH": str(base / "models" / "rf_model.pkl"),
        "LATEST_DB": str(base / "data" / "requests.db"),
        "TRAIN_DB": str(base / "data" / "requests.db"),
        "DRIFT_RESULT": str(base / "data" / "drift_result.json"),
        "BASELINE_DIR": str(base / "baseline"),
        "API_TOKEN_FILE": str(base / TOKEN_FILE),
        "PORT": str(port),
        "PROBE_PORT": str(probe_port),
        "API_URL": f"http://127.0.0.1:{port}",
        **chosen,
    }
    theirs = sorted(_of_this_project(os.environ) - set(ours))
    lines = [f"unset {name}" for name in theirs] + [
        f"export {name}={shlex.quote(value)}" for name, value in ours.items()
    ]
    (base / ENVIRONMENT).write_text("\n".join(lines) + "\n", encoding="utf-8")
    return {**{name: value for name, value in os.environ.items() if name not in theirs}, **ours}


def _of_this_project(environ: Mapping[str, str]) -> set[str]:
    """Return the variables that configure the user's installation."""
    known = {each.name for settings in (ApiSettings, JobSettings, ClientSettings) for each in settings.variables()}
    return {name for name in environ if name.removesuffix("_FILE") in known or name in known}


def _free_ports() -> tuple[int, int]:
    with socket.socket() as one, socket.socket() as other:
        one.bind(("127.0.0.1", 0))
        other.bind(("127.0.0.1", 0))
        return one.getsockname()[1], other.getsockname()[1]


@contextmanager
def _serving(environ: Mapping[str, str], folder: Path) -> Iterator[None]:
    """Run the API for the length of the block, in a process of its own that never outlives it; raises NotStarted."""
    log = folder / "api.log"
    with log.open("wb") as output:
        server = start(
            [sys.executable, "-m", "fraudctl", "serve", "--first-time"],
            cwd=Path(fraud_detection.__path__[0]).parent,
            env=environ,
            stdout=output,
            stderr=output,
        )
    try:
        with step("starting the API"):
            _wait_until_it_answers(server, ClientSettings.from_env(environ), log)
        yield
    finally:
        end(server)


def _wait_until_it_answers(server: "subprocess.Popen[bytes]", settings: ClientSettings, log: Path) -> None:
    deadline = time.monotonic() + _STARTS_WITHIN_SECONDS
    with ApiClient(settings) as client:
        while server.poll() is None and time.monotonic() < deadline:
            try:
                client.served_model()
            except ApiAway:
                time.sleep(0.2)
            else:
                return
    raise NotStarted(f"the API of the demo does not serve; {log} says why")


COMMANDS = (demo,)
