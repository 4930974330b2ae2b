"""Build both images from this checkout with the local Docker engine."""

import os
import shutil
import subprocess

from tests.support.programs import skip_or_fail
from tests.support.project import ROOT

API_IMAGE = "fraud-detection-api:test"
JOBS_IMAGE = "fraud-detection-jobs:test"
PYTHON_IMAGE = os.environ.get("PYTHON_IMAGE", "python:3.11-slim-bookworm")
VERSION, REVISION, CREATED = "0.1.0", "0" * 40, "2026-01-01T00:00:00Z"


def docker(*arguments: str, exit_code: int | None = 0) -> subprocess.CompletedProcess[str]:
    """Run docker; any exit code will do when it is None."""
    done = subprocess.run(["docker", *arguments], capture_output=True, text=True, check=False)
    if exit_code is not None:
        assert done.returncode == exit_code, f"{arguments}: {done.stdout}{done.stderr}"
    return done


def require_engine() -> None:
    """Skip or fail the test without a Docker engine."""
    if shutil.which("docker") is None:
        skip_or_fail("docker is not installed (https://docs.docker.com/engine/install)")
    if docker("version", exit_code=None).returncode != 0:
        skip_or_fail("the Docker engine cannot be reached: start it, or join the group that may use it")


def pull_python_image() -> str:
    """Return the image that our images are built on; pull it if it is absent."""
    if docker("image", "inspect", PYTHON_IMAGE, exit_code=None).returncode != 0:
        docker("pull", "--quiet", PYTHON_IMAGE)
    return PYTHON_IMAGE


def build_api_image() -> str:
    """Build the image of the API, and return its name."""
    return _build("Dockerfile.api", API_IMAGE)


def build_jobs_image() -> str:
    """Build the image of the jobs, and return its name."""
    return _build("Dockerfile.jobs", JOBS_IMAGE)


def _build(dockerfile: str, image: str) -> str:
    given = {
        "PYTHON_IMAGE": pull_python_image(), "VERSION": VERSION, "REVISION": REVISION, "CREATED": CREATED
    }  # fmt: skip
    arguments = [part for name, value in given.items() for part in ("--build-arg", f"{name}={value}")]
    command = ["docker", "build", "--file", dockerfile, "--tag", image, *arguments, "."]
    built = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    assert built.returncode == 0, built.stdout[-4000:]
    return image
