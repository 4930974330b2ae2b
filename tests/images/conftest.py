"""What the tests of the images share: a Docker engine, both images built from this checkout, an empty volume."""

from collections.abc import Iterator

import pytest

from tests.images.containers import empty_volume
from tests.support import images


@pytest.fixture(scope="session", autouse=True)
def engine() -> None:
    """Every test here needs a Docker engine."""
    images.require_engine()


@pytest.fixture(scope="session")
def python_image(engine: None) -> str:
    """The image that our images are built on, pulled so that its size can be subtracted."""
    return images.pull_python_image()


@pytest.fixture(scope="session")
def jobs_image(engine: None) -> str:
    return images.build_jobs_image()


@pytest.fixture(scope="session")
def api_image(engine: None) -> str:
    return images.build_api_image()


@pytest.fixture
def volume() -> Iterator[str]:
    """An empty named volume of this test's own."""
    with empty_volume() as name:
        yield name
