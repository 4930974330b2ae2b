"""`fraudctl`: all commands, and each expected error as one line and an exit code."""

import errno
import re
from itertools import pairwise

import click
import sqlalchemy as sa

from fraud_detection import VERSION
from fraud_detection.exit_codes import ExitCode, ExpectedError
from fraud_detection.file_modes import share_with_group
from fraudctl import (
    audit,
    database,
    demo,
    feature_list,
    imports,
    loop,
    models,
    service,
    status,
    tokens,
    training_runs,
    transactions,
)


class Fraudctl(click.Group):
    """Lists commands in the order of a first use, and prints an expected error as one line on stderr."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names in the order of COMMANDS."""
        del ctx
        return list(self.commands)

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Refuse an empty argument, which would be read as this folder, or as every or no transaction.

        The name of a column may be empty: pandas writes its index under such a name.
        """
        for before, argument in pairwise(["", *args]):
            option = argument.removesuffix("=") or before
            if re.fullmatch(r"(--[a-z-]+=)?", argument) and option not in _NAME_A_COLUMN:
                raise click.UsageError(
                    "an argument is empty; leave it out, or look whether a variable of your shell is set"
                )
        return super().parse_args(ctx, args)

    def invoke(self, ctx: click.Context) -> object:
        """Run the command."""
        try:
            return super().invoke(ctx)
        except (click.exceptions.Exit, click.ClickException, click.Abort, BrokenPipeError):
            raise
        except Exception as error:
            exit_code, message = ExitCode.FAILED, str(error)
            if isinstance(error, ExpectedError):
                exit_code = error.exit_code
            elif isinstance(error, sa.exc.DBAPIError):  # its own text repeats the statement and the values
                message = f"the database says: {error.orig}"
            elif isinstance(error, OSError):
                message = _of_a_path(error)
            else:  # a bug, which shows its traceback
                raise
            click.echo(f"fraudctl: {message}", err=True)
            ctx.exit(exit_code)


_NAME_A_COLUMN = ("--ignore", "--leave-out")
_ADVICE = {
    **dict.fromkeys((errno.EEXIST, errno.ENOTDIR), "a folder was expected there; give another path, or move it away"),
    errno.ENOENT: "make its folder first, or give another path",
    **dict.fromkeys((errno.EACCES, errno.EPERM, errno.EROFS), "let this user write there, or give another path"),
    **dict.fromkeys((errno.ENOSPC, errno.EDQUOT), "free some space there, or give another path"),
}


def _of_a_path(error: OSError) -> str:
    if error.filename is None or error.strerror is None:
        return str(error)
    return f"{error.filename}: {error.strerror}; {_ADVICE.get(error.errno or 0, 'give another path')}"


@click.group(cls=Fraudctl, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(VERSION, prog_name="fraudctl")
def main() -> None:
    """Score transactions, label them, watch drift, retrain, and inspect everything that happened.

    Environment variables configure it (docs/configuration.md). Once round the loop:

    \b
      fraudctl import creditcard.csv           # history with labels, before anything serves
      fraudctl serve --first-time              # in another terminal
      fraudctl retrain --force                 # the first model of real transactions
      fraudctl score new.csv --out scored.csv
      fraudctl import-labels scored.csv        # once its column is_fraud is filled in
      fraudctl drift
      fraudctl retrain
      fraudctl lineage TRANSACTION_ID
    """
    share_with_group()


for subject in (
    service,
    status,
    demo,
    imports,
    transactions,
    loop,
    models,
    training_runs,
    audit,
    database,
    feature_list,
    tokens,
):
    for command in subject.COMMANDS:
        main.add_command(command)
