"""`fraudctl`: every command there is, and what we know can go wrong as one line and an exit code."""

import click
import sqlalchemy as sa

from fraud_detection.file_modes import share_with_group
from fraudctl import audit, database, feature_list, imports, loop, models, service, transactions

# By name, so that a command that raises none of them does not wait for their modules, which take seconds to import.
EXIT_CODES = {
    "fraud_detection.settings.BadSetting": 2,
    "fraud_detection.features.BadFeatureList": 2,
    "fraud_detection.database.DatabaseRefused": 3,
    "fraud_detection.model.read.ModelRefused": 3,
    "jobs.rollout.deployment.KubernetesRefused": 2,
    "jobs.adopt.CannotAdopt": 3,
    "jobs.exchange.import_db.BadOldDatabase": 3,
    "jobs.upkeep.restore.BadBackup": 3,
    "jobs.synthetic.statistics.BadStatistics": 3,
    "jobs.exchange.transaction_file.BadTransactionFile": 3,
    "jobs.rollout.promotion.Restored": 4,
    "fraud_detection.database.TookTooLong": 1,
    "fraud_detection.lock.LockHeld": 1,
    "fraud_detection.lock.StoreInUse": 1,
    "jobs.upkeep.backup.NoRoom": 1,
    "jobs.exchange.api_client.ApiAway": 1,
    "jobs.exchange.api_client.ApiRefused": 1,
    "jobs.upkeep.copy_store.CopyFailed": 1,
    "jobs.rollout.deployment.KubernetesAway": 1,
    "jobs.exchange.import_file.AlreadyImported": 1,
    "jobs.reporting.lineage.UnknownDecision": 1,
    "jobs.rollout.by_hand.NothingToGoBackTo": 1,
    "jobs.upkeep.restore.WouldOverwrite": 1,
    "jobs.synthetic.simulate_drift.UnknownFeature": 1,
    "jobs.rollout.tracking.TrackingFailed": 1,
}
"""Exit code of each error that says by itself what is wrong; any other one is a bug and shows its traceback."""


class Fraudctl(click.Group):
    """Commands in the order in which one meets them, whose known errors are one readable line on stderr."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names in the order of COMMANDS."""
        del ctx
        return list(self.commands)

    def invoke(self, ctx: click.Context) -> object:
        """Run the command."""
        try:
            return super().invoke(ctx)
        except (click.exceptions.Exit, click.ClickException, click.Abort, BrokenPipeError):
            raise
        except Exception as error:
            exit_code = EXIT_CODES.get(f"{type(error).__module__}.{type(error).__qualname__}")
            message = str(error)
            if isinstance(error, sa.exc.DBAPIError):  # its own text repeats the statement and the values
                exit_code, message = 1, f"the database says: {error.orig}"
            elif isinstance(error, OSError):
                exit_code = 1
            if exit_code is None:
                raise
            click.echo(f"fraudctl: {message}", err=True)
            ctx.exit(exit_code)


@click.group(cls=Fraudctl, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
def main() -> None:
    """Score transactions, label them, watch drift, retrain, and look into everything that happened.

    Environment variables configure it (docs/configuration.md). Once round the loop:

    \b
      fraudctl import-csv creditcard.csv       # history with labels, before anything serves
      fraudctl serve --first-time              # in a terminal of its own
      fraudctl retrain --force                 # the first model of real transactions
      fraudctl score new.csv --out scored.csv
      fraudctl import-labels scored.csv        # once its column is_fraud is filled in
      fraudctl drift
      fraudctl retrain
      fraudctl lineage TRANSACTION_ID
    """
    share_with_group()


for subject in (service, imports, transactions, loop, models, audit, database, feature_list):
    for command in subject.COMMANDS:
        main.add_command(command)
