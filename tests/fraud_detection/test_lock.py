"""One promoter at a time changes models, and a store is changed alone only while no API has it open."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import pytest
import sqlalchemy as sa

from fraud_detection.lock import (
    LockHeld,
    StoreInUse,
    alone_with,
    alone_with_file,
    alone_with_models,
    in_use,
    mark_session,
    promoter,
)
from fraud_detection.regular_file import NotAFile

HOLDER = """
import sys, time
from pathlib import Path
from fraud_detection.lock import promoter
from fraud_detection.regular_file import NotAFile
with promoter(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


def test_a_second_promoter_is_refused_until_the_first_ends(tmp_path: Path) -> None:
    with promoter(tmp_path), pytest.raises(LockHeld, match="another job is changing the models"), promoter(tmp_path):
        pass

    with promoter(tmp_path):
        pass


def test_a_killed_holder_loses_the_lock(tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", HOLDER, tmp_path], stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(LockHeld), promoter(tmp_path):
            pass
        os.kill(holder.pid, signal.SIGKILL)

    with promoter(tmp_path):
        pass


def test_postgresql_keeps_apart_jobs_on_two_volumes(tmp_path: Path, postgresql_database: str) -> None:
    engine = sa.create_engine(postgresql_database)

    with (
        promoter(tmp_path / "a", engine),
        pytest.raises(LockHeld, match="PostgreSQL"),
        promoter(tmp_path / "b", engine),
    ):
        pass

    with promoter(tmp_path / "b", engine):
        pass
    engine.dispose()


def test_a_store_that_an_api_has_open_cannot_be_had_alone(tmp_path: Path) -> None:
    database = tmp_path / "requests.db"

    with (
        in_use(database, tmp_path),
        in_use(database, tmp_path),
        pytest.raises(StoreInUse, match="stop it first"),
        alone_with(database),
    ):
        pass

    with alone_with(database), pytest.raises(StoreInUse), alone_with(database):
        pass


def test_a_link_to_a_store_has_the_lock_of_the_store(tmp_path: Path) -> None:
    database, link = tmp_path / "requests.db", tmp_path / "elsewhere" / "link.db"
    database.touch()
    link.parent.mkdir()
    link.symlink_to(database)

    with in_use(database, tmp_path), pytest.raises(StoreInUse, match=r"link\.db: a running API"), alone_with(link):
        pass

    assert [path.name for path in link.parent.iterdir()] == ["link.db"]


def test_postgresql_serves_imports_and_the_api_side_by_side(tmp_path: Path) -> None:
    with in_use("postgresql://", tmp_path), alone_with_file("postgresql://"):
        pass


def test_a_marked_session_of_postgresql_keeps_others_from_having_the_store_alone(postgresql_database: str) -> None:
    engine = sa.create_engine(postgresql_database, poolclass=sa.NullPool)

    with engine.connect() as api:
        mark_session(api)
        with pytest.raises(StoreInUse, match="PostgreSQL: a running API has this"), alone_with(postgresql_database):
            pass

    with alone_with(postgresql_database), pytest.raises(StoreInUse), alone_with(postgresql_database):
        pass


def test_models_that_an_api_serves_cannot_be_had_alone(tmp_path: Path) -> None:
    with (
        in_use(tmp_path / "a.db", tmp_path / "models"),  # which do not exist yet
        in_use(tmp_path / "b.db", tmp_path),
        pytest.raises(StoreInUse, match="a running API serves these models; stop it first"),
        alone_with_models(tmp_path),
    ):
        pass

    with alone_with_models(tmp_path):
        pass


@pytest.mark.parametrize("alone", [alone_with, alone_with_file, alone_with_models])
def test_a_full_pipe_is_not_taken_for_a_running_api(
    tmp_path: Path, alone: Callable[[Path], AbstractContextManager[None]]
) -> None:
    with pytest.raises(BlockingIOError, match="write could not complete"), alone(tmp_path / "its"):
        raise BlockingIOError("write could not complete")


def test_a_device_is_no_store_and_gets_no_lock_file(tmp_path: Path) -> None:
    (tmp_path / "requests.db").symlink_to("/dev/null")

    for hold in (in_use(tmp_path / "requests.db", tmp_path), alone_with(tmp_path / "requests.db")):
        with pytest.raises(NotAFile, match="expected a file, got a device"), hold:
            pass
    assert [path.name for path in tmp_path.iterdir()] == ["requests.db"]
