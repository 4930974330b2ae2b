"""Values as platform engineers write them render what Kubernetes accepts, by server-side apply, too."""

from pathlib import Path

import pytest
import yaml

from tests.chart.api_schemas import VERSIONS, complaint
from tests.chart.helm import CI, Helm
from tests.chart.server_side_apply import duplicates, strictly_parsed

CASES = sorted((Path(__file__).parent / "cases").glob("*.yaml"))
OPERATORS = ("monitoring.coreos.com/v1", "gateway.networking.k8s.io/v1")


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.stem)
def test_fits_the_schemas_without_a_duplicate(helm: Helm, case: Path) -> None:
    text = helm.template(yaml.safe_load(case.read_text()), api_versions=OPERATORS)

    for manifest in strictly_parsed(text):
        name = f"{manifest['kind']} {manifest['metadata']['name']}"
        assert duplicates(manifest) == [], name
        if "keda" not in manifest["apiVersion"]:
            assert complaint(manifest, VERSIONS[-1]) is None, name


@pytest.mark.parametrize("ci", CI)
def test_the_ci_files_render_no_duplicate(helm: Helm, ci: str) -> None:
    found = strictly_parsed(helm.template(ci=ci, api_versions=OPERATORS))

    assert [said for manifest in found for said in duplicates(manifest)] == []


def test_a_duplicate_is_found() -> None:
    container = {"name": "a", "env": [{"name": "X"}, {"name": "X"}], "ports": [{"containerPort": 1, "protocol": "TCP"}]}
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {}, "spec": {"containers": [container, container]}}

    assert sorted(duplicates(pod)) == [
        "Pod.spec.containers.env: {'name': 'X'} twice",
        "Pod.spec.containers.env: {'name': 'X'} twice",
        "Pod.spec.containers: {'name': 'a'} twice",
    ]
    with pytest.raises(AssertionError, match="one key twice"):
        strictly_parsed("a: 1\na: 2")
