"""An encrypted backup restores bit by bit, and one that was changed, cut or exchanged restores nothing."""

import errno
import io
import resource
import stat
import tarfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pyrage
import pytest

from fraud_detection.environment import BadSetting
from fraud_detection.model.read import Model
from fraud_detection.settings import JobSettings
from fraud_detection.store import Store, transfer
from fraud_detection.store.transfer import ImportedRows
from jobs.installation import Installation
from jobs.upkeep.backup import back_up, describe_files
from jobs.upkeep.check import check
from jobs.upkeep.dated_backups import back_up_into
from jobs.upkeep.encryption import CannotDecrypt, Keys, make_key
from jobs.upkeep.restore import BadBackup, restore, unpacked

NOW = datetime(2026, 11, 24, 2, 0, tzinfo=UTC)
With = Callable[[Path | None], Installation]


@pytest.fixture
def key_file(tmp_path: Path) -> Path:
    make_key(tmp_path / "backup.key", now=NOW, add=False)
    return tmp_path / "backup.key"


@pytest.fixture
def with_key(sqlite_store: Store, model: Model, sqlite_environment: dict[str, str]) -> With:
    """An installation with rows and a model, as it is with a key file or without one."""
    rows = ImportedRows("r", ["2026-01-01 00:00:00.000000"] * 300, np.eye(300, 29), [True] * 300, [None] * 300)
    with sqlite_store.begin() as connection:
        transfer.import_history(
            sqlite_store, connection, [rows], reporter="r", received_at="2026-01-01 00:00:00.000000"
        )
    sqlite_store.close()

    def with_key(key_file: Path | None) -> Installation:
        key = {} if key_file is None else {"BACKUP_KEY_FILE": str(key_file)}
        return Installation(JobSettings.from_env(sqlite_environment | key), sqlite_store.features)

    return with_key


def stored(here: Installation) -> dict[str, bytes]:
    """Return every byte of the database and of the models."""
    folders = (here.settings.latest_db.parent, here.models_dir)
    return {str(path): path.read_bytes() for folder in folders for path in folder.rglob("*") if path.is_file()}


def header_length(encrypted: bytes) -> int:
    return encrypted.index(b"\n", encrypted.index(b"\n--- ") + 1) + 1


def flipped(encrypted: bytes) -> Iterator[bytes]:
    """Yield the backup with one changed bit: in every second byte of the header, and here and there in the content."""
    begin, end = header_length(encrypted), len(encrypted)
    chosen = np.random.default_rng(7).integers(begin, end, 20).tolist()
    for place in (*range(0, begin, 2), *range(begin, begin + 16), *chosen, *range(end - 16, end)):
        changed = bytearray(encrypted)
        changed[place] ^= 1 << place % 8
        yield bytes(changed)


def cut(encrypted: bytes) -> Iterator[bytes]:
    """Yield the beginning of the backup, of many lengths, and the backup with something behind it."""
    begin, end = header_length(encrypted), len(encrypted)
    piece = 64 * 1024 + 16  # of age, each with a proof of its own
    ends_of_pieces = range(begin + 16, end, piece)
    chosen = np.random.default_rng(8).integers(begin, end, 15).tolist()
    for length in (0, 1, 20, begin - 1, begin, begin + 16, *ends_of_pieces, *chosen, end - 16, end - 1):
        yield encrypted[:length]
    yield from (encrypted + b"\n", encrypted + b"\0", encrypted + encrypted)


def test_an_encrypted_backup_restores_what_it_was_made_of_and_a_changed_one_nothing(
    with_key: With, key_file: Path, tmp_path: Path
) -> None:
    here = with_key(key_file)
    back_up(tmp_path / "plain", with_key(None), now=NOW)
    taken = back_up(tmp_path / "b.tar.age", here, now=NOW)
    encrypted = (tmp_path / "b.tar.age").read_bytes()
    before = stored(here)
    assert len(encrypted) > 2 * 64 * 1024

    bad = tmp_path / "bad.tar.age"
    for damaged in (*flipped(encrypted), *cut(encrypted)):
        bad.write_bytes(damaged)
        with pytest.raises(CannotDecrypt, match=r"bad\.tar\.age: (no key of|was changed or cut)"):
            restore(bad, here, actor="test", replace=True)
    assert stored(here) == before

    bad.write_bytes(encrypted)
    assert restore(bad, here, actor="test", replace=True).backup == taken
    with unpacked(bad, here.settings, beside=tmp_path) as folder:
        assert describe_files(folder) == describe_files(tmp_path / "plain") == taken.files


@pytest.mark.parametrize("name", ["b.tar.age", "b.tar.gz.age", "B.TAR.GZ.AGE"])
def test_the_format_is_that_of_age(with_key: With, key_file: Path, tmp_path: Path, name: str) -> None:
    taken = back_up(tmp_path / name, with_key(key_file), now=NOW)

    encrypted = (tmp_path / name).read_bytes()
    identity = pyrage.x25519.Identity.from_str(key_file.read_text().splitlines()[-1])
    assert encrypted.startswith(b"age-encryption.org/v1\n-> X25519 ")
    with tarfile.open(fileobj=io.BytesIO(pyrage.decrypt(encrypted, [identity]))) as archive:
        packed = {member.name.partition("/")[2] for member in archive if member.isfile()}
    assert packed == {*taken.files, "backup.json"}
    assert (tmp_path / name).stat().st_mode & 0o077 == 0


@pytest.mark.parametrize(
    ("name", "has_key", "message"),
    [
        ("b", True, r"the name of an encrypted backup ends in \.age; name it b\.tar\.gz\.age"),
        ("b.tar", True, r"name it b\.tar\.age"),
        ("b.tar.gz", True, r"name it b\.tar\.gz\.age"),
        ("b.age", True, r"name it b\.age\.tar\.gz\.age"),
        ("b.tar.gz.age", False, r"is named like an encrypted backup; set BACKUP_KEY_FILE, or leave out \.age"),
        ("b.age", False, "set BACKUP_KEY_FILE"),
    ],
)
def test_the_name_of_a_backup_tells_whether_it_is_encrypted(
    with_key: With, key_file: Path, tmp_path: Path, *, name: str, has_key: bool, message: str
) -> None:
    with pytest.raises(BadSetting, match=message):
        back_up(tmp_path / name, with_key(key_file if has_key else None), now=NOW)

    assert not (tmp_path / name).exists()


def test_another_key_or_none_opens_nothing(with_key: With, key_file: Path, tmp_path: Path) -> None:
    make_key(tmp_path / "other.key", now=NOW, add=False)
    back_up(tmp_path / "b.tar.age", with_key(key_file), now=NOW)
    (tmp_path / "renamed.tar").write_bytes((tmp_path / "b.tar.age").read_bytes())
    before = stored(with_key(None))

    for name in ("b.tar.age", "renamed.tar"):
        with pytest.raises(CannotDecrypt, match=r"no key of \S*other\.key opens it"):
            restore(tmp_path / name, with_key(tmp_path / "other.key"), actor="test", replace=True)
        with pytest.raises(BadSetting, match=f"{name}: is encrypted; set BACKUP_KEY_FILE"):
            restore(tmp_path / name, with_key(None), actor="test", replace=True)

    assert stored(with_key(None)) == before


@pytest.mark.parametrize("name", ["plain", "plain.tar", "plain.tar.gz"])
def test_a_backup_that_others_could_have_made_needs_consent_where_there_is_a_key(
    with_key: With, key_file: Path, tmp_path: Path, name: str
) -> None:
    here = with_key(key_file)
    taken = back_up(tmp_path / name, with_key(None), now=NOW)
    before = stored(here)

    with pytest.raises(BadBackup, match=f"{name}: is not encrypted although BACKUP_KEY_FILE is set"):
        restore(tmp_path / name, here, actor="test", replace=True)

    assert stored(here) == before
    assert restore(tmp_path / name, here, actor="test", replace=True, unencrypted=True).backup == taken


def test_a_plain_archive_with_the_name_of_an_encrypted_one_is_refused(
    with_key: With, key_file: Path, tmp_path: Path
) -> None:
    back_up(tmp_path / "plain.tar", with_key(None), now=NOW)
    (tmp_path / "plain.tar").rename(tmp_path / "b.tar.age")

    with pytest.raises(CannotDecrypt, match="was changed or cut"):
        restore(tmp_path / "b.tar.age", with_key(key_file), actor="test", replace=True, unencrypted=True)


def test_a_header_without_an_end_is_refused_before_the_library_searches_it(
    with_key: With, key_file: Path, tmp_path: Path
) -> None:
    """The library reads the whole header again with every piece."""
    (tmp_path / "b.tar.age").write_bytes(b"age-encryption.org/v1\n-> x y\n" + (b"A" * 64 + b"\n") * 2000)

    with pytest.raises(CannotDecrypt, match=r"was changed or cut .* \(its header has no end\)"):
        restore(tmp_path / "b.tar.age", with_key(key_file), actor="test", replace=True)


def test_an_encrypted_archive_of_something_else_is_refused(with_key: With, key_file: Path, tmp_path: Path) -> None:
    (tmp_path / "text").write_text("no backup")
    Keys.read(key_file).encrypt(tmp_path / "text", tmp_path / "text.age")

    with pytest.raises(BadBackup, match=r"text\.age: is not an archive that"):
        restore(tmp_path / "text.age", with_key(key_file), actor="test", replace=True)


def test_the_newest_key_encrypts_and_every_key_decrypts(with_key: With, key_file: Path, tmp_path: Path) -> None:
    here = with_key(key_file)
    older = back_up(tmp_path / "older.tar.age", here, now=NOW)
    make_key(key_file, now=NOW, add=True)
    newer = back_up(tmp_path / "newer.tar.age", here, now=NOW + timedelta(days=1))
    old_key, new_key = (line for line in key_file.read_text().splitlines() if line.startswith("AGE-SECRET-KEY-1"))
    (tmp_path / "old.key").write_text(old_key)
    (tmp_path / "new.key").write_text(new_key)

    assert restore(tmp_path / "older.tar.age", here, actor="test", replace=True).backup == older
    assert restore(tmp_path / "newer.tar.age", with_key(tmp_path / "new.key"), actor="test", replace=True).backup == (
        newer
    )
    with pytest.raises(CannotDecrypt, match="no key of"):
        restore(tmp_path / "newer.tar.age", with_key(tmp_path / "old.key"), actor="test", replace=True)


def test_a_key_file_is_for_its_owner_and_is_never_overwritten(key_file: Path) -> None:
    made = key_file.read_text()

    with pytest.raises(FileExistsError, match="exists already; with --add it gets a newer key"):
        make_key(key_file, now=NOW, add=False)
    assert key_file.read_text() == made
    make_key(key_file, now=NOW, add=True)

    assert key_file.read_text().startswith(made)
    assert len(Keys.read(key_file).identities) == 2
    assert stat.S_IMODE(key_file.stat().st_mode) == 0o600


def test_a_public_key_stands_in_no_file(with_key: With, key_file: Path, tmp_path: Path) -> None:
    """With it, others could write a backup that this installation accepts."""
    public = str(Keys.read(key_file).identities[0].to_public())
    back_up(tmp_path / "b.tar.age", with_key(key_file), now=NOW)

    assert public.startswith("age1")
    assert not [path for path in tmp_path.rglob("*") if path.is_file() and public.encode() in path.read_bytes()]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", r"backup\.key holds no key; `fraudctl db backup-key` makes one"),
        (b"# only a remark\n\n", "holds no key"),
        (b"# remark\nsecret-of-ours\n", r"line 2 of \S+ is no key; expected AGE-SECRET-KEY-1 and 58 characters"),
        (b"age1ql3z7hjy54pw3hyww5ayyfg7zqgvc7w3j2elw8zmrj2kudc", "line 1 of"),
        (b"\xff", r"cannot be read \(expected text in UTF-8\)"),
        (None, r"cannot be read \(No such file or directory\)"),
    ],
)
def test_a_bad_key_file_stops_a_backup_and_a_restore_before_they_begin(
    with_key: With, tmp_path: Path, content: bytes | None, message: str
) -> None:
    path = tmp_path / "backup.key"
    if content is not None:
        path.write_bytes(content)
    here = with_key(path)
    back_up(tmp_path / "b.tar", with_key(None), now=NOW)

    with pytest.raises(BadSetting, match=f"^BACKUP_KEY_FILE: .*{message}") as refused:
        back_up(tmp_path / "b.tar.age", here, now=NOW)
    with pytest.raises(BadSetting, match=message):
        restore(tmp_path / "b.tar", here, actor="test", replace=True, unencrypted=True)
    with pytest.raises(BadSetting, match=message):
        make_key(path, now=NOW, add=True)

    assert "secret-of-ours" not in str(refused.value)
    assert [finding.problems for finding in check(here) if finding.what == "encrypted backups"] == [
        [str(refused.value)]
    ]
    assert not (tmp_path / "b.tar.age").exists()


def test_backups_of_every_night_are_encrypted_and_leave_the_newest_of_both_kinds(
    with_key: With, key_file: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "backups"
    for night in range(2):
        back_up_into(folder, with_key(None), now=NOW + timedelta(days=night))

    for night in range(2, 4):
        taken = back_up_into(folder, with_key(key_file), now=NOW + timedelta(days=night), keep=3)

    assert sorted(path.name for path in folder.iterdir()) == [
        "fraud-detection-20261125T020000Z.tar.gz",
        "fraud-detection-20261126T020000Z.tar.gz.age",
        "fraud-detection-20261127T020000Z.tar.gz.age",
    ]
    assert restore(taken.path, with_key(key_file), actor="test", replace=True).backup == taken.backup


def test_no_plain_file_touches_the_disk_of_the_backups(
    with_key: With, key_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "backups"
    seen: list[tuple[str, list[bytes]]] = []

    def watched(step: str, run: Callable[..., None]) -> Callable[..., None]:
        def run_and_look(*arguments: object) -> None:
            run(*arguments)
            seen.append((step, [path.read_bytes()[:22] for path in folder.rglob("*") if path.is_file()]))

        return run_and_look

    monkeypatch.setattr(Keys, "encrypt", watched("encrypt", Keys.encrypt))
    monkeypatch.setattr(Keys, "decrypt", watched("decrypt", Keys.decrypt))

    back_up_into(folder, with_key(key_file), now=NOW)

    assert seen == [(step, [b"age-encryption.org/v1\n"]) for step in ("encrypt", "decrypt")]


@contextmanager
def disk_of(size_bytes: int) -> Iterator[None]:
    """Let no file of this process grow beyond a size."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("size_bytes", [100, 100_000])
def test_a_full_disk_is_no_changed_backup_and_leaves_no_cut_one(
    key_file: Path, tmp_path: Path, size_bytes: int
) -> None:
    keys = Keys.read(key_file)
    (tmp_path / "content").write_bytes(b"x" * size_bytes * 2)
    keys.encrypt(tmp_path / "content", tmp_path / "encrypted")

    for step, source in ((keys.encrypt, "content"), (keys.decrypt, "encrypted")):
        with disk_of(size_bytes), pytest.raises(OSError, match="File too large") as raised:
            step(tmp_path / source, tmp_path / f"of-{source}-{size_bytes}")
        assert raised.value.errno == errno.EFBIG
