"""Import labelled history: import, import-db."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click

from fraud_detection.counted import counted
from fraudctl.arguments import FILE, Moment, seekable
from fraudctl.caller import installation

if TYPE_CHECKING:
    from jobs.exchange.import_file import Imported

IGNORE = click.option(
    "--ignore",
    "ignored",
    multiple=True,
    metavar="COLUMN",
    help="Column to leave behind; repeat the option for several.",
)
AGAIN = click.option("--again", is_flag=True, help="Import every row, even if the file or the row was imported before.")


@click.command("import")
@click.argument("file", type=FILE)
@click.option(
    "--start",
    type=Moment(),
    show_default="2013-09-01, when the public data set was collected",
    help="Time from which the column Time counts seconds.",
)
@IGNORE
@AGAIN
def import_command(file: Path, start: datetime | None, ignored: tuple[str, ...], again: bool) -> None:
    """Import labelled history from a CSV (.csv, .csv.gz) or Parquet file into TRAIN_DB: all of it or nothing.

    The columns are those of the public credit-card data set (Time, V1 to V28, Amount, Class), the same with
    Amount_scaled in place of Amount, or the features of your FEATURES_FILE with Class (1 fraud, 0 genuine, empty if
    unknown). Optional: Time (seconds) or ts (a time), transaction_id.

    \b
      fraudctl import creditcard.csv   # stop the API first
      fraudctl import history.csv.gz --start 2026-01-01 --ignore shop
      fraudctl import history.parquet
      TRAIN_DB=data/history.db fraudctl import creditcard.csv   # while the API runs

    \b
      kubectl exec -i job/admin -- fraudctl import /dev/stdin < history.csv.gz

    Only rows that are not stored yet come in: a transaction is known by its transaction_id and time, without an id by
    its time and features, as often as it is stored. If the file has no times, the id or the features alone decide.

    The first import of a plain Amount fixes how amounts are scaled; later imports and GET /model use the same scaling.
    """
    from jobs.exchange.import_file import import_file
    from jobs.exchange.transaction_file import PUBLIC_START

    here = installation()
    with seekable(file) as readable:
        done = import_file(
            readable,
            here,
            now=datetime.now(UTC),
            start=start or PUBLIC_START,
            ignored=ignored,
            again=again,
        )
    click.echo(_told(file, done))
    if done.scaling is not None:
        click.echo(
            f"Amount_scaled = (Amount - {done.scaling.mean:g}) / {done.scaling.standard_deviation:g}, "
            "in this import and all later ones."
        )


@click.command("import-db")
@click.argument("file", type=FILE)
@click.option(
    "--without-labels", is_flag=True, help="Leave Class behind, because it was filled from scores, not from labels."
)
@IGNORE
@AGAIN
def import_db_command(file: Path, without_labels: bool, ignored: tuple[str, ...], again: bool) -> None:
    """Import the table `requests` of an older installation's SQLite file into TRAIN_DB.

    \b
      fraudctl import-db old/requests.db   # stop the API first
      fraudctl import-db older/requests.db --without-labels

    A Class that is filled becomes a true label; if it was copied from the model's own decisions, add --without-labels.
    Its scores stay behind, because their model and threshold are unknown.
    """
    from jobs.exchange.import_db import import_db

    here = installation()
    with seekable(file, ".db") as readable:
        done = import_db(
            readable,
            here,
            now=datetime.now(UTC),
            ignored=ignored,
            with_labels=not without_labels,
            again=again,
        )
    click.echo(_told(file, done.imported))
    if done.left_behind:
        click.echo(f"Left behind: {', '.join(done.left_behind)}.")


def _told(file: Path, done: Imported) -> str:
    told = (
        f"{file.name}: imported {counted(done.rows, 'transaction')} ({done.frauds:,} fraud, {done.genuine:,} genuine, "
        f"{done.unknown:,} unknown)"
    )
    told += f" from {done.first_ts[:19]} to {done.last_ts[:19]}." if done.rows else "."
    if done.known:
        told += f" Known already: {done.known:,}."
    if done.labels_added:
        told += f" {counted(done.labels_added, 'label')} came in for known or equal transactions."
    return told


# The previous name of `import`, so that scripts that use it keep working.
import_csv_command = click.Command(
    "import-csv",
    callback=import_command.callback,
    params=import_command.params,
    help="Do what `fraudctl import` does, under its previous name.",
    hidden=True,
)

COMMANDS = (import_command, import_csv_command, import_db_command)
