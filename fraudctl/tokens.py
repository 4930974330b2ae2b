"""Commands on named tokens: token new, rotate, list, remove."""

import shlex
import sys
from pathlib import Path

import click

from fraud_detection.counted import counted
from fraud_detection.environment import open_file_warning
from fraud_detection.token_file import SCOPES, Scope, add_token, read_tokens, remove_token, rotate_token
from fraudctl.caller import warn


def _checked(_context: click.Context, _option: click.Parameter, file: Path) -> Path:
    warn(open_file_warning("API_TOKENS_FILE", file))
    return file


_FILE = click.option(
    "--file",
    type=click.Path(dir_okay=False, path_type=Path),
    envvar="API_TOKENS_FILE",
    show_envvar=True,
    required=True,
    callback=_checked,
    help="The file of named tokens.",
)


@click.group()
def token() -> None:
    """Make, rotate, list and remove tokens that open a part of the API (API_TOKENS_FILE).

    The file holds digests, so no command shows a token again. A running API reads a changed file within 10 seconds.
    """


@token.command()
@click.argument("name")
@click.option(
    "--scope",
    "scopes",
    type=click.Choice(SCOPES),
    multiple=True,
    required=True,
    help="What the token may do; repeat it for more than one.",
)
@_FILE
def new(name: str, scopes: tuple[Scope, ...], file: Path) -> None:
    """Make a token, add it to the file under NAME, and print it once.

    \b
      export API_TOKENS_FILE=tokens
      fraudctl token new checkout --scope predict
      fraudctl token new helpdesk --scope read --scope label
    """
    add_token(file, name, [scope for scope in SCOPES if scope in scopes], _show)
    click.echo(f"Added {name} to {file}. Only an API that was started with this variable accepts the token:", err=True)
    click.echo(f"  export API_TOKENS_FILE={shlex.quote(str(file.absolute()))}", err=True)


@token.command()
@click.argument("name")
@_FILE
def rotate(name: str, file: Path) -> None:
    """Make a second token for NAME with the same scopes, and print it once; both are valid.

    \b
      fraudctl token rotate checkout
      fraudctl token remove checkout --previous     # when its client uses the new one
    """
    rotate_token(file, name, _show)
    click.echo(f"Added a second token of {name} to {file}, and the first stays valid", err=True)


def _show(made: str) -> None:
    click.echo("This is the only time that you see the token:", err=True)
    if sys.stdout is None:  # echo() would write nothing and say nothing
        raise _not_shown("standard output is closed")
    try:
        click.echo(made)
    except OSError as error:
        raise _not_shown(str(error.strerror)) from error


def _not_shown(why: str) -> click.ClickException:
    return click.ClickException(f"the token cannot be shown ({why}), so none was added")


@token.command("list")
@_FILE
def list_tokens(file: Path) -> None:
    """Print the names and scopes in the file; the older of two tokens is marked as previous."""
    for entry in read_tokens(file):
        scopes = ",".join(scope for scope in SCOPES if scope in entry.scopes)
        click.echo(f"{entry.name:<24} {scopes:<28} {'' if entry.is_newest else 'previous'}".rstrip())


@token.command()
@click.argument("name")
@click.option("--previous", is_flag=True, help="Remove only the older of two tokens.")
@_FILE
def remove(name: str, previous: bool, file: Path) -> None:
    """Remove the tokens of NAME from the file; a running API rejects them within 10 seconds."""
    removed = remove_token(file, name, only_previous=previous)
    click.echo(f"Removed {counted(removed, 'token')} of {name} from {file}")


COMMANDS = (token,)
