"""Put each variable where users change it: the chart's `config`, compose.yaml and .env.example.

A new variable of fraud_detection/settings.py appears in all of these, unless this file names it.
"""

import textwrap
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import yaml

from fraud_detection.environment import Boolean, Choice, Integer, Number, Variable
from fraud_detection.settings import ApiSettings, JobSettings, SharedSettings
from generate.sections import replaced

_ROOT = Path(__file__).parent.parent
_CHART = _ROOT / "charts" / "fraud-detection"

# The image, compose.yaml, or other values of the chart decide these; templates/config/_config.tpl sets them by hand.
DECIDED_BY_THE_PLACE = {
    "API_TOKEN",
    "API_TOKEN_FILE",
    "API_TOKEN_PREVIOUS",
    "API_TOKEN_PREVIOUS_FILE",
    "API_TOKENS_FILE",
    "BACKUP_KEY_FILE",
    "DATABASE_URL",
    "FEATURES_FILE",
    "HOST",
    "METRICS_TOKEN",
    "METRICS_TOKEN_FILE",
    "PORT",
    "PROBE_PORT",
    "PUSHGATEWAY_URL",
    "ROLLOUT_DEPLOYMENT",
    "ROLLOUT_MODE",
    "ROLLOUT_TIMEOUT_SECONDS",
}

OTHER_VALUES_OF_THE_CHART = {
    "ALLOW_DERIVED_LABELS": "jobs.retrain.allowDerivedLabels",
    "PORT": "api.port",
    "PROBE_PORT": "api.probePort",
    "ROLLOUT_MODE": "jobs.retrain.rollout.mode",
    "ROLLOUT_TIMEOUT_SECONDS": "jobs.retrain.rollout.timeoutSeconds",
}
"""Variables that values outside `config` set."""


@dataclass(frozen=True)
class PathInChart:
    """A path in the image: it is absolute, unlike in a checkout, and compose.yaml does not pass it on."""

    default: str
    pattern: str = "^/"


PATHS = {
    "MODEL_PATH": PathInChart("/app/models/rf_model.pkl", r"^/([^/]+/)+rf_model\.pkl$"),
    "LATEST_DB": PathInChart("/app/data/requests.db"),
    "BASELINE_DIR": PathInChart("", "^(/.*)?$"),
    "TRAIN_DB": PathInChart("/app/data/history.db"),
    "DRIFT_RESULT": PathInChart("/app/data/drift_result.json"),
}

# What only a user of the chart needs to know.
NOTES = {
    "MODEL_PATH": "Change it if your volume is mounted elsewhere.",
    "BASELINE_DIR": "Empty means the folder in the image, or `/app/models/baseline` if you set `features`.",
    "TRAIN_DB": "It is a separate file, so that you can import history while the API runs.",
    "MLFLOW_TRACKING_URI": "Put its password into a Secret, and the Secret into `jobs.common.extraEnvFrom`.",
}


def groups() -> dict[str, list[Variable]]:
    """Return the variables that a user may change, by the programs that read them."""
    shared = {variable.name for variable in SharedSettings.variables()}
    return {
        "shared": _changeable(SharedSettings.variables()),
        "api": _changeable(variable for variable in ApiSettings.variables() if variable.name not in shared),
        "job": _changeable(variable for variable in JobSettings.variables() if variable.name not in shared),
    }


def _changeable(variables: Iterable[Variable]) -> list[Variable]:
    return [variable for variable in variables if variable.name not in DECIDED_BY_THE_PLACE]


def _of_the_chart(variables: Iterable[Variable]) -> list[Variable]:
    return [variable for variable in variables if variable.name not in OTHER_VALUES_OF_THE_CHART]


def values() -> str:
    """Return values.yaml with a new `config` section."""
    lines = ["config:", "  # `make generate` writes this section from fraud_detection/settings.py.", ""]
    for variable in _of_the_chart(variable for group in groups().values() for variable in group):
        note = f" {NOTES[variable.name]}" if variable.name in NOTES else ""
        lines += _comment(f"-- {_sentence(variable)}{note}", "  # ")
        lines.append(f"  {chart_name(variable)}: {_yaml(variable)}")
    return replaced(_CHART / "values.yaml", r"^config:\n.*?(?=^\S)", "\n".join(lines) + "\n\n")


def schemas() -> dict[str, dict[str, object]]:
    """Return the schema of each value of the chart that sets a variable, by the path of the value."""
    config = _of_the_chart(variable for group in groups().values() for variable in group)
    every = {variable.name: variable for each in (ApiSettings, JobSettings) for variable in each.variables()}
    return {f"config.{chart_name(variable)}": _schema(variable) for variable in config} | {
        path: _schema(every[name]) for name, path in OTHER_VALUES_OF_THE_CHART.items()
    }


def template() -> str:
    """Return templates/config/_variables.tpl, which turns the values under `config` into variables."""
    parts = ["{{/* `make generate` writes this file: the variables that the values under `config` set. */}}\n"]
    for group, variables in groups().items():
        lines = [line for variable in _of_the_chart(variables) for line in _template_lines(variable)]
        parts.append("\n".join([f'{{{{- define "fraud-detection.{group}Variables" -}}}}', *lines, "{{- end }}\n"]))
    return "\n".join(parts)


def compose() -> str:
    """Return compose.yaml with new lists of variables."""
    sections = [
        "\n".join([f"x-{group}-variables: &{group}-variables", *(f"  {name}:" for name in _passed_on(variables))])
        for group, variables in groups().items()
    ]
    return replaced(_ROOT / "compose.yaml", r"^x-shared-variables:.*?(?=^#)", "\n\n".join(sections) + "\n\n")


def env_example() -> str:
    """Return .env.example with a new list of defaults."""
    lines = ["# Defaults. `make generate` writes this list from fraud_detection/settings.py."]
    for group in groups().values():
        for variable in group:
            if variable.name in _passed_on(group) and variable.default is not None:
                lines += ["", *_comment(_sentence(variable), "# "), f"#{variable.name}={variable.default}"]
    return replaced(_ROOT / ".env.example", r"^# Defaults\. `make.*\Z", "\n".join(lines) + "\n")


def chart_name(variable: Variable) -> str:
    """Return the name of the chart's value: FRAUD_THRESHOLD is fraudThreshold."""
    first, *others = variable.name.lower().split("_")
    return first + "".join(word.capitalize() for word in others)


def _passed_on(variables: Iterable[Variable]) -> list[str]:
    return [variable.name for variable in variables if variable.name not in PATHS]


def _sentence(variable: Variable) -> str:
    return variable.meaning[0].upper() + variable.meaning[1:].removesuffix(".") + "."


def _comment(text: str, prefix: str) -> list[str]:
    return textwrap.wrap(
        text, 120, initial_indent=prefix, subsequent_indent=prefix, break_long_words=False, break_on_hyphens=False
    )


def _yaml(variable: Variable) -> str:
    default = PATHS[variable.name].default if variable.name in PATHS else variable.default or ""
    if isinstance(variable.parse, Boolean | Number | Integer):
        return default
    return yaml.safe_dump(default).splitlines()[0] if default else '""'


def _schema(variable: Variable) -> dict[str, object]:
    if variable.name in PATHS:
        return {"type": "string", "pattern": PATHS[variable.name].pattern}
    match variable.parse:
        case Boolean():
            return {"type": "boolean"}
        case Number(minimum, maximum):
            return {"type": "number", "minimum": minimum, "maximum": maximum}
        case Integer(minimum, maximum):
            return {"type": "integer", "minimum": minimum, "maximum": maximum}
        case Choice():
            return {"enum": list(variable.parse.words)}
        case _:
            return {"type": "string"}


def _template_lines(variable: Variable) -> list[str]:
    value = f".Values.config.{chart_name(variable)}"
    if _yaml(variable) == '""':
        return [f"{{{{- with {value} }}}}", f"{variable.name}: {{{{ . | quote }}}}", "{{- end }}"]
    if isinstance(variable.parse, Integer):  # Helm reads numbers as floating point, and prints a million as 1e+06
        return [f"{variable.name}: {{{{ {value} | int64 | quote }}}}"]
    return [f"{variable.name}: {{{{ {value} | toString | quote }}}}"]
