"""Every variable stands where people change it, or the table of exceptions names it."""

import pytest
import yaml

from fraud_detection.environment import Integer, Variable
from fraud_detection.settings import ApiSettings, JobSettings
from generate import variables
from generate.variables import DECIDED_BY_THE_PLACE, NOTES, OTHER_VALUES_OF_THE_CHART, PATHS, chart_name, groups
from tests.support.project import ROOT

EVERY = {variable.name: variable for settings in (ApiSettings, JobSettings) for variable in settings.variables()}


def test_the_exceptions_are_variables() -> None:
    assert DECIDED_BY_THE_PLACE | set(OTHER_VALUES_OF_THE_CHART) | set(PATHS) | set(NOTES) <= set(EVERY)


def test_every_other_variable_is_a_value_of_the_chart() -> None:
    config = yaml.safe_load((ROOT / "charts" / "fraud-detection" / "values.yaml").read_text())["config"]

    expected = set(EVERY) - DECIDED_BY_THE_PLACE - set(OTHER_VALUES_OF_THE_CHART)
    assert set(config) == {chart_name(EVERY[name]) for name in expected}


def test_a_secret_is_never_a_value() -> None:
    values = [variable for group in groups().values() for variable in group]

    assert "FRAUD_THRESHOLD" in {variable.name for variable in values}
    assert not [variable.name for variable in values if variable.secret]


def test_a_new_variable_appears_everywhere_by_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = Variable("MADE_UP_ROWS", "rows of a test", Integer(1, 9), default="7", required=False, secret=False)
    known = JobSettings.variables()
    monkeypatch.setattr(JobSettings, "variables", lambda: [*known, rows])

    assert "  # -- Rows of a test.\n  madeUpRows: 7\n" in variables.values()
    assert variables.schemas()["config.madeUpRows"] == {"type": "integer", "minimum": 1, "maximum": 9}
    assert "MADE_UP_ROWS: {{ .Values.config.madeUpRows | int64 | quote }}" in variables.template()
    assert "  MADE_UP_ROWS:\n" in variables.compose()
    assert "# Rows of a test.\n#MADE_UP_ROWS=7\n" in variables.env_example()


def test_a_variable_without_a_default_is_rendered_only_if_it_is_set(monkeypatch: pytest.MonkeyPatch) -> None:
    address = Variable("MADE_UP_URL", "a place", str, default=None, required=False, secret=False)
    monkeypatch.setattr(JobSettings, "variables", lambda: [address])

    assert '  madeUpUrl: ""\n' in variables.values()
    assert "{{- with .Values.config.madeUpUrl }}\nMADE_UP_URL: {{ . | quote }}\n{{- end }}" in variables.template()
    assert "MADE_UP_URL" not in variables.env_example()
