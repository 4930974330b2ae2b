"""The scripts of the workflow mlops.yml, one after the other as it runs them, on a release of this cluster."""

import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.e2e.release import MODELS, NAME, Installed, Release
from tests.support.project import ROOT
from tests.support.sample import Sample

Script = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture(scope="module")
def pipeline(installed: Installed, sample: Sample) -> Iterator[Release]:
    """A release with history, for which a training is due."""
    with installed("mlops") as release:
        with release.admin() as admin:
            admin.run("fraudctl", "import-csv", "/dev/stdin", stdin=sample.text(sample.history))
        yield release


@pytest.fixture(scope="module")
def script(pipeline: Release, tmp_path_factory: pytest.TempPathFactory) -> Script:
    """Run one of the scripts as the workflow does: the cluster is that of the kubeconfig."""
    cluster = pipeline.namespace.cluster
    kubeconfig = tmp_path_factory.mktemp("mlops") / "kubeconfig"
    kubeconfig.write_text(cluster.kubectl("config", "view", "--minify", "--flatten").stdout)
    ours = {"KUBECONFIG": str(kubeconfig), "NAMESPACE": pipeline.namespace.name, "RELEASE": NAME}

    def run(name: str, *arguments: str, exit_code: int = 0) -> "subprocess.CompletedProcess[str]":
        path = Path(".github", "scripts", name)
        done = subprocess.run(
            [path, *arguments], cwd=ROOT, env={**os.environ, **ours}, capture_output=True, text=True, check=False
        )
        assert done.returncode == exit_code, done.stdout + done.stderr
        return done

    return run


def test_the_pipeline_deploys_retrains_and_verifies(pipeline: Release, script: Script) -> None:
    head = subprocess.run(["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert script("code-changed.sh").stdout == "true\n"  # no deployed version is known

    script("deploy.sh", "--set-string", f"commonAnnotations.fraud-detection\\.io/revision={head.strip()}")
    assert script("code-changed.sh").stdout == "false\n"
    script("verify-rollout.sh")
    before = script("served-model.sh").stdout.strip()

    assert script("run-job.sh", "detect-drift").stdout.endswith("outcome=completed\n")
    assert script("run-job.sh", "retrain").stdout.endswith("outcome=promoted\n")
    pipeline.wait_until_rolled_out()
    assert "the model changed, and its reference with it" in script("verify-model.sh", before, "promoted").stdout
    served = script("served-model.sh").stdout.strip()
    assert served == pipeline.get("/model")["digest"] != before

    assert script("run-job.sh", "retrain").stdout.endswith("outcome=skipped\n")
    assert "the model did not change" in script("verify-model.sh", served, "skipped").stdout


def test_a_promotion_that_changed_nothing_is_refused(script: Script) -> None:
    served = script("served-model.sh").stdout.strip()

    assert "the previous version still serves" in script("verify-model.sh", served, "promoted", exit_code=1).stderr


def test_a_job_that_fails_ends_the_pipeline(script: Script) -> None:
    said = script("run-job.sh", "retrain", "--no-such-option", exit_code=1)

    assert "failed" in said.stderr


def test_a_reference_of_another_model_is_refused(pipeline: Release, script: Script) -> None:
    reference = f"{MODELS}/current/reference_data.db"
    with pipeline.admin() as admin:
        admin.run("sh", "-ec", f"printf another >> {reference}")

    assert "reference_data.db" in script("verify-model.sh", exit_code=1).stderr
