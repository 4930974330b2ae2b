"""The document of the commands has everything that click knows about them."""

import re

import click

from fraud_detection.exit_codes import ExitCode
from generate.command_line import command_line, commands


@click.group()
def program() -> None:
    """Do everything."""


@program.command()
@click.argument("file")
@click.option("--rows", default=7, show_default=True, help="How many.")
def count(file: str, rows: int) -> None:
    """Count what is in FILE, up to a number
    of rows.

    \b
      program count a.csv
      program count b.csv --rows 9
    """


def test_the_commands_of_groups_are_named_by_all_their_words() -> None:
    found = dict(commands(click.Group(commands={"inner": program}), "outer"))

    assert found == {"outer inner count": count}


def test_a_section_has_usage_prose_examples_and_options() -> None:
    text = command_line(program, "program")

    assert text.endswith(
        "## program count\n\n"
        "```text\nprogram count [OPTIONS] FILE\n```\n\n"
        "Count what is in FILE, up to a number of rows.\n\n"
        "```bash\nprogram count a.csv\nprogram count b.csv --rows 9\n```\n\n"
        "| Option | Meaning |\n|---|---|\n| `--rows INTEGER` | How many. [default: 7] |\n"
    )


def test_every_exit_code_is_explained() -> None:
    explained = {int(code) for code in re.findall(r"^\| (\d+) \|", command_line(program, "program"), re.MULTILINE)}

    assert explained == set(ExitCode)
