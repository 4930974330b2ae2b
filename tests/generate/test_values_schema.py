"""A value of the chart has the type of its default, the form of its name, and the bounds of its variable."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from fraud_detection.settings import ApiSettings, JobSettings
from generate import values_schema
from generate.variables import OTHER_VALUES_OF_THE_CHART
from tests.support.project import CHART

DEFAULTS = {variable.name: variable.default for each in (ApiSettings, JobSettings) for variable in each.variables()}
VALUES = yaml.safe_load((CHART / "values.yaml").read_text())
SCHEMA = json.loads((CHART / "values.schema.json").read_text())


def value_at(path: str) -> Any:
    value = VALUES
    for name in path.split("."):
        value = value[name]
    return value


def schema_at(path: str) -> Any:
    schema = SCHEMA
    for name in path.split("."):
        schema = schema["properties"][name]
    return schema


@pytest.mark.parametrize(
    ("default", "schema"),
    [
        ("true", {"type": "boolean"}),
        ("7", {"type": "integer", "minimum": 0}),
        ("0.5", {"type": "number"}),
        ('""', {"type": "string"}),
        ("[]", {"type": "array", "items": {"type": "object"}}),
        ("{}", {"type": "object"}),
        ("{timeZone: UTC}", {"timeZone": {"type": "string", "pattern": "^[A-Za-z][-+_/A-Za-z0-9]*$"}}),
    ],
)
def test_a_new_value_has_the_type_of_its_default(
    default: str, schema: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "values.yaml").write_text(f"global: {{}}\nmadeUp: {default}\n")
    monkeypatch.setattr(values_schema, "_CHART", tmp_path)

    found = json.loads(values_schema.values_schema())["properties"]["madeUp"]

    assert found == schema or (found["properties"], found["additionalProperties"]) == (schema, False)


def test_a_null_default_needs_a_form(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "values.yaml").write_text("global: {}\nmadeUp: null\n")
    monkeypatch.setattr(values_schema, "_CHART", tmp_path)

    with pytest.raises(ValueError, match="madeUp: null does not show what else may stand there"):
        values_schema.values_schema()


@pytest.mark.parametrize(
    ("path", "schema"),
    [
        ("jobs.retrain.rollout.timeoutSeconds", {"type": "integer", "minimum": 1, "maximum": 86400}),
        ("jobs.retrain.rollout.mode", {"enum": ["reload", "restart", "none"]}),
        ("jobs.retrain.allowDerivedLabels", {"type": "boolean"}),
        ("api.probes.startup.timeoutSeconds", {"type": "integer", "minimum": 1}),
        ("api.probePort", {"type": "integer", "minimum": 1, "maximum": 65535}),
        ("config.gateMinFrauds", {"type": "integer", "minimum": 5, "maximum": 100000}),
    ],
)
def test_a_value_that_sets_a_variable_has_its_bounds(path: str, schema: dict[str, Any]) -> None:
    assert schema_at(path) == schema


@pytest.mark.parametrize("name", sorted(OTHER_VALUES_OF_THE_CHART.keys() - {"ROLLOUT_MODE"}))
def test_a_value_that_sets_a_variable_has_its_default(name: str) -> None:
    assert str(value_at(OTHER_VALUES_OF_THE_CHART[name])).lower() == DEFAULTS[name]


def test_the_chart_restarts_the_api_which_only_a_cluster_can() -> None:
    assert (value_at(OTHER_VALUES_OF_THE_CHART["ROLLOUT_MODE"]), DEFAULTS["ROLLOUT_MODE"]) == ("restart", "reload")
