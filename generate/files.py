"""Name every generated file with the function that gives its text."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

from fraudctl.main import main as fraudctl
from generate import chart, variables
from generate.command_line import command_line
from generate.configuration import configuration
from generate.dashboards import dashboard
from generate.makefile import contributing
from generate.openapi import clients, openapi_document
from generate.third_party_notices import third_party_notices
from generate.values_schema import values_schema

ROOT = Path(__file__).parent.parent

# In this order: what the chart's README and the rendered defaults are made from comes before them.
PARTS: dict[str, Callable[[], str]] = {
    ".env.example": variables.env_example,
    "CONTRIBUTING.md": contributing,
    "charts/fraud-detection/values.yaml": variables.values,
    "compose.yaml": variables.compose,
    "docs/clients.md": clients,
}
"""Files of which one section is generated."""

WHOLE: dict[str, Callable[[], str]] = {
    "THIRD_PARTY_NOTICES": third_party_notices,
    "api/openapi.json": openapi_document,
    "charts/fraud-detection/files/dashboards/drift.json": partial(dashboard, "drift"),
    "charts/fraud-detection/files/dashboards/model.json": partial(dashboard, "model"),
    "charts/fraud-detection/files/dashboards/service.json": partial(dashboard, "service"),
    "charts/fraud-detection/templates/config/_variables.tpl": variables.template,
    "charts/fraud-detection/values.schema.json": values_schema,
    "docs/configuration.md": configuration,
    "docs/fraudctl.md": partial(command_line, fraudctl, "fraudctl"),
    "charts/fraud-detection/README.md": chart.readme,
    "tests/chart/snapshot/default.yaml": chart.rendered_defaults,
}

FILES = PARTS | WHOLE
