"""Commands on one transaction: lineage, forget."""

from datetime import UTC, datetime

import click

from fraudctl.caller import installation
from jobs.reporting.lineage import lineage as trace
from jobs.reporting.lineage import tell


@click.command()
@click.argument("transaction")
def lineage(transaction: str) -> None:
    """Show where a decision came from: model, training window, label sources, verdict, promotions, labels since.

    TRANSACTION is your own id, REQUEST_ID:ROW, or a REQUEST_ID; of more than 100 decisions you see the newest.

    \b
      fraudctl lineage order-1001
    """
    here = installation()
    stories = [tell(found) for found in trace(transaction, here)]
    click.echo("\n\n".join(stories))


@click.command()
@click.argument("transaction")
@click.confirmation_option(prompt="Erase it for good?", help="Do not ask.")
@click.option(
    "--keep",
    type=click.IntRange(min=1),
    default=7,
    show_default=True,
    help="Number of nightly backups that you keep: it gives the date on which the last backup with it is deleted.",
)
def forget(transaction: str, keep: int) -> None:
    """Delete everything stored of a transaction, and report what was deleted and what stays.

    TRANSACTION is your own id, REQUEST_ID:ROW, or a REQUEST_ID (all rows of that request).

    Deletes rows, labels and idempotency keys in every store, and rows in the references of versions.
    Replaces golden rows of earlier releases, in versions and in MLflow. The API may run.

    \b
      fraudctl forget order-1001 --yes
    """
    from jobs.forget import forget as erase
    from jobs.forget import tell as told
    from jobs.progress import step

    here = installation()
    with step("erasing"):
        erased = erase(transaction, here)
    click.echo(told(transaction, erased, here.settings, now=datetime.now(UTC), nights=keep))


COMMANDS = (lineage, forget)
