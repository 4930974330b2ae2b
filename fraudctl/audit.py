"""Commands on one transaction: lineage, forget."""

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
def forget(transaction: str) -> None:
    """Delete everything stored of a transaction, and report what was deleted and what stays.

    TRANSACTION is your own id, REQUEST_ID:ROW, or a REQUEST_ID (all rows of that request).

    Deletes rows, labels and idempotency keys in every store, and rows in the references of versions. The API may run.

    \b
      fraudctl forget order-1001 --yes
    """
    from jobs.upkeep.forget import forget as erase
    from jobs.upkeep.forget import tell as told

    here = installation()
    click.echo(told(transaction, erase(transaction, here), here.settings))


COMMANDS = (lineage, forget)
