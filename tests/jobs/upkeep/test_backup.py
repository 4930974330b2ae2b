"""A backup restores everything on either database, and a bad one touches nothing."""

import json
import os
import shutil
import subprocess
import tarfile
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
from pysqlite3 import dbapi2

from fraud_detection.clock import Clock
from fraud_detection.database import DatabaseRefused
from fraud_detection.features import Feature, FeatureList
from fraud_detection.lock import LockHeld, StoreInUse, in_use, mark_session, promoter
from fraud_detection.model import read
from fraud_detection.model.files import JOURNAL
from fraud_detection.model.read import Model, current_version, load, versions
from fraud_detection.model.write import promote
from fraud_detection.regular_file import NotAFile
from fraud_detection.remembered import remember_features
from fraud_detection.settings import JobSettings
from fraud_detection.store import Store, decisions, history, transfer
from fraud_detection.store.decisions import ScoredRequest
from fraud_detection.store.history import History
from fraud_detection.store.transfer import ImportedRows
from fraud_detection.vanished import Mark
from jobs.installation import Installation
from jobs.upkeep.backup import NoRoom, back_up, describe_files, room_in
from jobs.upkeep.encryption import make_key
from jobs.upkeep.restore import BadBackup, WouldOverwrite, restore, unpacked

CLOCK = Clock()
NOW = datetime(2026, 3, 1, tzinfo=UTC)


def append(store: Store, rows: int = 3) -> None:
    ts, request_id = CLOCK.tick()
    with store.begin() as connection:
        request = ScoredRequest(
            request_id=request_id,
            ts=ts,
            matrix=np.random.default_rng(rows).normal(size=(rows, 29)),
            fraud_probability=[0.5] * rows,
            threshold=0.4,
            model_version="v",
            model_digest="0" * 64,
            transaction_ids=[None] * rows,
        )
        imported = ImportedRows(CLOCK.tick()[1], [ts], np.zeros((1, 29)), [True], [None])
        decisions.append(store, connection, [request])
        transfer.import_history(store, connection, [imported], reporter="old.csv", received_at=ts)


def history_of(settings: JobSettings, features: FeatureList) -> History:
    store = Store.open(settings.store_location, features)
    with store.begin() as connection:
        stored = history.read(store, connection)
    store.close()
    return stored


@pytest.fixture
def filled(store: Store, model: Model, job_settings: JobSettings) -> JobSettings:
    """An installation with rows, a promoted model and something in MLflow."""
    append(store)
    store.close()
    data = job_settings.latest_db.parent
    data.mkdir(exist_ok=True)
    mlflow = Store.create_or_migrate(data / "mlflow.db", store.features)  # any SQLite file
    mlflow.close()
    (data / "mlartifacts" / "1").mkdir(parents=True)
    (data / "mlartifacts" / "1" / "plot.png").write_bytes(b"png")
    return job_settings


@pytest.fixture
def backed_up(sqlite_store: Store, model: Model, sqlite_environment: dict[str, str], tmp_path: Path) -> JobSettings:
    """An installation on SQLite with rows and a model, and its backup in the folder `backup`."""
    settings = JobSettings.from_env(sqlite_environment)
    append(sqlite_store)
    sqlite_store.close()
    back_up(tmp_path / "backup", Installation(settings, sqlite_store.features), now=NOW)
    return settings


def test_a_restored_store_may_start_after_the_previous_one_vanished(
    backed_up: JobSettings, features: FeatureList, tmp_path: Path
) -> None:
    mark = Mark(backed_up.latest_db, backed_up.models_dir)
    shutil.rmtree(backed_up.latest_db.parent)
    mark.leave("requests.db: was removed")

    restore(tmp_path / "backup", Installation(backed_up, features), actor="test", replace=True)

    assert mark.found is None
    assert len(history_of(backed_up, features).request_id) == 4


@pytest.mark.parametrize("name", ["backup", "backup.tar", "backup.tar.gz"])
def test_what_is_restored_is_what_was_backed_up(
    filled: JobSettings, features: FeatureList, make_version: Callable[..., str], tmp_path: Path, name: str
) -> None:
    target = tmp_path / "backups" / name
    before, serving = history_of(filled, features), current_version(filled.models_dir)
    taken = back_up(target, Installation(filled, features), now=NOW)
    store = Store.open(filled.store_location, features)
    append(store, rows=7)
    store.close()
    promote(filled.models_dir, make_version(filled.models_dir, seed=1), actor="test", reason="a later one")
    (filled.latest_db.parent / "mlartifacts" / "1" / "plot.png").write_bytes(b"later")

    with pytest.raises(WouldOverwrite, match=r"holds 12 transactions; --replace"):
        restore(target, Installation(filled, features), actor="test")
    restored = restore(target, Installation(filled, features), actor="test", replace=True)

    after = history_of(filled, features)
    assert restored.backup == taken
    assert restored.erased == []
    assert taken.rows == {"requests.db": 4}
    assert sorted(after.request_id.tolist()) == sorted(before.request_id.tolist())
    assert np.array_equal(after.matrix, before.matrix)
    assert current_version(filled.models_dir) == serving
    assert versions(filled.models_dir) == [serving]
    assert load(filled.model_path, features).version == serving
    assert read.journal(filled.models_dir)[-1]["reason"] == "the backup of 2026-03-01 00:00:00.000000 was restored"
    assert (filled.latest_db.parent / "mlartifacts" / "1" / "plot.png").read_bytes() == b"png"
    assert sorted(path.name for path in target.parent.iterdir()) == [name]
    store = Store.open(filled.store_location, features)
    append(store)  # a store, not only a copy
    store.close()


def test_a_device_among_the_models_is_not_copied(filled: JobSettings, features: FeatureList, tmp_path: Path) -> None:
    version = filled.models_dir / str(current_version(filled.models_dir))
    (version / "endless").symlink_to("/dev/null")  # /dev/zero would fill the disk if it were

    with pytest.raises(OSError, match="expected a file, got a device"):
        back_up(tmp_path / "backup", Installation(filled, features), now=NOW)

    assert not (tmp_path / "backup").exists()


def test_a_backup_is_for_its_owner_and_lists_every_file(
    filled: JobSettings, features: FeatureList, tmp_path: Path
) -> None:
    back_up(tmp_path / "backup", Installation(filled, features), now=NOW)
    back_up(tmp_path / "backup.tar", Installation(filled, features), now=NOW)

    described = json.loads((tmp_path / "backup" / "backup.json").read_text())
    with tarfile.open(tmp_path / "backup.tar") as archive:
        packed = {member.name.removeprefix("backup/") for member in archive if member.isfile()}
    assert (tmp_path / "backup").stat().st_mode & 0o077 == 0
    assert (tmp_path / "backup.tar").stat().st_mode & 0o077 == 0
    assert packed == {*described["files"], "backup.json"}
    assert {"requests.db", "models/promotions.jsonl", "mlflow/mlflow.db", "mlflow/mlartifacts/1/plot.png"} <= packed


def test_the_ending_of_an_archive_counts_in_any_case(
    backed_up: JobSettings, features: FeatureList, tmp_path: Path
) -> None:
    back_up(tmp_path / "NIGHTLY.TAR.GZ", Installation(backed_up, features), now=NOW)

    with tarfile.open(tmp_path / "NIGHTLY.TAR.GZ", "r:gz") as archive:
        assert {member.name.split("/")[0] for member in archive} == {"NIGHTLY"}
    with unpacked(tmp_path / "NIGHTLY.TAR.GZ", backed_up, beside=tmp_path) as folder:
        assert (folder / "requests.db").exists()


def test_a_backup_goes_onto_an_empty_machine(
    sqlite_store: Store, model: Model, sqlite_environment: dict[str, str], tmp_path: Path
) -> None:
    append(sqlite_store)
    settings = JobSettings.from_env(sqlite_environment)
    back_up(tmp_path / "backup", Installation(settings, sqlite_store.features), now=NOW)
    elsewhere = JobSettings.from_env(
        {
            "MODEL_PATH": str(tmp_path / "new" / "models" / "rf_model.pkl"),
            "LATEST_DB": str(tmp_path / "new" / "data" / "requests.db"),
            "TRAIN_DB": str(tmp_path / "new" / "data" / "requests.db"),
        }
    )

    restore(tmp_path / "backup", Installation(elsewhere, sqlite_store.features), actor="test")

    assert len(history_of(elsewhere, sqlite_store.features)) == 4
    assert load(elsewhere.model_path, sqlite_store.features).version == model.version


def test_a_backup_moves_between_databases(
    sqlite_store: Store, model: Model, sqlite_environment: dict[str, str], postgresql_database: str, tmp_path: Path
) -> None:
    append(sqlite_store)
    sqlite_store.close()
    back_up(tmp_path / "backup", Installation(JobSettings.from_env(sqlite_environment), sqlite_store.features), now=NOW)
    moved = JobSettings.from_env({**sqlite_environment, "DATABASE_URL": postgresql_database})

    restore(tmp_path / "backup", Installation(moved, sqlite_store.features), actor="test", replace=True)

    assert len(history_of(moved, sqlite_store.features)) == 4


def test_a_restore_needs_every_api_away_from_its_database_and_models(
    sqlite_store: Store, sqlite_environment: dict[str, str], postgresql_database: str, tmp_path: Path
) -> None:
    sqlite_store.close()
    back_up(tmp_path / "backup", Installation(JobSettings.from_env(sqlite_environment), sqlite_store.features), now=NOW)
    here = Installation(
        JobSettings.from_env({**sqlite_environment, "DATABASE_URL": postgresql_database}), sqlite_store.features
    )
    journal = here.journal()
    store = here.create_store(postgresql_database)
    append(store)

    with store.engine.connect() as session:
        mark_session(session)
        with pytest.raises(StoreInUse, match="PostgreSQL: a running API has this store open"):
            restore(tmp_path / "backup", here, actor="test", replace=True)
    store.close()
    with (
        in_use(tmp_path / "of another installation.db", here.models_dir),
        pytest.raises(StoreInUse, match=f"{here.models_dir}: a running API serves these models; stop it first"),
    ):
        restore(tmp_path / "backup", here, actor="test", replace=True)

    assert len(history_of(here.settings, here.features)) == 4
    assert here.journal() == journal


def test_imported_history_in_a_file_of_its_own_comes_along(
    sqlite_store: Store, sqlite_environment: dict[str, str], tmp_path: Path
) -> None:
    settings = JobSettings.from_env({**sqlite_environment, "TRAIN_DB": str(tmp_path / "data" / "history.db")})
    one = back_up(tmp_path / "one", Installation(settings, sqlite_store.features), now=NOW)  # nothing was imported yet
    train_store = Store.create_or_migrate(settings.train_db, sqlite_store.features)
    append(train_store)
    train_store.close()

    two = back_up(tmp_path / "two", Installation(settings, sqlite_store.features), now=NOW)
    restore(tmp_path / "two", Installation(settings, sqlite_store.features), actor="test", replace=True)

    assert one.rows == {"requests.db": 0}
    assert two.rows == {"requests.db": 0, "history.db": 4}
    with pytest.raises(BadBackup, match="set TRAIN_DB to another file than LATEST_DB"):
        restore(
            tmp_path / "two",
            Installation(JobSettings.from_env(sqlite_environment), sqlite_store.features),
            actor="t",
            replace=True,
        )


def test_what_the_backup_lacks_is_erased(
    sqlite_store: Store, sqlite_environment: dict[str, str], make_version: Callable[..., str], tmp_path: Path
) -> None:
    settings = JobSettings.from_env({**sqlite_environment, "TRAIN_DB": str(tmp_path / "data" / "history.db")})
    sqlite_store.close()
    later = make_version(settings.models_dir, seed=1)
    (settings.models_dir / JOURNAL).unlink(missing_ok=True)
    back_up(tmp_path / "first", Installation(settings, sqlite_store.features), now=NOW)
    train_store = Store.create_or_migrate(settings.train_db, sqlite_store.features)
    append(train_store)
    train_store.close()
    promote(settings.models_dir, later, actor="test", reason="a later one")
    data = settings.latest_db.parent
    (data / "mlflow.db").write_bytes(b"later")
    (data / "mlartifacts" / "1").mkdir(parents=True)

    restored = restore(tmp_path / "first", Installation(settings, sqlite_store.features), actor="test", replace=True)

    journal = settings.models_dir / JOURNAL
    assert restored.erased == [settings.train_db, journal, data / "mlflow.db", data / "mlartifacts"]
    assert [path for path in restored.erased if path.exists()] == [journal]
    assert [entry["event"] for entry in read.journal(settings.models_dir)] == ["restored"]
    Store.create_or_migrate(settings.train_db, sqlite_store.features).close()  # and check does not report it as lost


def test_a_damaged_database_can_be_replaced(
    sqlite_store: Store, sqlite_environment: dict[str, str], tmp_path: Path
) -> None:
    settings = JobSettings.from_env(sqlite_environment)
    append(sqlite_store)
    sqlite_store.close()
    back_up(tmp_path / "backup", Installation(settings, sqlite_store.features), now=NOW)
    settings.latest_db.write_bytes(b"damaged" * 1000)
    settings.latest_db.with_name("requests.db-wal").write_bytes(b"an old log")

    with pytest.raises(WouldOverwrite, match="there is a database that cannot be read"):
        restore(tmp_path / "backup", Installation(settings, sqlite_store.features), actor="test")
    restore(tmp_path / "backup", Installation(settings, sqlite_store.features), actor="test", replace=True)

    assert len(history_of(settings, sqlite_store.features)) == 4


def test_versions_that_are_no_folders_are_replaced_too(
    backed_up: JobSettings, features: FeatureList, tmp_path: Path
) -> None:
    kept = tmp_path / "kept"
    kept.mkdir()
    (backed_up.models_dir / "20270101T000000Z-0123456789ab").symlink_to(kept)
    (backed_up.models_dir / "20270101T000000Z-0123456789ac").write_text("a file")

    restore(tmp_path / "backup", Installation(backed_up, features), actor="test", replace=True)

    assert versions(backed_up.models_dir) == [current_version(backed_up.models_dir)]
    assert kept.exists()


def test_a_current_model_is_replaced_only_on_request(
    sqlite_store: Store, model: Model, sqlite_environment: dict[str, str], tmp_path: Path
) -> None:
    settings = JobSettings.from_env(sqlite_environment)
    back_up(tmp_path / "backup", Installation(settings, sqlite_store.features), now=NOW)

    with pytest.raises(WouldOverwrite, match=f"{model.version} is the current version; --replace"):
        restore(tmp_path / "backup", Installation(settings, sqlite_store.features), actor="test")


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def _put_pipe_at(name: str) -> Callable[[Path], None]:
    def damage(backup: Path) -> None:
        (backup / name).unlink()
        os.mkfifo(backup / name)

    return damage


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda backup: flip(backup / "requests.db"), "requests.db is missing, changed"),
        (lambda backup: (backup / "models" / "promotions.jsonl").unlink(), "promotions.jsonl is missing"),
        (lambda backup: (backup / "models" / "extra").write_text("x"), "models/extra is missing, changed or surplus"),
        (lambda backup: (backup / "backup.json").write_text("{}"), "is not a backup of this program"),
        (lambda backup: (backup / "backup.json").unlink(), "is not a backup of this program"),
        (lambda backup: (backup / "backup.json").write_text('{"format": 2}'), "by a newer version"),
        (_put_pipe_at("backup.json"), "expected a file, got a named pipe"),
        (_put_pipe_at("requests.db"), "expected a file, got a named pipe; a backup holds only files"),
    ],
)
def test_a_backup_that_is_not_whole_touches_nothing(
    backed_up: JobSettings, features: FeatureList, tmp_path: Path, damage: Callable[[Path], object], message: str
) -> None:
    serving = current_version(backed_up.models_dir)
    damage(tmp_path / "backup")

    with pytest.raises((BadBackup, NotAFile), match=message):
        restore(tmp_path / "backup", Installation(backed_up, features), actor="test", replace=True)

    assert len(history_of(backed_up, features)) == 4
    assert load(backed_up.model_path, features).version == serving


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"rows": {}, "files": {}}, r"expected requests\.db among .* got the files \[\] and the rows of \[\]"),
        ({"rows": {}}, r"got the files \['requests\.db'\] and the rows of \[\]"),
        ({"rows": {"requests.db": 4, "history.db": 0}}, r"the rows of \['history\.db', 'requests\.db'\]"),
        ({"rows": {"requests.db": 4, "../requests.db": 4}}, r"the rows of \['\.\./requests\.db', 'requests\.db'\]"),
        ({"rows": [1]}, "expected to give rows as counts"),
        ({"rows": {"requests.db": "4"}}, "expected to give rows as counts"),
        ({"created": 1}, "expected to give created and features_digest as texts"),
        ({"current": "../elsewhere"}, "expected to give current as the name of a version, or null"),
        ({"current": 1}, "expected to give current as the name of a version, or null"),
        ({"files": {"requests.db": {"sha256": 1, "size": 1}}}, "expected to give for every file its sha256 and size"),
        ({"files": {"../outside": {"sha256": "", "size": 1}}}, "expected to give files below its folder"),
        ({"files": [1]}, "cannot be read"),
    ],
)
def test_a_description_that_no_backup_has_touches_nothing(
    backed_up: JobSettings, features: FeatureList, tmp_path: Path, change: dict[str, object], message: str
) -> None:
    path = tmp_path / "backup" / "backup.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))

    with pytest.raises(BadBackup, match=message):
        restore(tmp_path / "backup", Installation(backed_up, features), actor="test", replace=True)

    assert len(history_of(backed_up, features)) == 4
    assert current_version(backed_up.models_dir) is not None


def test_a_folder_that_only_says_it_is_a_backup_erases_nothing(
    backed_up: JobSettings, features: FeatureList, tmp_path: Path
) -> None:
    described = json.loads((tmp_path / "backup" / "backup.json").read_text())
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "backup.json").write_text(json.dumps({**described, "rows": {}, "files": {}, "current": None}))

    with pytest.raises(BadBackup, match=r"expected requests\.db among"):
        restore(tmp_path / "empty", Installation(backed_up, features), actor="test", replace=True)

    assert len(history_of(backed_up, features)) == 4


def test_a_description_nested_too_deeply_is_refused(
    backed_up: JobSettings, features: FeatureList, tmp_path: Path
) -> None:
    (tmp_path / "backup" / "backup.json").write_text("[" * 100_000 + "]" * 100_000)

    with pytest.raises(BadBackup, match="cannot be read"):
        restore(tmp_path / "backup", Installation(backed_up, features), actor="test", replace=True)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 256 kB."""
    folder = tmp_path / "small"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(folder)]
    if shutil.which("mount") is None or subprocess.run(mount, check=False, capture_output=True).returncode:
        pytest.skip("a small disk is a tmpfs, which only root may mount: run this test as root")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


@pytest.mark.parametrize("large", ["requests.db", "models/large", "mlartifacts/large"])
def test_a_backup_without_room_names_the_folder_that_is_full(
    backed_up: JobSettings, features: FeatureList, small_disk: Path, large: str
) -> None:
    if large == "requests.db":
        store = Store.open(backed_up.latest_db, features)
        append(store, rows=2000)
        store.close()
    else:
        version = current_version(backed_up.models_dir) or ""
        path = backed_up.models_dir / version if large == "models/large" else backed_up.latest_db.parent / "mlartifacts"
        path.mkdir(exist_ok=True)
        (path / "large").write_bytes(b"x" * 300_000)

    with pytest.raises(NoRoom, match=f"^{small_disk}: the disk has no room left"):
        back_up(small_disk / "backup.tar.gz", Installation(backed_up, features), now=NOW)

    assert list(small_disk.iterdir()) == []


def test_an_encrypted_backup_without_room_for_plain_copies_names_tmpdir(
    backed_up: JobSettings, features: FeatureList, small_disk: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_key(tmp_path / "backup.key", now=NOW, add=False)
    settings = replace(backed_up, backup_key_file=tmp_path / "backup.key")
    version = current_version(settings.models_dir) or ""
    (settings.models_dir / version / "large").write_bytes(b"x" * 300_000)
    monkeypatch.setattr("tempfile.tempdir", str(small_disk))

    with pytest.raises(NoRoom, match=f"^{small_disk}: the disk has no room left; .* set TMPDIR to another folder"):
        back_up(tmp_path / "backups" / "b.tar.age", Installation(settings, features), now=NOW)

    assert list(small_disk.iterdir()) == []
    assert list(tmp_path.glob("backups/*")) == []


def test_a_restore_without_room_names_the_folder_that_is_full(
    backed_up: JobSettings, features: FeatureList, sqlite_environment: dict[str, str], small_disk: Path, tmp_path: Path
) -> None:
    version = current_version(backed_up.models_dir) or ""
    (backed_up.models_dir / version / "large").write_bytes(b"x" * 300_000)
    back_up(tmp_path / "backup.tar", Installation(backed_up, features), now=NOW)
    settings = JobSettings.from_env({**sqlite_environment, "MODEL_PATH": str(small_disk / "models" / "rf_model.pkl")})

    with pytest.raises(NoRoom, match=f"^{small_disk / 'models'}: the disk has no room left"):
        restore(tmp_path / "backup.tar", Installation(settings, features), actor="test", replace=True)

    assert len(history_of(settings, features)) == 4


@pytest.mark.parametrize("kind", ["file", "tree", "database"])
def test_a_full_disk_is_recognised_in_every_library(tmp_path: Path, kind: str) -> None:
    def write(*_: object) -> None:
        with Path("/dev/full").open("w") as full:
            full.write("x")

    def fill() -> None:
        if kind == "file":
            write()
        elif kind == "tree":
            (tmp_path / "tree").mkdir()
            (tmp_path / "tree" / "one").write_text("x")
            shutil.copytree(tmp_path / "tree", tmp_path / "copy", copy_function=write)
        else:
            with closing(dbapi2.connect(":memory:")) as connection:
                connection.execute("PRAGMA max_page_count=1")
                connection.execute("CREATE TABLE t (x)")

    with pytest.raises(NoRoom, match=f"^{tmp_path}: the disk has no room left"), room_in(tmp_path):
        fill()


def test_what_is_no_full_disk_stays_what_it_is(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), room_in(tmp_path):
        (tmp_path / "none").read_text()


def test_a_database_that_was_damaged_when_it_was_backed_up_is_not_restored(
    sqlite_store: Store, model: Model, sqlite_environment: dict[str, str], tmp_path: Path
) -> None:
    settings = JobSettings.from_env(sqlite_environment)
    append(sqlite_store)
    with sqlite_store.begin() as connection:
        connection.execute(sqlite_store.tables.requests.update().values({"V1": float("inf")}))
    sqlite_store.close()
    back_up(tmp_path / "backup", Installation(settings, sqlite_store.features), now=NOW)

    with pytest.raises(BadBackup, match="4 rows with a feature that is not a number in range"):
        restore(tmp_path / "backup", Installation(settings, sqlite_store.features), actor="test", replace=True)


def test_a_backup_with_a_trigger_of_others_is_not_restored(
    backed_up: JobSettings, features: FeatureList, tmp_path: Path
) -> None:
    with closing(dbapi2.connect(tmp_path / "backup" / "requests.db")) as database:
        database.execute("CREATE TRIGGER thief AFTER INSERT ON requests BEGIN DELETE FROM labels; END")
    described = json.loads((tmp_path / "backup" / "backup.json").read_text())
    described["files"]["requests.db"] = asdict(describe_files(tmp_path / "backup")["requests.db"])
    (tmp_path / "backup" / "backup.json").write_text(json.dumps(described))
    before = history_of(backed_up, features)

    with pytest.raises(DatabaseRefused, match=r'backup/requests.db: holds .* trigger "thief" on "requests"'):
        restore(tmp_path / "backup", Installation(backed_up, features), actor="test", replace=True)

    assert history_of(backed_up, features).request_id.tolist() == before.request_id.tolist()


def test_refuses_an_archive_of_something_else(
    sqlite_environment: dict[str, str], features: FeatureList, tmp_path: Path
) -> None:
    (tmp_path / "b.tar").write_bytes(b"x" * 2000)

    with pytest.raises(BadBackup, match="is not an archive that `fraudctl db backup` made"):
        restore(tmp_path / "b.tar", Installation(JobSettings.from_env(sqlite_environment), features), actor="test")


def test_a_file_of_something_else_is_no_backup(
    sqlite_environment: dict[str, str], features: FeatureList, tmp_path: Path
) -> None:
    (tmp_path / "history.csv").write_text("V1,V2\n")

    for source in (tmp_path / "history.csv", Path("/dev/null")):
        with pytest.raises(BadBackup, match=f"{source}: is not a backup; expected what `fraudctl db backup` made"):
            restore(source, Installation(JobSettings.from_env(sqlite_environment), features), actor="test")


def member(name: str, kind: bytes = tarfile.REGTYPE, leads_to: str = "") -> tarfile.TarInfo:
    described = tarfile.TarInfo(name)
    described.type, described.linkname = kind, leads_to
    return described


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (member("../outside"), r"\.\./outside leads out of its folder"),
        (member("/outside"), "/outside leads out of its folder"),
        (member("backup/link", tarfile.SYMTYPE, "/etc"), "backup/link leads out of its folder"),
        (member("backup/link", tarfile.SYMTYPE, "models/../.."), "backup/link leads out of its folder"),
        (member("backup/hard", tarfile.LNKTYPE, "backup/backup.json"), "is not a file, a folder or a link"),
        (member("backup/pipe", tarfile.FIFOTYPE), "is not a file, a folder or a link"),
    ],
    ids=lambda value: value.name if isinstance(value, tarfile.TarInfo) else "",
)
def test_an_archive_writes_nothing_outside_and_nothing_odd(
    sqlite_environment: dict[str, str], features: FeatureList, tmp_path: Path, bad: tarfile.TarInfo, message: str
) -> None:
    with tarfile.open(tmp_path / "b.tar", "w") as archive:
        archive.addfile(member("backup", tarfile.DIRTYPE))
        archive.addfile(bad)

    with pytest.raises(BadBackup, match=message):
        restore(
            tmp_path / "b.tar",
            Installation(JobSettings.from_env(sqlite_environment), features),
            actor="test",
            replace=True,
        )

    assert list(tmp_path.rglob("outside")) == []


def test_refuses_a_backup_of_other_features(
    sqlite_store: Store, sqlite_environment: dict[str, str], tmp_path: Path
) -> None:
    (tmp_path / "features.json").write_text('{"features": [{"name": "amount"}]}')
    settings = JobSettings.from_env({**sqlite_environment, "FEATURES_FILE": str(tmp_path / "features.json")})
    back_up(tmp_path / "backup", Installation(settings, sqlite_store.features), now=NOW)

    with pytest.raises(
        BadBackup, match=r"set FEATURES_FILE to its features\.json\. If it has no such file, .* `fraudctl reset` first"
    ):
        restore(tmp_path / "backup", Installation(settings, FeatureList((Feature("amount"),))), actor="test")

    assert (tmp_path / "backup" / "features.json").exists()


def test_carries_the_list_that_the_installation_remembers(
    sqlite_store: Store, sqlite_environment: dict[str, str], tmp_path: Path
) -> None:
    (tmp_path / "features.json").write_text('{"features": [{"name": "amount"}]}')
    remember_features(JobSettings.from_env({**sqlite_environment, "FEATURES_FILE": str(tmp_path / "features.json")}))
    here = Installation(JobSettings.from_env(sqlite_environment), sqlite_store.features)

    back_up(tmp_path / "backup", here, now=NOW)

    assert (tmp_path / "backup" / "features.json").read_text() == (tmp_path / "features.json").read_text()


def test_never_overwrites_a_backup(sqlite_store: Store, sqlite_environment: dict[str, str], tmp_path: Path) -> None:
    with pytest.raises(FileExistsError, match="exists already"):
        back_up(tmp_path, Installation(JobSettings.from_env(sqlite_environment), sqlite_store.features), now=NOW)


def test_an_mlflow_server_keeps_its_own_store(
    sqlite_store: Store, sqlite_environment: dict[str, str], tmp_path: Path
) -> None:
    settings = JobSettings.from_env({**sqlite_environment, "MLFLOW_TRACKING_URI": "http://mlflow:5000"})
    (settings.latest_db.parent / "mlflow.db").write_text("not ours")

    taken = back_up(tmp_path / "backup", Installation(settings, sqlite_store.features), now=NOW)
    restore(tmp_path / "backup", Installation(settings, sqlite_store.features), actor="test", replace=True)

    assert not [name for name in taken.files if name.startswith("mlflow")]
    assert (settings.latest_db.parent / "mlflow.db").read_text() == "not ours"


def test_needs_a_store_to_back_up(sqlite_environment: dict[str, str], features: FeatureList, tmp_path: Path) -> None:
    with pytest.raises(DatabaseRefused, match="no database there"):
        back_up(tmp_path / "backup", Installation(JobSettings.from_env(sqlite_environment), features), now=NOW)

    assert not (tmp_path / "backup").exists()


def test_is_refused_while_the_store_is_in_use_or_a_job_runs(
    sqlite_store: Store, sqlite_environment: dict[str, str], tmp_path: Path
) -> None:
    settings = JobSettings.from_env(sqlite_environment)
    back_up(tmp_path / "backup", Installation(settings, sqlite_store.features), now=NOW)

    with in_use(settings.latest_db, tmp_path), pytest.raises(StoreInUse):
        restore(tmp_path / "backup", Installation(settings, sqlite_store.features), actor="test", replace=True)
    with promoter(settings.models_dir), pytest.raises(LockHeld):
        back_up(tmp_path / "another", Installation(settings, sqlite_store.features), now=NOW)
