"""The mark of a store that vanished is left where it can be, and every start respects it until it is cleared."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from fraud_detection.database import DatabaseRefused
from fraud_detection.features import FeatureList
from fraud_detection.settings import ApiSettings
from fraud_detection.store import Store
from fraud_detection.vanished import Mark
from tests.support.environment import variables


@pytest.fixture
def mark(tmp_path: Path) -> Mark:
    (tmp_path / "models").mkdir()
    found = Mark.of(ApiSettings.from_env(variables(tmp_path, tmp_path / "models")))
    assert found is not None
    return found


def test_without_a_mark_nothing_is_refused(mark: Mark) -> None:
    mark.refuse()
    mark.clear()


def test_a_mark_is_left_beside_the_models_because_the_folder_of_the_store_may_be_gone(mark: Mark) -> None:
    mark.leave("requests.db: was removed")

    with pytest.raises(DatabaseRefused, match=r"requests.db: was removed \(20.* UTC\); restore a backup") as refused:
        mark.refuse()
    assert (refused.value.reason, "`fraudctl bootstrap`" in str(refused.value)) == ("lost", True)
    assert [path.name for path in mark.models_dir.iterdir()] == [".requests.db.vanished"]


def test_it_is_left_beside_the_database_where_the_models_cannot_be_written(mark: Mark) -> None:
    mark.models_dir.rmdir()
    mark.models_dir.touch()
    mark.database.parent.mkdir()

    mark.leave("requests.db: was removed")

    with pytest.raises(DatabaseRefused, match="was removed"):
        mark.refuse()
    mark.clear()
    mark.refuse()


def test_where_nothing_can_be_written_the_caller_learns_it(mark: Mark) -> None:
    mark.models_dir.rmdir()

    with pytest.raises(OSError, match="No such file"):
        mark.leave("requests.db: was removed")


def test_accepting_an_absent_database_lets_an_empty_one_be_created(mark: Mark, features: FeatureList) -> None:
    Store.create_or_migrate(mark.database, features).close()
    mark.database.unlink()
    mark.leave("requests.db: was removed")

    mark.clear()

    Store.create_or_migrate(mark.database, features).close()


def test_clearing_without_a_mark_keeps_the_loss_of_a_database_known(mark: Mark, features: FeatureList) -> None:
    Store.create_or_migrate(mark.database, features).close()
    mark.database.unlink()

    mark.clear()

    with pytest.raises(DatabaseRefused, match="a database was here and is gone"):
        Store.create_or_migrate(mark.database, features)


NO_FILES: dict[str, Callable[[Path], object]] = {
    "a FIFO": os.mkfifo,
    "a folder": Path.mkdir,
    "a file without an end": lambda place: place.symlink_to("/dev/zero"),
    "a link to itself": lambda place: place.symlink_to(place.name),
    "a large file": lambda place: place.write_bytes(b"x" * 1_000_000),
}


@pytest.mark.parametrize("kind", NO_FILES)
def test_a_mark_that_cannot_be_read_is_refused_until_it_is_cleared(mark: Mark, kind: str) -> None:
    place = mark.models_dir / ".requests.db.vanished"
    NO_FILES[kind](place)

    with pytest.raises(DatabaseRefused, match=r"vanished: marks a database .* cannot be read \(.*`fraudctl bootstrap`"):
        mark.refuse()
    if kind == "a folder":
        with pytest.raises(DatabaseRefused, match=r"expected a file, got a folder; remove it and run this again"):
            mark.clear()
        place.rmdir()
    mark.clear()

    mark.refuse()
    assert not os.path.lexists(place)


def test_postgresql_has_no_files_to_vanish(tmp_path: Path) -> None:
    pytest.importorskip("psycopg")
    environment = variables(tmp_path, tmp_path) | {"DATABASE_URL": "postgresql://localhost/fraud"}

    assert Mark.of(ApiSettings.from_env(environment)) is None
