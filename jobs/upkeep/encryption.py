"""Encrypts and decrypts backups with the keys of BACKUP_KEY_FILE, in the format of age (https://age-encryption.org)."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import IO, ParamSpec, TypeVar

import pyrage

from fraud_detection.clock import timestamp
from fraud_detection.environment import BadSetting, read_secret_file
from fraud_detection.exit_codes import ExitCode, ExpectedError
from fraud_detection.model.files import append_line, sync_folder

_HEADER_LIMIT_BYTES = 64 * 1024  # of ours it takes less than 1 KiB
P = ParamSpec("P")
T = TypeVar("T")


class CannotDecrypt(ExpectedError):
    """An encrypted backup that no key opens, or that was changed or cut; nothing was restored."""

    exit_code = ExitCode.UNUSABLE


@dataclass(frozen=True)
class Keys:
    """The keys of a key file, the newest last. Each opens backups, and the newest encrypts them."""

    path: Path
    identities: list[pyrage.x25519.Identity]

    @classmethod
    def read(cls, path: Path) -> "Keys":
        """Read a key file: one key per line, beside empty lines and lines that start with #; raises BadSetting."""
        identities = []
        for number, line in enumerate(read_secret_file("BACKUP_KEY_FILE", path).splitlines(), 1):
            text = line.strip()
            if text and not text.startswith("#"):
                try:
                    identities.append(pyrage.x25519.Identity.from_str(text))
                except pyrage.IdentityError as error:
                    raise BadSetting(
                        f"BACKUP_KEY_FILE: line {number} of {path} is no key; "
                        "expected AGE-SECRET-KEY-1 and 58 characters"
                    ) from error
        if not identities:
            raise BadSetting(f"BACKUP_KEY_FILE: {path} holds no key; `fraudctl db backup-key` makes one")
        return cls(path, identities)

    def encrypt(self, source: Path, target: Path) -> None:
        """Encrypt a file piece by piece with the newest key; raises OSError."""
        with source.open("rb") as read, target.open("xb") as written, _failing(read, written) as (reader, writer):
            pyrage.encrypt_io(reader, writer, [self.identities[-1].to_public()])

    def decrypt(self, source: Path, target: Path) -> None:
        """Decrypt a file piece by piece; only after its end is the target proven whole.

        Raises CannotDecrypt, OSError.
        """
        with source.open("rb") as read, target.open("xb") as written, _failing(read, written) as (reader, writer):
            if b"\n--- " not in read.read(_HEADER_LIMIT_BYTES):  # pyrage would look for it for hours in a large file
                raise _changed(source, "its header has no end")
            read.seek(0)
            try:
                pyrage.decrypt_io(reader, writer, self.identities)
            except (pyrage.DecryptError, OSError) as error:  # OSError in the middle of the content
                if str(error) == "No matching keys found":
                    raise CannotDecrypt(
                        f"{source}: no key of {self.path} opens it, so it was made with another key or changed; "
                        "set BACKUP_KEY_FILE to the key file of its time, or use another backup"
                    ) from error
                raise _changed(source, str(error)) from error


def _changed(source: Path, reason: str) -> CannotDecrypt:
    return CannotDecrypt(
        f"{source}: was changed or cut after it was encrypted ({reason}); nothing was restored, "
        "so use another backup or another copy of this one"
    )


class _Remembering:
    """A file for pyrage, which turns the error of a file into text, and drops that of the last write."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self.error: BaseException | None = None

    def read(self, size: int) -> bytes:
        return self._remember(self._file.read, size)

    def write(self, piece: bytes) -> int:
        return self._remember(self._file.write, piece)

    def flush(self) -> None:
        self._remember(self._file.flush)

    def _remember(self, call: Callable[P, T], *arguments: P.args, **named: P.kwargs) -> T:
        try:
            return call(*arguments, **named)
        except BaseException as error:  # also the interrupt of a user, which pyrage would turn into text too
            self.error = self.error or error
            raise


@contextmanager
def _failing(*files: IO[bytes]) -> Iterator[list[_Remembering]]:
    """Give files whose first error the block raises, whatever pyrage made of it."""
    remembering = [_Remembering(file) for file in files]
    try:
        yield remembering
    finally:
        for file in remembering:
            if file.error is not None:
                raise file.error


def make_key(path: Path, *, now: datetime, add: bool) -> None:
    """Write a key file that only its owner can read or, with `add`, append a newer key to one.

    The public key is not printed anywhere: with it, others could write backups that this installation accepts.

    Raises FileExistsError, BadSetting, OSError.
    """
    if add:
        Keys.read(path)  # so that no key goes into a file of something else
    else:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
        except FileExistsError:
            raise FileExistsError(
                f"{path}: exists already; with --add it gets a newer key, which encrypts the next backups"
            ) from None
        sync_folder(path.parent)
    append_line(path, f"# made {timestamp(now)}\n{pyrage.x25519.Identity.generate()}".encode())
