"""Write docs/configuration.md from the variables that fraud_detection/settings.py declares."""

from collections.abc import Iterable

from fraud_detection.environment import Boolean, Choice, Integer, Number, Variable
from fraud_detection.settings import ApiSettings, ClientSettings, JobSettings, SharedSettings

_INTRODUCTION = """\
<!-- `make generate` writes this file from fraud_detection/settings.py. -->

# Configuration

Environment variables configure every program. Each program checks its variables when it starts, and a wrong value stops
it with the variable's name and what was expected. An empty variable counts as not set.

A secret can also come from a file: for `API_TOKEN`, set `API_TOKEN_FILE` to the file's path. Never set both.

The chart sets these variables from its [values](../charts/fraud-detection/README.md), and `compose.yaml` from `.env`.

gunicorn, gevent, Flask and Python read variables of their own; the API refuses
[those that would break a promise](operations.md#settings-that-the-api-refuses).
"""


def configuration() -> str:
    """Return the document: one table for each group of programs."""
    shared = {variable.name for variable in SharedSettings.variables()}
    groups = {
        "API and jobs": SharedSettings.variables(),
        "API": [variable for variable in ApiSettings.variables() if variable.name not in shared],
        "Jobs": [variable for variable in JobSettings.variables() if variable.name not in shared],
        "Commands that call a running API": ClientSettings.variables(),
    }
    parts = [_INTRODUCTION, *(f"## {title}\n\n{_table(variables)}" for title, variables in groups.items())]
    return "\n".join(parts)


def _table(variables: Iterable[Variable]) -> str:
    rows = [
        f"| `{variable.name}` | {_default(variable)} | {_meaning(variable)} | {_expected(variable)} |\n"
        for variable in variables
    ]
    return "".join(["| Variable | Default | Meaning | Expected |\n", "|---|---|---|---|\n", *rows])


def _default(variable: Variable) -> str:
    if variable.required:
        return "required"
    return "none" if variable.default is None else f"`{variable.default}`"


def _meaning(variable: Variable) -> str:
    return variable.meaning + (" (secret)" if variable.secret else "")


def _expected(variable: Variable) -> str:
    return variable.parse.expected if isinstance(variable.parse, Boolean | Number | Integer | Choice) else ""
