"""Generate the chart's README with helm-docs, and its rendered defaults with Helm."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

CHART = Path(__file__).parent.parent / "charts" / "fraud-detection"


class ToolMissing(Exception):
    """A program that is not installed; the message says how to install it."""


def readme() -> str:
    """Return the chart's README.md as helm-docs makes it from README.md.gotmpl and values.yaml.

    Raises ToolMissing.
    """
    program = _find(
        os.environ.get("HELM_DOCS", "helm-docs"), "go install github.com/norwoodj/helm-docs/cmd/helm-docs@v1.14.2"
    )
    return _run(program, "--chart-search-root", str(CHART), "--dry-run")


def rendered_defaults() -> str:
    """Return what the chart renders from its default values, without the dashboards, which are files.

    Raises ToolMissing.
    """
    program = _find(os.environ.get("HELM4", "helm"), "https://helm.sh")
    command = [program, "template", "fraud", str(CHART), "--namespace", "fraud", "--kube-version", "1.34.0"]
    command += ["--values", str(CHART / "ci" / "default-values.yaml"), "--set", "metrics.dashboards.enabled=false"]
    return comparable(_run(*command)) + "\n"


def comparable(rendered: str) -> str:
    """Return a render without its variable parts: a generated token, and the empty lines that only Helm 4 keeps."""
    documents = re.sub(r"\s*\n---\n", "\n---\n", rendered.strip())
    return re.sub(r"(?m)^(  (?:api|metrics)-token:) [A-Za-z0-9+/=]{64}$", r"\1 generated", documents)


def _find(program: str, how_to_install: str) -> str:
    found = shutil.which(program, path=f"{os.environ['PATH']}:{Path(sys.executable).parent}")
    if found is None:
        raise ToolMissing(f"{program} is not installed ({how_to_install})")
    return found


def _run(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout
