"""Upgrades, a rollback, an uninstall and a new installation on old data keep what was stored."""

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.e2e.release import LABELS, NAME, Installed, Release

ROW = [0.0] * 29
KINDS = (
    "deployments,cronjobs,pods,services,configmaps,secrets,serviceaccounts,roles,rolebindings,networkpolicies,"
    "persistentvolumeclaims,servicemonitors,prometheusrules"
)

pytestmark = pytest.mark.prometheus  # whose objects are upgraded too


@pytest.fixture(scope="module")
def lived_in(installed: Installed) -> Iterator[Release]:
    """A release with a transaction."""
    with installed("releases") as release:
        with release.api() as api:
            api.predict([ROW], ["the-first"])
        yield release


def test_an_upgrade_without_a_change_changes_nothing(lived_in: Release) -> None:
    before = _versions(lived_in)

    lived_in.upgrade()

    assert len(before) > 20
    assert _versions(lived_in) == before


def test_new_values_are_rolled_out_and_rolled_back(lived_in: Release, figure: Callable[[str], None]) -> None:
    before, threshold = _versions(lived_in), lived_in.get("/model")["threshold"]

    seconds = lived_in.upgrade(config={"fraudThreshold": 0.7})
    lived_in.wait_until_rolled_out()  # Helm 3 waits for the new pod, but not until the old one has ended
    assert _versions(lived_in) != before
    assert lived_in.get("/model")["threshold"] == 0.7

    lived_in.helm("rollback", NAME, "--wait")
    lived_in.wait_until_rolled_out()
    assert lived_in.get("/model")["threshold"] == threshold != 0.7
    assert _the_first_is_there(lived_in)
    figure(f"upgrade with a new value: {seconds:.0f} s")


def test_what_was_stored_outlives_the_release(lived_in: Release) -> None:
    digest = lived_in.get("/model")["digest"]

    lived_in.helm("uninstall", NAME, "--wait")
    lived_in.namespace.kubectl("wait", "pods", "--selector", LABELS, "--for=delete", "--timeout=120s")
    left = lived_in.namespace.kubectl("get", KINDS, "--selector", LABELS, "--output=name").stdout.split()
    lived_in.upgrade()

    assert left == [f"persistentvolumeclaim/{NAME}-data"]
    assert _the_first_is_there(lived_in)
    assert lived_in.get("/model")["digest"] == digest
    assert lived_in.sql("PRAGMA integrity_check") == [["ok"]]


def _the_first_is_there(release: Release) -> bool:
    return release.sql("SELECT COUNT(*) FROM requests WHERE transaction_id = 'the-first'") == [["1"]]


def _versions(release: Release) -> dict[str, Any]:
    """Return the generation of every object or, if Kubernetes counts none, its content."""
    found = json.loads(release.namespace.kubectl("get", KINDS, "--selector", LABELS, "--output=json").stdout)["items"]
    return {
        f"{each['kind']}/{each['metadata']['name']}": each["metadata"].get("generation")
        or each.get("data")
        or each.get("rules")
        or each["metadata"]["uid"]
        for each in found
    }
