"""Derive values.schema.json from the chart's values: type and form of each, so that Helm refuses a wrong one."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from generate import variables

Json = dict[str, Any]

_CHART = Path(__file__).parent.parent / "charts" / "fraud-detection"
_FORMS: Json = yaml.safe_load((Path(__file__).parent / "value_forms.yaml").read_text(encoding="utf-8"))
_HEAD = {"$schema": "http://json-schema.org/draft-07/schema#", "title": "Values of the chart fraud-detection"}
_TYPES: dict[type, Json] = {
    bool: {"type": "boolean"},
    int: {"type": "integer", "minimum": 0},
    float: {"type": "number"},
    str: {"type": "string"},
    list: {"type": "array", "items": {"type": "object"}},
    dict: {"type": "object"},
}
_SWITCH = {
    "type": "boolean",
    "description": "Switch for a chart that depends on this one, through `condition: fraud-detection.enabled`.",
}


def values_schema() -> str:
    """Return values.schema.json."""
    values: Json = yaml.safe_load((_CHART / "values.yaml").read_text(encoding="utf-8"))
    schema = _schema(values, "", variables.schemas())
    properties = schema["properties"]
    # A parent chart fills `global` for all of its charts, and Helm puts the condition of a dependency among our values.
    properties |= {"global": properties["global"] | {"additionalProperties": True}, "enabled": _SWITCH}
    return json.dumps(_HEAD | schema, indent=1) + "\n"


def _schema(value: object, path: str, of_variables: Mapping[str, Json]) -> Json:
    name = path.rpartition(".")[2]
    if path in of_variables:
        return of_variables[path]
    if name in _FORMS:
        form: Json = _FORMS[name]
        return form
    if isinstance(value, dict) and value:
        below = {name: _schema(each, f"{path}.{name}".lstrip("."), of_variables) for name, each in value.items()}
        common = below.get("common", {}).get("properties", {})
        for each in below.values():
            if "enabled" in each.get("properties", {}):  # a job, which also takes the values of all jobs
                each["properties"] = common | each["properties"]
        return {"type": "object", "additionalProperties": False, "properties": below}
    if value is None:
        raise ValueError(f"{path}: null does not show what else may stand there: add `{name}` to value_forms.yaml")
    return _TYPES[type(value)]
