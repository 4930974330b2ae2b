"""Run Helm on the chart: read what it renders, and its messages when it refuses."""

import functools
import json
import os
import re
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypedDict, Unpack

import yaml

from tests.support.project import CHART

CI = sorted(path.name.removesuffix("-values.yaml") for path in CHART.glob("ci/*-values.yaml"))

Values = Mapping[str, Any]
Manifest = dict[str, Any]


class How(TypedDict, total=False):
    """What a render depends on apart from its values."""

    ci: str  # a file of the chart's ci folder: default
    release: str
    namespace: str
    api_versions: Sequence[str]
    kube_version: str
    chart: Path


@dataclass(frozen=True)
class Helm:
    """One major version of Helm."""

    program: str
    major: int

    def render(self, values: Values | None = None, **how: Unpack[How]) -> list[Manifest]:
        """Return the manifests for these values, which override those of the ci file."""
        return parsed(self.template(values, **how))

    def template(self, values: Values | None = None, **how: Unpack[How]) -> str:
        """Return the same as text."""
        done = self._template(values, how)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def refusal(self, values: Values, **how: Unpack[How]) -> str:
        """Return the message of the chart's `fail` without its place, or that of the schema."""
        done = self._template(values, how)
        assert done.returncode != 0, "this should have been refused"
        return re.sub(r"^Error: execution error at \(.*?\): |\s*Use --debug flag.*", "", done.stderr.strip())

    def _template(self, values: Values | None, how: How) -> subprocess.CompletedProcess[str]:
        command = [
            "template",
            how.get("release", "fraud"),
            str(how.get("chart", CHART)),
            "--namespace",
            how.get("namespace", "fraud"),
        ]
        command += ["--kube-version", how.get("kube_version", "1.34.0")]
        command += ["--values", str(CHART / "ci" / f"{how.get('ci', 'default')}-values.yaml"), "--values", "-"]
        for api_version in how.get("api_versions", ()):
            command += ["--api-versions", api_version]
        return self.run(*command, stdin=json.dumps(values or {}))

    def run(self, *arguments: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
        """Run a command of Helm, or return the result of an equal one."""
        return _run(self.program, arguments, stdin)


@functools.cache
def _run(program: str, arguments: tuple[str, ...], stdin: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([program, *arguments], input=stdin, capture_output=True, text=True, check=False)


def parsed(text: str) -> list[Manifest]:
    """Return the manifests that `helm template` printed; there must be one."""
    found = [manifest for manifest in yaml.load_all(text, Loader=yaml.CSafeLoader) if manifest]
    assert found, text
    return found


def find_helm(major: int) -> str | None:
    """Return the path of Helm 3 or 4, which HELM3 or HELM4 names or which is on PATH."""
    for candidate in (os.environ.get(f"HELM{major}"), f"helm{major}", "helm"):
        program = shutil.which(candidate) if candidate else None
        if program:
            asked = subprocess.run([program, "version", "--short"], capture_output=True, text=True, check=True)
            if asked.stdout.startswith(f"v{major}."):
                return program
    return None


def named(manifests: list[Manifest], kind: str, name: str | None = None) -> Manifest:
    """Return the one manifest of this kind, and of this name if one is given."""
    found = [m for m in manifests if m["kind"] == kind and name in {None, m["metadata"]["name"]}]
    names = [(m["kind"], m["metadata"]["name"]) for m in manifests]
    assert len(found) == 1, f"{len(found)} times {kind} {name or ''} in {names}"
    return found[0]


@dataclass(frozen=True)
class Pod:
    """The pod that a manifest creates."""

    owner: str
    metadata: Manifest
    spec: Manifest

    @property
    def containers(self) -> list[Manifest]:
        """All containers, init containers included."""
        return [*self.spec.get("initContainers", []), *self.spec["containers"]]

    def container(self, name: str) -> Manifest:
        """Return the one container of this name."""
        [found] = [container for container in self.containers if container["name"] == name]
        return found


def pods(manifests: list[Manifest]) -> list[Pod]:
    """Return every pod that these manifests create, of every kind; there must be one."""
    owners = [(f"{manifest['kind']} {manifest['metadata']['name']}", manifest) for manifest in manifests]
    found = [pod for owner, manifest in owners for pod in _pods(manifest, owner)]
    assert found, [owner for owner, _ in owners]
    return found


def _pods(node: object, owner: str) -> list[Pod]:
    if isinstance(node, list):
        return [pod for value in node for pod in _pods(value, owner)]
    if not isinstance(node, dict):
        return []
    if isinstance(node.get("spec"), dict) and "containers" in node["spec"]:
        return [Pod(owner, node.get("metadata", {}), node["spec"])]
    return [pod for value in node.values() for pod in _pods(value, owner)]
