"""Score and label transactions through the running API, and write them as tables."""

from __future__ import annotations

import tempfile
import uuid
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click

from fraud_detection.clock import timestamp
from fraud_detection.contract import LABEL_SOURCES
from fraud_detection.counted import counted
from fraudctl.arguments import FILE, FORCE, Moment, WouldReplace, opened, seekable
from fraudctl.caller import client_settings, installation
from jobs.exchange.api_client import ApiClient

if TYPE_CHECKING:
    from jobs.exchange.score_file import ScoredFile

OUT = click.option(
    "--out",
    type=click.Path(dir_okay=False, path_type=Path),
    help="File to write instead of the terminal: .parquet for Parquet, .gz for gzipped CSV, else CSV.",
)
SOURCE = click.option(
    "--source",
    type=click.Choice(LABEL_SOURCES),
    default="analyst",
    show_default=True,
    help="Source of the label.",
)
SINCE = click.option("--since", type=Moment(), help="Earliest time of the transactions.")
LIMIT = click.option("--limit", type=click.IntRange(min=1), help="Maximum number of transactions.")


@click.command()
@click.argument("file", type=FILE)
@click.option("--out", type=click.Path(dir_okay=False, path_type=Path), help="File to write, one row per transaction.")
@click.option("--run", metavar="NAME", help="Name that an interrupted run printed, to complete it.")
@FORCE
def score(file: Path, out: Path | None, run: str | None, *, force: bool) -> None:
    """Score a CSV or Parquet file of transactions with the running API, which stores every decision.

    The columns are those of `fraudctl import`; Class is optional, and other columns are ignored.

    \b
      fraudctl score new.csv   # while the API runs
      fraudctl score new.csv.gz --out scored.csv
      fraudctl score new.parquet --out scored.parquet

    With --out, each transaction gets its request_id and row. When you have filled in the column is_fraud, import-labels
    reads the file. An existing file stays, and nothing is scored; --force replaces it.
    """
    from jobs.exchange.score_file import score_file

    if out is not None and out.is_file() and not force:  # before the API stores what it scores
        raise WouldReplace(out, "exists, so nothing was scored")
    name = run or uuid.uuid4().hex[:12]
    click.echo(f"run {name}", err=True)
    with seekable(file) as readable, ApiClient(client_settings()) as client, opened(out, force=True) as written:
        total = score_file(readable, client, run=name, out=written if out else None)
    click.echo(_told(total))


def _told(total: ScoredFile) -> str:
    versions = " and then ".join(total.model_versions)
    told = (
        f"Scored {counted(total.rows, 'transaction')} with {versions}: {total.flagged:,} flagged "
        f"({total.flagged / total.rows:.2%}) at threshold {total.threshold:g}."
    )
    if total.frauds + total.genuine:
        told += (
            f" By the labels in the file: {total.frauds_flagged:,} of {counted(total.frauds, 'fraud')} flagged, and "
            f"{total.genuine_flagged:,} of {counted(total.genuine, 'genuine transaction')}."
        )
    return told


@click.command()
@click.argument("transaction")
@click.option("--fraud/--genuine", "is_fraud", required=True, help="The label.")
@SOURCE
@click.option("--reporter", help="Reporter: a name or a case number.")
def label(transaction: str, is_fraud: bool, source: str, reporter: str | None) -> None:
    """Label one transaction through the running API.

    TRANSACTION is your own id of it, or REQUEST_ID:ROW from the API's reply.

    \b
      fraudctl label order-1001 --fraud --source chargeback
      fraudctl label 0198c2a5-8f1e-7cc3-9d2b-3a5be0a4f5c1:0 --genuine
    """
    said: dict[str, object] = {"is_fraud": is_fraud, "source": source}
    request_id, _, row = transaction.rpartition(":")
    if _is_request_id(request_id) and row.isdecimal():
        said |= {"request_id": request_id, "row": int(row)}
    else:
        said |= {"transaction_id": transaction}
    if reporter:
        said["reporter"] = reporter
    with ApiClient(client_settings()) as client:
        new = client.label([said])
    click.echo(
        f"{transaction}: {'fraud' if is_fraud else 'genuine'}, says {source}{'' if new else ' (already known)'}."
    )


def _is_request_id(text: str) -> bool:
    try:
        return str(uuid.UUID(text)) == text
    except ValueError:
        return False


@click.command("import-labels")
@click.argument("file", type=FILE)
@SOURCE
def import_labels(file: Path, source: str) -> None:
    """Send the labels in a CSV or Parquet file to the running API.

    Repeating the command changes nothing. Columns: transaction_id, or request_id and row; is_fraud (or Class), empty if
    not known yet; optional source, reported_at, reporter. You can fill in the files that `score --out` and
    `unlabelled --out` write.

    \b
      fraudctl unlabelled --out todo.csv       # fill in is_fraud
      fraudctl import-labels todo.csv
      fraudctl import-labels chargebacks.csv --source chargeback
    """
    from jobs.exchange.label_file import label_file

    with seekable(file) as readable, ApiClient(client_settings()) as client:
        done = label_file(readable, client, source=source)
    click.echo(
        f"{file.name}: {counted(done.labels, 'label')}, {done.new:,} of them new; "
        f"{counted(done.empty, 'line')} without a label."
        + (f" Not sent, because another line counts: {done.overruled:,}." if done.overruled else "")
    )


@click.command()
@OUT
@SINCE
@LIMIT
@FORCE
def unlabelled(out: Path | None, since: datetime | None, limit: int | None, *, force: bool) -> None:
    """List decisions without a label, the highest scores first.

    An existing file that differs stays, because you may have filled in labels; --force replaces it.

    \b
      fraudctl unlabelled --limit 100 --out highest.csv
    """
    _write(out, since, limit, unlabelled_only=True, force=force)


@click.command()
@OUT
@SINCE
@LIMIT
@FORCE
def export(out: Path | None, since: datetime | None, limit: int | None, *, force: bool) -> None:
    """Write stored transactions: features, score, decision, and the label that counts.

    An existing file that differs stays; --force replaces it.

    \b
      fraudctl export --since 2026-08-01 --out august.csv
      fraudctl export --out everything.parquet
    """
    _write(out, since, limit, unlabelled_only=False, force=force)


def _write(out: Path | None, since: datetime | None, limit: int | None, *, unlabelled_only: bool, force: bool) -> None:
    from jobs.exchange.listing import write_transactions

    here = installation()
    with opened(out, force=force) as written:
        rows = write_transactions(
            written,
            here,
            unlabelled_only=unlabelled_only,
            since="" if since is None else timestamp(since),
            limit=limit,
        )
    click.echo(f"{counted(rows, 'transaction')}{f' in {out}' if out else ''}.", err=True)


@click.command("demo-data")
@click.option(
    "--rows", type=click.IntRange(2, 1_000_000), default=2000, show_default=True, help="Number of transactions."
)
@click.option("--seed", type=click.IntRange(min=0), default=42, show_default=True, help="Seed of the random rows.")
@click.option(
    "--fraud-share",
    type=click.FloatRange(0, 1, min_open=True, max_open=True),
    help="Share of fraud, above 0 and below 1.",
)
@click.option("--send", is_flag=True, help="Score and label them through the running API instead of writing them.")
@OUT
@FORCE
def demo_data(rows: int, seed: int, fraud_share: float | None, send: bool, out: Path | None, *, force: bool) -> None:
    """Generate labelled synthetic transactions: plausible, and of no real person.

    An existing file that differs stays; --force replaces it.

    \b
      fraudctl demo-data --out demo.csv
      fraudctl demo-data --rows 5000 --fraud-share 0.02 --send
    """
    from jobs.exchange.label_file import label_file
    from jobs.exchange.score_file import score_file
    from jobs.synthetic.demo_data import write_demo_data

    if send and out is not None:
        raise click.UsageError("expected --send or --out, not both")
    here = installation()
    with tempfile.TemporaryDirectory(prefix="fraud-demo-") as scratch:
        target = Path(scratch) / "demo.csv" if send else out
        with opened(target, force=force) as written:
            frauds = write_demo_data(written, here, rows=rows, seed=seed, fraud_share=fraud_share)
        if send and target is not None:
            with ApiClient(client_settings()) as client:
                total = score_file(target, client, run=uuid.uuid4().hex[:12])
                label_file(target, client, source="analyst")
            click.echo(_told(total))
    click.echo(f"{counted(rows, 'transaction')}, {frauds:,} of them fraud{f', in {out}' if out else ''}.", err=True)


COMMANDS = (score, label, import_labels, unlabelled, export, demo_data)
