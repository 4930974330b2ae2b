"""Commands on the store: db check, backup, backup-key, restore, query, copy."""

import csv
import sys
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

import click

from fraud_detection.counted import counted
from fraud_detection.database.query import run_query
from fraud_detection.environment import BadSetting
from fraud_detection.exit_codes import ExitCode
from fraudctl.arguments import seekable
from fraudctl.caller import actor, installation
from jobs.upkeep.check import check as look_through
from jobs.upkeep.copy_store import copy_stores

REPLACE = click.option("--replace", is_flag=True, help="Delete what is there.")


@click.group()
def db() -> None:
    """Check, back up, restore, query and move what is stored."""


@db.command()
def check() -> None:
    """Check the stores and the current model, and report problems. Exits with 3 if there are any."""
    here = installation()
    findings = look_through(here)
    for finding in findings:
        click.echo(f"{finding.what}: {'; '.join(finding.problems) or 'ok'}")
    if any(finding.problems for finding in findings):
        raise click.exceptions.Exit(ExitCode.UNUSABLE)


@db.command()
@click.argument("target", type=click.Path(path_type=Path), required=False)
@click.option(
    "--into",
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder of dated backups; the time in UTC names the new one.",
)
@click.option("--keep", type=click.IntRange(min=1), help="With --into: number of dated backups to keep.")
def backup(target: Path | None, into: Path | None, keep: int | None) -> None:
    """Back up database, models, promotions and MLflow's store together, with checksums. The API may run.

    TARGET is a new directory, or an archive if it ends in .tar or .tar.gz. Protect it: it holds transactions.
    With BACKUP_KEY_FILE it is an encrypted archive, which ends in .tar.age or .tar.gz.age.

    \b
      fraudctl db backup backups/2026-08-22.tar.gz
      fraudctl db backup --into backups --keep 7   # every night

    With --into, the command unpacks and verifies the new archive before it deletes an older one. It never deletes files
    with other names.
    """
    from jobs.upkeep.backup import back_up
    from jobs.upkeep.dated_backups import back_up_into

    if (target is None) == (into is None) or (keep is not None and into is None):
        raise click.UsageError("expected TARGET, or --into FOLDER with or without --keep")
    here = installation()
    now = datetime.now(UTC)
    if into is not None:
        dated = back_up_into(into, here, now=now, keep=keep)
        target, taken, deleted = dated.path, dated.backup, dated.deleted
    elif target is not None:
        taken, deleted = back_up(target, here, now=now), []
    rows = " and ".join(f"{counted(count, 'transaction')} ({name})" for name, count in taken.rows.items())
    click.echo(
        f"{target}: {rows}, {counted(len(taken.files), 'file')}; the current version is {taken.current or 'none'}."
    )
    for path in deleted:
        click.echo(f"Deleted {path}.")


@db.command()
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path))
@click.option("--add", is_flag=True, help="Append a newer key to FILE: it encrypts, the older ones still decrypt.")
def backup_key(file: Path, add: bool) -> None:
    """Make the key file of encrypted backups, which only you can read.

    Set BACKUP_KEY_FILE to FILE, and keep a copy away from the backups: without a key you cannot restore them.

    \b
      fraudctl db backup-key backup.key
      BACKUP_KEY_FILE=backup.key fraudctl db backup --into backups
      fraudctl db backup-key backup.key --add      # rotates the key
    """
    from jobs.upkeep.encryption import make_key

    make_key(file, now=datetime.now(UTC), add=add)
    click.echo(f"{file}: {'a newer key was added' if add else 'a key was made'}. Copy it to a safe place now.")


@db.command()
@click.argument("source", type=click.Path(exists=True, path_type=Path))
@REPLACE
@click.option(
    "--unencrypted", is_flag=True, help="Trust a backup that is not encrypted although BACKUP_KEY_FILE is set."
)
def restore(source: Path, replace: bool, unencrypted: bool) -> None:
    """Restore database, models and MLflow's store from a backup, after verifying it whole.

    Stop the API first. --replace deletes everything that is there now. An encrypted backup needs BACKUP_KEY_FILE.

    \b
      fraudctl db restore backups/2026-08-22.tar.gz --replace   # stop the API first

    \b
      kubectl exec -i job/admin -- fraudctl db restore /dev/stdin --replace < 2026-08-22.tar.gz
    """
    from jobs.upkeep.restore import restore as put_back

    here = installation()
    with seekable(source, ".tar") as readable:
        restored = put_back(readable, here, actor=actor(), replace=replace, unencrypted=unencrypted)
    kept = restored.backup
    rows = " and ".join(f"{counted(count, 'transaction')} ({name})" for name, count in kept.rows.items())
    click.echo(f"Restored the backup of {kept.created}: {rows}; the current version is {kept.current or 'none'}.")
    for path in restored.erased:
        click.echo(f"Deleted {path}: the backup has none.")


@db.command()
@click.argument("sql")
@click.option(
    "--timeout",
    "timeout_seconds",
    type=click.IntRange(1, 86_400),
    default=60,
    show_default=True,
    help="Seconds after which the statement ends, because a reader keeps the write-ahead log from shrinking.",
)
def query(sql: str, timeout_seconds: int) -> None:
    """Run one read-only SQL statement, and print its rows as CSV.

    \b
      fraudctl db query "SELECT * FROM requests ORDER BY ts DESC LIMIT 1"
      fraudctl db query "SELECT source, COUNT(*) FROM labels GROUP BY source"
    """
    here = installation()
    with closing(here.open_store()) as store, store.begin() as connection:
        names, rows = run_query(connection, sql, timeout_seconds=timeout_seconds)
        writer = csv.writer(sys.stdout, lineterminator="\n")
        writer.writerows([names, *rows] if names else [])


@db.command()
@REPLACE
def copy(replace: bool) -> None:
    """Copy everything stored in SQLite (LATEST_DB and TRAIN_DB) into PostgreSQL (DATABASE_URL), and verify it.

    Stop the API first. The command compares counts and digests before it commits.

    \b
      DATABASE_URL=postgresql://fraud:secret@db.example/fraud fraudctl db copy   # stop the API first
    """
    here = installation()
    if here.settings.database_url is None:
        raise BadSetting("DATABASE_URL is not set; set it to the target: postgresql://user:password@host/database")
    sources = {path.resolve(): path for path in (here.settings.latest_db, here.settings.train_db) if path.exists()}
    if not sources:
        raise BadSetting(f"LATEST_DB: there is no {here.settings.latest_db} to copy")
    copied = copy_stores(list(sources.values()), here.settings.database_url, here.features, replace=replace)
    counts = ", ".join(f"{rows:,} {table}" for table, rows in copied.items())
    click.echo(f"Copied {counts}; every row is identical.")


COMMANDS = (db,)
