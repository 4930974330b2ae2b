"""A promotion or rollback by hand is verified and recorded as that of a job."""

from collections.abc import Callable

import pytest

from fraud_detection.lock import LockHeld, promoter
from fraud_detection.model.read import ModelRefused, current_version, journal
from jobs.rollout.by_hand import NothingToGoBackTo, promote_by_hand, roll_back, served_before
from tests.support.installation import FEATURES, SmallInstallation


@pytest.fixture
def three(installation: SmallInstallation, make_version: Callable[..., str]) -> list[str]:
    """Three versions that were current one after the other."""
    made = [make_version(installation.models_dir, of=FEATURES, seed=seed) for seed in (1, 2, 3)]
    for version in made:
        promote_by_hand(version, installation.here, actor="ann", reason="a test")
    return made


def serving(installation: SmallInstallation) -> str | None:
    return current_version(installation.models_dir)


def test_a_version_promoted_by_hand_is_verified_and_recorded(installation: SmallInstallation, three: list[str]) -> None:
    entries = journal(installation.models_dir)[-2:]

    assert serving(installation) == three[2]
    assert [(entry["event"], entry["version"], entry["actor"]) for entry in entries] == [
        ("promoted", three[2], "ann"),
        ("verified", three[2], "ann"),
    ]


def test_each_rollback_goes_one_version_further_back(installation: SmallInstallation, three: list[str]) -> None:
    backs = [roll_back(installation.here, actor="ann", reason="alerts") for _ in range(2)]

    assert [version for version, _ in backs] == [three[1], three[0]]
    assert serving(installation) == three[0]
    with pytest.raises(NothingToGoBackTo, match=f"no other version served before {three[0]}"):
        roll_back(installation.here, actor="ann", reason="alerts")


def test_a_promotion_after_a_rollback_starts_from_there(installation: SmallInstallation, three: list[str]) -> None:
    roll_back(installation.here, actor="ann", reason="alerts")
    promote_by_hand(three[2], installation.here, actor="ann", reason="it was not the model")

    assert served_before(installation.here) == three[1]


def test_a_rollback_skips_a_version_that_is_no_longer_kept(installation: SmallInstallation, three: list[str]) -> None:
    (installation.models_dir / three[1]).rename(installation.models_dir / "elsewhere")

    assert served_before(installation.here) == three[0]


def test_a_version_that_is_not_there_changes_nothing(installation: SmallInstallation, three: list[str]) -> None:
    with pytest.raises(ModelRefused, match="cannot be read"):
        promote_by_hand("20200101T000000Z-0123456789ab", installation.here, actor="a", reason="r")

    assert serving(installation) == three[2]


def test_a_rollback_is_refused_while_a_job_holds_the_lock(installation: SmallInstallation, three: list[str]) -> None:
    with promoter(installation.models_dir), pytest.raises(LockHeld):
        roll_back(installation.here, actor="ann", reason="alerts")
