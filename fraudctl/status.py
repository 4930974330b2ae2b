"""The command that shows everything at a glance: status."""

from datetime import UTC, datetime

import click

from fraud_detection.exit_codes import ExitCode
from fraudctl.caller import client_settings, environment, has_token, installation


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def status(*, as_json: bool) -> None:
    """Show what serves since when, what is stored and labelled, the last drift and retraining, and what is next.

    The API may run or not. The command changes nothing, and exits with 3 if something cannot be read.
    """
    from jobs.progress import step
    from jobs.reporting.status import status as look
    from jobs.reporting.status import tell

    here = installation()
    client = client_settings() if has_token(environment()) else None
    with step("looking"):
        found = look(here, client, datetime.now(UTC))
    click.echo(found.to_json() if as_json else tell(found), nl=not as_json)
    if found.problems:
        raise click.exceptions.Exit(ExitCode.UNUSABLE)


COMMANDS = (status,)
