"""What the tests of the images share: a Docker engine, both images built from this checkout, an empty volume."""

import os
import shutil
import subprocess
from collections.abc import Iterator

import pytest

from tests.conftest import ROOT, skip_or_fail
from tests.images.containers import API_IMAGE, JOBS_IMAGE, docker, empty_volume

PYTHON_IMAGE = os.environ.get("PYTHON_IMAGE", "python:3.11-slim-bookworm")
VERSION, REVISION, CREATED = "0.1.0", "0" * 40, "2026-01-01T00:00:00Z"


@pytest.fixture(scope="session", autouse=True)
def engine() -> None:
    """Every test here needs a Docker engine."""
    if shutil.which("docker") is None:
        skip_or_fail("docker is not installed (https://docs.docker.com/engine/install)")
    if docker("version", exit_code=None).returncode != 0:
        skip_or_fail("the Docker engine cannot be reached: start it, or join the group that may")


@pytest.fixture(scope="session")
def python_image(engine: None) -> str:
    """The image that ours are built on, here already so that its size can be taken off."""
    if docker("image", "inspect", PYTHON_IMAGE, exit_code=None).returncode != 0:
        docker("pull", "--quiet", PYTHON_IMAGE)
    return PYTHON_IMAGE


@pytest.fixture(scope="session")
def jobs_image(python_image: str) -> str:
    return _build("Dockerfile.jobs", JOBS_IMAGE, python_image)


@pytest.fixture(scope="session")
def api_image(python_image: str) -> str:
    return _build("Dockerfile.api", API_IMAGE, python_image)


def _build(dockerfile: str, image: str, python_image: str) -> str:
    given = {"PYTHON_IMAGE": python_image, "VERSION": VERSION, "REVISION": REVISION, "CREATED": CREATED}
    arguments = [part for name, value in given.items() for part in ("--build-arg", f"{name}={value}")]
    command = ["docker", "build", "--file", dockerfile, "--tag", image, *arguments, "."]
    built = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    assert built.returncode == 0, built.stdout[-4000:]
    return image


@pytest.fixture
def volume() -> Iterator[str]:
    """An empty named volume of this test's own."""
    with empty_volume() as name:
        yield name
