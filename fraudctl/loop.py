"""Commands of the loop: drift, retrain, simulate-drift."""

import math
import os
from datetime import UTC, datetime

import click

from fraud_detection.counted import counted
from fraud_detection.exit_codes import ExitCode
from fraudctl.caller import api_to_ask, client_settings, installation
from jobs.exchange.api_client import ApiClient


@click.command()
def drift() -> None:
    """Compare the newest transactions with the reference of the current model; write drift_result.json.

    The command changes nothing else: the next `fraudctl retrain` reads the file. It exits with 3 if it could compare
    nothing.
    """
    from jobs.detect_drift import detect_drift, tell

    here, now = installation(), datetime.now(UTC)
    report = detect_drift(here.settings, now)
    click.echo(tell(report, here, now))
    if report.state == "error":
        raise click.exceptions.Exit(ExitCode.UNUSABLE)


@click.command()
@click.option("--force", is_flag=True, help="Train even if it is not due.")
def retrain(force: bool) -> None:
    """Train a new model if it is due, and promote it if it passes the gate on newer, truly labelled transactions.

    \b
      fraudctl retrain            # due on drift, or after RETRAIN_AFTER_DAYS
      fraudctl retrain --force

    The current model stays unless every check passes. With API_URL set, the command waits until that API serves the
    new model, and otherwise restores the previous version (exit code 4). If no API runs there, the new model becomes
    current, and the next API to start verifies it. Without API_URL no API is asked.
    """
    from jobs.retrain import retrain as run

    here = installation()
    done = run(here.settings, force=force, find_api=lambda: api_to_ask(here.settings))
    click.echo(f"{done.outcome}: {done.paragraph}")
    raise click.exceptions.Exit(done.exit_code)


@click.command("simulate-drift")
@click.option(
    "--shift",
    "shifts",
    multiple=True,
    metavar="FEATURE=AMOUNT",
    required=True,
    help="Standard deviations by which to move a feature; repeatable.",
)
@click.option(
    "--rows", type=click.IntRange(1, 1_000_000), default=2000, show_default=True, help="Number of transactions to send."
)
@click.option("--seed", type=click.IntRange(min=0), default=1, show_default=True, help="Seed of the random rows.")
def simulate_drift(shifts: tuple[str, ...], rows: int, seed: int) -> None:
    """Run a drill: send transactions through the API that differ from what its model was trained on.

    The command draws them from the model's reference. The API STORES them like any others, all under one transaction
    id, so that `fraudctl forget` deletes them.

    \b
      fraudctl simulate-drift --shift V14=1.5 --shift V4=-1
      fraudctl drift
    """
    from jobs.synthetic.simulate_drift import simulate_drift as run

    here = installation()
    with ApiClient(client_settings()) as client:
        drill = run(
            here,
            client,
            shifts=dict(_shift(text) for text in shifts),
            rows=rows,
            seed=seed,
            run=f"{datetime.now(UTC):%Y%m%dT%H%M%S}-{os.getpid()}",
        )
    click.echo(f"Sent {counted(drill.rows, 'transaction')}: {drill.flagged:,} flagged. To delete them:")
    click.echo(f"  fraudctl forget {drill.transaction_id}")


def _shift(text: str) -> tuple[str, float]:
    name, _, amount = text.partition("=")
    try:
        deviations = float(amount)
    except ValueError:
        deviations = math.nan
    if not math.isfinite(deviations):
        raise click.BadParameter(f"{text!r}: expected FEATURE=AMOUNT, such as V14=1.5", param_hint="--shift")
    return name, deviations


COMMANDS = (drift, retrain, simulate_drift)
