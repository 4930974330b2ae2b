"""Every manifest fits the schemas of Kubernetes, from 1.30 to the newest version, and of the operators."""

import pytest

from tests.chart.api_schemas import VERSIONS, complaint
from tests.chart.helm import CI, Helm, Manifest

OPERATORS = ("monitoring.coreos.com/v1", "gateway.networking.k8s.io/v1")


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("ci", CI)
def test_fits_the_schemas(helm4: Helm, ci: str, version: str) -> None:
    manifests = helm4.render(ci=ci, kube_version=version, api_versions=OPERATORS)

    assert {name(m): said for m in manifests if (said := complaint(m, version))} == {}


def name(manifest: Manifest) -> str:
    return f"{manifest['kind']} {manifest['metadata']['name']}"


def test_names_that_look_like_numbers_stay_texts(helm: Helm) -> None:
    manifests = helm.render(
        {"fullnameOverride": "scores"}, ci="full", release="1", namespace="7", api_versions=OPERATORS
    )

    assert {name(m): said for m in manifests if (said := complaint(m, VERSIONS[-1]))} == {}


@pytest.mark.parametrize("kind", ["Deployment", "ServiceMonitor", "PrometheusRule", "HTTPRoute"])
def test_a_field_that_does_not_exist_is_found(helm4: Helm, kind: str) -> None:
    manifest = next(m for m in helm4.render(ci="full", api_versions=OPERATORS) if m["kind"] == kind)
    manifest["spec"]["typo"] = 1

    assert "Additional properties are not allowed ('typo' was unexpected)" in str(complaint(manifest, VERSIONS[-1]))
