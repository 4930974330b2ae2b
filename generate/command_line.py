"""Write docs/fraudctl.md from the commands that fraudctl/ defines."""

import inspect
import re
from collections.abc import Iterator

import click

from fraud_detection.exit_codes import ExitCode

_INTRODUCTION = """\
<!-- `make generate` writes this file from the commands in fraudctl/. -->

# fraudctl

One command line for the whole system. In a checkout `fraudctl` stands for `.venv/bin/python -m fraudctl`; the jobs
image has the command under this name. Every command explains itself with `--help`. [Variables](configuration.md)
configure it. `fraudctl status` shows where you are and what is next, `fraudctl --version` the version.

**From another folder.** Write the path of that Python in full: `make setup` and `make run` let it find the checkout
from every folder. A path that is not absolute counts from the folder in which you run a command: the defaults
`models/`, `data/` and `baseline/`, `.api_token`, and arguments. So run commands in the folder of your installation, or
let the variables name full paths. A command that finds no model, database or token says in full where it looked.

**Completion with the Tab key.** In a checkout, first install the command into `.venv/bin`, and put that on the PATH:
`.venv/bin/python -m pip install --no-deps --editable .`, then `. .venv/bin/activate`. Then add the line of your shell
to a file that it reads when it starts:

- bash, `~/.bashrc`: `eval "$(_FRAUDCTL_COMPLETE=bash_source fraudctl)"`
- zsh, `~/.zshrc`: `eval "$(_FRAUDCTL_COMPLETE=zsh_source fraudctl)"`
- fish, `~/.config/fish/config.fish`: `_FRAUDCTL_COMPLETE=fish_source fraudctl | source`
"""

_EXIT_CODES = """\
The API, the jobs and `fraudctl` use the same codes, defined in `fraud_detection/exit_codes.py`. The message says more.
"""

_NOT_RUN = {
    "kubectl": "needs a cluster",
    "fraudctl mlflow": "serves until you stop it",
    "fraudctl demo\n": "takes minutes, and tests/fraudctl/test_demo.py runs it",
    "fraudctl db backup before.tar.gz\nfraudctl reset": "deletes what the next examples need",
}
"""Examples that no test of documents runs, by how they begin, with the reason."""


def command_line(program: click.Group, program_name: str) -> str:
    """Return the document: a list of all commands, the exit codes, then a section for each command."""
    found = dict(commands(program, program_name))
    rows = [
        f"| [`{name}`](#{name.replace(' ', '-')}) | {_paragraphs(command)[0]} |\n" for name, command in found.items()
    ]
    overview = "".join(["| Command | What it does |\n", "|---|---|\n", *rows])
    codes = "".join(f"| {code:d} | {code.meaning} |\n" for code in ExitCode)
    exit_codes = f"## Exit codes\n\n{_EXIT_CODES}\n| Code | Meaning |\n|---|---|\n{codes}"
    return "\n".join([_INTRODUCTION, overview, exit_codes, *(_section(name, each) for name, each in found.items())])


def commands(group: click.Group, name: str) -> Iterator[tuple[str, click.Command]]:
    """Walk a click program: each command with the words that call it."""
    for word, command in group.commands.items():
        if isinstance(command, click.Group):
            yield from commands(command, f"{name} {word}")
        else:
            yield f"{name} {word}", command


def _section(name: str, command: click.Command) -> str:
    context = click.Context(command, info_name=name)
    usage = " ".join([name, *command.collect_usage_pieces(context)])
    parts = [f"## {name}\n", f"```text\n{usage}\n```\n", *(f"{text}\n" for text in _paragraphs(command))]
    options = [option.get_help_record(context) for option in command.params if isinstance(option, click.Option)]
    if options:
        rows = [f"| `{names}` | {' '.join(meaning.split())} |\n" for names, meaning in filter(None, options)]
        parts.append("".join(["| Option | Meaning |\n", "|---|---|\n", *rows]))
    return "\n".join(parts)


def _paragraphs(command: click.Command) -> list[str]:
    """Return the parts of a help text: prose as one line each, examples as blocks of code."""
    parts = re.split(r"\n\s*\n", inspect.cleandoc(command.help or ""))
    return [_example(part) if part.startswith("\b") else " ".join(part.split()) for part in parts]


def _example(part: str) -> str:
    lines = inspect.cleandoc(part.removeprefix("\b"))
    mark = next((f"<!-- not run: {why} -->\n" for begin, why in _NOT_RUN.items() if lines.startswith(begin)), "")
    return f"{mark}```bash\n{lines}\n```"
