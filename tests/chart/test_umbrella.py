"""One parent chart installs the chart twice, under aliases that are keys of its values."""

import json
import re
import shutil
from pathlib import Path

import pytest
import yaml

from tests.chart.helm import Helm, Manifest, named, parsed, pods
from tests.support.project import CHART

ALIASES = ("riskAsia", "riskAfrica")


@pytest.fixture(scope="module")
def parent(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A chart that depends on ours under both aliases."""
    folder = tmp_path_factory.mktemp("parent")
    shutil.copytree(CHART, folder / "charts" / "fraud-detection")
    version = yaml.safe_load((CHART / "Chart.yaml").read_text())["version"]
    dependencies = [{"name": "fraud-detection", "version": version, "alias": alias} for alias in ALIASES]
    about = {"apiVersion": "v2", "name": "payments", "version": "1.0.0", "dependencies": dependencies}
    (folder / "Chart.yaml").write_text(json.dumps(about))
    return folder


def render(helm: Helm, parent: Path, **of_all_charts: object) -> list[Manifest]:
    values = {"global": of_all_charts, **{alias: {"auth": {"existingSecret": "token"}} for alias in ALIASES}}
    done = helm.run("template", "shop", str(parent), "--values", "-", stdin=json.dumps(values))
    assert done.returncode == 0, done.stderr
    return parsed(done.stdout)


def test_the_names_of_two_aliases_are_lower_case_and_differ(helm: Helm, parent: Path) -> None:
    manifests = render(helm, parent)

    names = [(manifest["kind"], manifest["metadata"]["name"]) for manifest in manifests]
    assert [name for _, name in names if not re.fullmatch(r"[a-z]([-a-z0-9]*[a-z0-9])?", name)] == []
    assert len(set(names)) == len(names)
    for alias in ALIASES:
        selector = named(manifests, "Service", f"shop-{alias.lower()}-api")["spec"]["selector"]
        chosen = [pod.owner for pod in pods(manifests) if selector.items() <= pod.metadata["labels"].items()]
        assert chosen == [f"Deployment shop-{alias.lower()}-api"]


@pytest.mark.parametrize("secret", ["registry-login", {"name": "registry-login"}], ids=["name", "object"])
def test_registry_and_pull_secrets_of_the_parent_reach_every_pod(helm: Helm, parent: Path, secret: object) -> None:
    found = pods(render(helm, parent, imageRegistry="registry.example", imagePullSecrets=[secret]))

    assert len(found) > 2 * len(ALIASES)
    for pod in found:
        assert pod.spec["imagePullSecrets"] == [{"name": "registry-login"}], pod.owner
        assert {container["image"].partition("/")[0] for container in pod.containers} == {"registry.example"}
