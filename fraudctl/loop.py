"""Turn the loop: drift, retrain, simulate-drift."""

import math
import os
from datetime import UTC, datetime

import click

from fraud_detection.exit_codes import ExitCode
from fraudctl.installation import api_to_ask, client_settings, installation
from jobs.exchange.api_client import ApiClient


@click.command()
def drift() -> None:
    """Compare the newest transactions with what the model in service was trained on; write drift_result.json.

    It changes nothing else: the next `fraudctl retrain` reads the file. Exit code 3 when nothing could be compared.
    """
    from jobs.detect_drift import detect_drift
    from jobs.drift.report import paragraph

    here = installation()
    report = detect_drift(here.settings)
    click.echo(paragraph(report))
    if report.state == "error":
        raise click.exceptions.Exit(ExitCode.UNUSABLE)


@click.command()
@click.option("--force", is_flag=True, help="Train even when it is not due.")
def retrain(force: bool) -> None:
    """Train a new model when it is due, and promote it when it is no worse on newer, truly labelled transactions.

    \b
      fraudctl retrain            # due on drift, or monthly
      fraudctl retrain --force

    What is in service stays unless every check passes. With API_URL set it waits until that API serves the new model,
    and goes back when it does not (exit code 4).
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
    help="Move a feature by so many of its standard deviations; may be given several times.",
)
@click.option("--rows", type=click.IntRange(1, 1_000_000), default=2000, show_default=True, help="How many to send.")
@click.option("--seed", type=click.IntRange(min=0), default=1, show_default=True, help="Other seeds, other rows.")
def simulate_drift(shifts: tuple[str, ...], rows: int, seed: int) -> None:
    """A drill: send transactions through the running API that differ from what its model knows.

    They are drawn from the model's own reference and STORED like any others, all under one transaction id, so that
    `fraudctl forget` takes them out again.

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
    click.echo(f"Sent {drill.rows:,} transactions, of which {drill.flagged:,} were flagged. To take them out again:")
    click.echo(f"  fraudctl forget {drill.transaction_id}")


def _shift(text: str) -> tuple[str, float]:
    name, _, amount = text.partition("=")
    try:
        deviations = float(amount)
    except ValueError:
        deviations = math.nan
    if not math.isfinite(deviations):
        raise click.BadParameter(f"{text!r}: expected FEATURE=AMOUNT, as V14=1.5", param_hint="--shift")
    return name, deviations


COMMANDS = (drift, retrain, simulate_drift)
