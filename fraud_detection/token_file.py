"""Reads and writes the file of named tokens: in each line a name, its scopes and the digest of a token.

    # name     scopes        digest of the token
    checkout   predict       sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08
    helpdesk   read,label    sha256:60303ae22b998861bce3b28f33eec1be758a213c86c93c076dbe9f558c11c752

Two lines of one name are a rotation: both tokens are valid, and the lower one is the newer.
"""

import contextlib
import fcntl
import hashlib
import os
import re
import secrets
import stat
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from fraud_detection.exit_codes import ExitCode, ExpectedError
from fraud_detection.model.files import NAMED_LIMIT_BYTES, read_regular, sync_folder, write_synced
from fraud_detection.regular_file import NAMED, wrong_kind

Scope = Literal["predict", "label", "read", "metrics"]
SCOPES: tuple[Scope, ...] = get_args(Scope)

MAX_TOKENS = 1000
"""Maximum lines with a token: the API reads them between two requests, and each has series among its metrics."""

_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
_DIGEST = re.compile(r"sha256:([0-9a-f]{64})")
_TAKEN = frozenset({"current", "previous", "none"})  # for API_TOKEN in metrics, and for no valid token in the audit
_HEADING = "# name  scopes  digest of the token; `fraudctl token` writes this file\n"


class BadTokenFile(ExpectedError):
    """A file of named tokens that cannot be used; the message gives the line and the reason, never what it holds."""

    exit_code = ExitCode.BAD_CONFIGURATION


@dataclass(frozen=True)
class NamedToken:
    """A line of the file."""

    name: str
    scopes: frozenset[Scope]
    digest: bytes
    is_newest: bool
    """Whether no lower line has the same name."""


def read_tokens(path: Path) -> list[NamedToken]:
    """Return the tokens of a file, in its order; raises BadTokenFile if one line is wrong."""
    return _parse(path, _read(path))


def add_token(path: Path, name: str, scopes: Sequence[Scope], show: Callable[[str], object]) -> None:
    """Make a token, show it, and add its digest under a new name; create the file if there is none.

    If `show` fails, the file stays as it was: no token is valid that its owner never saw. Raises BadTokenFile.
    """
    if not _NAME.fullmatch(name) or name in _TAKEN:
        raise BadTokenFile(f"the name of a token: expected {_NAME_FORM}")

    def added(tokens: list[NamedToken], text: str) -> str:
        if any(token.name == name for token in tokens):
            raise BadTokenFile(f"{path}: has a token {name} already; `fraudctl token rotate {name}` adds its successor")
        return text + _line(name, scopes, token)

    token = secrets.token_urlsafe(32)
    _change(path, added, first=lambda: show(token), create=True)


def rotate_token(path: Path, name: str, show: Callable[[str], object]) -> None:
    """Make a second token with the scopes of the first and show it like `add_token`; both are valid.

    Raises BadTokenFile.
    """

    def rotated(tokens: list[NamedToken], text: str) -> str:
        of_name = _of_name(path, tokens, name)
        if len(of_name) == 2:
            raise BadTokenFile(
                f"{path}: {name} has two tokens already; first run `fraudctl token remove {name} --previous`"
            )
        return text + _line(name, [scope for scope in SCOPES if scope in of_name[0].scopes], token)

    token = secrets.token_urlsafe(32)
    _change(path, rotated, first=lambda: show(token))


def remove_token(path: Path, name: str, *, only_previous: bool = False) -> int:
    """Remove the tokens of a name, or only the older of two; return how many. Raises BadTokenFile."""
    removed = 0

    def without(tokens: list[NamedToken], text: str) -> str:
        nonlocal removed
        of_name = _of_name(path, tokens, name)
        if only_previous and len(of_name) == 1:
            raise BadTokenFile(f"{path}: {name} has one token only; without --previous the command removes it")
        gone = {token.digest.hex() for token in of_name if not (only_previous and token.is_newest)}
        removed = len(gone)
        lines = text.split("\n")  # as _parse does; splitlines() would also end a comment at other characters
        return "\n".join(line for line in lines if not gone & set(re.findall(r"[0-9a-f]{64}", _without_comment(line))))

    _change(path, without)
    return removed


_NAME_FORM = (
    "1 to 64 small letters, digits, dots, hyphens and underscores, the first a letter or digit, "
    f"and another word than {', '.join(sorted(_TAKEN))}"
)


def _line(name: str, scopes: Sequence[Scope], token: str) -> str:
    return f"{name}  {','.join(scopes)}  sha256:{hashlib.sha256(token.encode()).hexdigest()}\n"


def _of_name(path: Path, tokens: list[NamedToken], name: str) -> list[NamedToken]:
    found = [token for token in tokens if token.name == name]
    if not found:
        raise BadTokenFile(f"{path}: has no token of this name; `fraudctl token list` shows all names")
    return found


def _read(path: Path) -> str:
    try:
        content = read_regular(path, NAMED_LIMIT_BYTES)
    except OSError as error:
        raise BadTokenFile(f"{path}: cannot be read ({error.strerror})") from error
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise BadTokenFile(f"{path}, line {line}: expected text in UTF-8") from None  # the cause repeats the content


def _without_comment(line: str) -> str:
    return line.partition("#")[0].strip()


def _parse(path: Path, text: str) -> list[NamedToken]:
    found = _Found({}, {})
    for number, line in enumerate(text.split("\n"), start=1):
        words = _without_comment(line).split()
        if words:
            try:
                _add(words, found)
            except ValueError as error:
                raise BadTokenFile(f"{path}, line {number}: {error}") from None
    newest = {name: digests[-1] for name, digests in found.of_name.items()}
    return [
        NamedToken(name, scopes, digest, newest[name] == digest) for digest, (name, scopes) in found.by_digest.items()
    ]


@dataclass(frozen=True)
class _Found:
    """The lines above: looking through all of them for each further one would take seconds."""

    by_digest: dict[bytes, tuple[str, frozenset[Scope]]]
    of_name: dict[str, list[bytes]]


def _add(words: list[str], found: _Found) -> None:
    if len(words) != 3:
        raise ValueError("expected three words: a name, its scopes, and sha256: with the digest of the token")
    name, scopes, digest = _name(words[0]), _scopes(words[1]), _digest(words[2])
    of_name = found.of_name.setdefault(name, [])
    if of_name and found.by_digest[of_name[0]][1] != scopes:
        raise ValueError(f"expected the scopes of the other line of {name}")
    if len(of_name) == 2:
        raise ValueError(f"expected at most two lines of {name}: a token and its successor")
    if digest in found.by_digest:
        raise ValueError("expected another digest than in a line above")
    if len(found.by_digest) == MAX_TOKENS:
        raise ValueError(f"expected at most {MAX_TOKENS:,} tokens; remove those that no client uses")
    found.by_digest[digest] = name, scopes
    of_name.append(digest)


def _name(word: str) -> str:
    if not _NAME.fullmatch(word) or word in _TAKEN:
        raise ValueError(f"expected as its name {_NAME_FORM}")
    return word


def _scopes(word: str) -> frozenset[Scope]:
    named = set(word.split(","))
    if not named <= set(SCOPES):
        raise ValueError(f"expected as its scopes some of {', '.join(SCOPES)}, separated by commas without spaces")
    return frozenset(scope for scope in SCOPES if scope in named)


def _digest(word: str) -> bytes:
    matched = _DIGEST.fullmatch(word)
    if matched is None:
        raise ValueError("expected sha256: and 64 hexadecimal digits in small letters, never the token itself")
    return bytes.fromhex(matched[1])


def _change(
    path: Path,
    change: Callable[[list[NamedToken], str], str],
    *,
    first: Callable[[], object] = lambda: None,
    create: bool = False,
) -> None:
    """Replace the file by what `change` makes of it, whole or not at all; two changes wait for each other.

    `first` is called when only the last step is left; if it fails, the file stays as it was.
    """
    problem = wrong_kind(path, NAMED)
    if problem is not None:
        raise BadTokenFile(problem)
    target = path.resolve()  # a link stays a link
    with _locked(target.parent):
        is_new = create and not target.exists()
        text = _HEADING if is_new else _read(target)
        if text and not text.endswith("\n"):
            text += "\n"
        content = change(_parse(path, text), text)
        _parse(path, content)  # a file that is wrong would end the next start of the API
        partial = target.with_name(f".{target.name}.partial")
        try:
            write_synced(partial, content.encode())
            if is_new:
                partial.chmod(0o600)
            else:
                before = target.stat()
                if (before.st_uid, before.st_gid) != (os.geteuid(), os.getegid()):
                    os.chown(partial, before.st_uid, before.st_gid)  # otherwise the API may not read it
                partial.chmod(stat.S_IMODE(before.st_mode))
            first()
            partial.replace(target)
        finally:
            partial.unlink(missing_ok=True)
        sync_folder(target.parent)


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
