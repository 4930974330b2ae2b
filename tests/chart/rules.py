"""Render the alert rules of the chart."""

from typing import Any

from tests.chart.helm import Helm, Values, named

OPERATOR = ("monitoring.coreos.com/v1",)
AS_IN_THE_FILES: Values = {"jobs": {"backup": {"enabled": True, "existingClaim": "fraud-detection-backups"}}}
"""Which names the plain files have: with the backups that the default installation does without."""


def groups(helm: Helm, values: Values | None = None, release: str = "fraud-detection") -> list[dict[str, Any]]:
    """Return the groups of the PrometheusRule that a release gets."""
    manifests = helm.render(values or {}, release=release, api_versions=OPERATOR)
    found: list[dict[str, Any]] = named(manifests, "PrometheusRule")["spec"]["groups"]
    return found
