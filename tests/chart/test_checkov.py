"""checkov, a scanner of manifests, has no complaint except for three with reasons."""

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.chart.helm import Helm, Manifest
from tests.support.programs import skip_or_fail
from tests.support.project import ROOT

CHECKOV = ROOT / ".venv" / "checkov" / "bin" / "checkov"
CONFIG = Path(__file__).parent / "checkov.yaml"
PROBES = {"CKV_K8S_8", "CKV_K8S_9"}
NO_VARIABLES_FROM_SECRETS: dict[str, Any] = {  # such as ci/full-values.yaml adds: the installation's choice
    "api": {"extraEnvFrom": []},
    "jobs": {"common": {"extraEnvFrom": []}},
}


def failed_checks(manifests: list[Manifest], folder: Path) -> list[tuple[str, str, str]]:
    """Return check, meaning and resource of each complaint."""
    if not CHECKOV.exists():
        skip_or_fail("checkov is not installed: `make chart` does it, in an environment of its own")
    rendered = folder / "rendered.yaml"
    for manifest in manifests:
        manifest["metadata"].setdefault("namespace", "fraud")  # as an installation does
    rendered.write_text(yaml.safe_dump_all(manifests))
    done = subprocess.run(
        [str(CHECKOV), "--config-file", str(CONFIG), "--file", str(rendered), "--compact", "--output", "json"],
        capture_output=True, text=True, check=False, cwd=folder,
        env={"HTTPS_PROXY": "http://127.0.0.1:9", "HTTP_PROXY": "http://127.0.0.1:9"},  # no proxy listens there
    )  # fmt: skip
    report = json.loads(done.stdout)
    assert report["summary"]["parsing_errors"] == 0, done.stdout
    assert report["summary"]["passed"] > 500, done.stdout
    return [(c["check_id"], c["check_name"], c["resource"]) for c in report["results"]["failed_checks"]]


@pytest.mark.parametrize("ci", ["default", "full"])
def test_checkov_has_no_complaint(helm4: Helm, ci: str, tmp_path: Path) -> None:
    failed = failed_checks(helm4.render(NO_VARIABLES_FROM_SECRETS, ci=ci), tmp_path)
    of_tests = [f for f in failed if f[0] in PROBES and f[2].startswith("Pod.fraud.fraud-fraud-detection-test-")]

    assert [f for f in failed if f not in of_tests] == []
    assert len(of_tests) == 4  # two pods, two probes: the exception is needed


def test_checkov_finds_what_is_wrong(helm4: Helm, tmp_path: Path) -> None:
    manifests = helm4.render()
    for manifest in manifests:
        if manifest["kind"] == "Deployment":
            manifest["spec"]["template"]["spec"]["containers"][0]["securityContext"]["privileged"] = True

    assert "CKV_K8S_16" in {check for check, _, _ in failed_checks(manifests, tmp_path)}
