"""What the tests of the chart share: Helm 3 and Helm 4."""

import pytest

from tests.chart.helm import Helm, find_helm
from tests.support.programs import skip_or_fail


def _helm(major: int) -> Helm:
    program = find_helm(major)
    if program is None:
        skip_or_fail(f"Helm {major} is not installed: put it on PATH or name it in HELM{major} (https://helm.sh)")
    return Helm(str(program), major)


@pytest.fixture(scope="session", params=[3, 4], ids=["helm3", "helm4"])
def helm(request: pytest.FixtureRequest) -> Helm:
    """Helm 3, then Helm 4: a test that asks for it runs on each."""
    return _helm(request.param)


@pytest.fixture(scope="session")
def helm3() -> Helm:
    return _helm(3)


@pytest.fixture(scope="session")
def helm4() -> Helm:
    return _helm(4)
