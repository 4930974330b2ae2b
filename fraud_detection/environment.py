"""Reads environment variables: how a settings class declares one, and how text becomes a checked value."""

import dataclasses
import math
import os
import re
import stat
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any, Final, Literal, Self, TypeVar, overload

from fraud_detection.exit_codes import ExitCode, ExpectedError
from fraud_detection.model.files import NAMED_LIMIT_BYTES, read_regular

T = TypeVar("T")


class BadSetting(ExpectedError):
    """A variable that is missing or wrong; the message names it, what was expected and its value, unless secret."""

    exit_code = ExitCode.BAD_CONFIGURATION


def text(value: str) -> str:
    """Return the value unchanged."""
    return value


class Boolean:
    """Reads true or false."""

    expected = "true or false"

    def __call__(self, value: str) -> bool:
        """Return the value; raises ValueError saying what was expected, as every reader does."""
        if value.lower() not in {"true", "false"}:
            raise ValueError(self.expected)
        return value.lower() == "true"


@dataclass(frozen=True)
class Number:
    """Reads a number within bounds."""

    minimum: float
    maximum: float

    @property
    def expected(self) -> str:
        """Describe the accepted values, for messages and documents."""
        return f"a number from {self.minimum:g} to {self.maximum:g}"

    def __call__(self, value: str) -> float:
        """Return the number."""
        try:
            number = float(value)
        except ValueError:
            number = math.nan
        if not self.minimum <= number <= self.maximum:
            raise ValueError(self.expected)
        return number


@dataclass(frozen=True)
class Integer:
    """Reads a whole number within bounds."""

    minimum: int
    maximum: int

    @property
    def expected(self) -> str:
        """Describe the accepted values, for messages and documents."""
        return f"a whole number from {self.minimum} to {self.maximum}"

    def __call__(self, value: str) -> int:
        """Return the number."""
        if not re.fullmatch(r"[0-9]{1,10}", value) or not self.minimum <= int(value) <= self.maximum:
            raise ValueError(self.expected)
        return int(value)


class Choice:
    """Reads one of a few words."""

    def __init__(self, *words: str) -> None:
        self.words = words

    @property
    def expected(self) -> str:
        """Describe the accepted values, for messages and documents."""
        return f"one of {', '.join(self.words)}"

    def __call__(self, value: str) -> str:
        """Return the word."""
        if value not in self.words:
            raise ValueError(self.expected)
        return value


def url(value: str) -> str:
    """Return an address without its last slash; raises ValueError saying what was expected."""
    if not re.fullmatch(r"https?://[^\s/]+(/\S*)?", value):
        raise ValueError("an address that starts with http:// or https://")
    host = re.split(r"[/?#]", value.partition("://")[2], maxsplit=1)[0].rpartition("@")[2]
    matched = re.fullmatch(r"(\[[0-9A-Fa-f:.%]+\]|[\w.-]+)(:[0-9]{1,5})?", host)
    if matched is None:
        raise ValueError(
            "an address such as http://HOST:PORT; in a user or password write each of @ : / ? # % and space as % and "
            "its two hexadecimal digits"
        )
    if not can_be_looked_up(matched[1].strip("[]")):
        raise ValueError(f"an address such as http://HOST:PORT, with {HOST_FORM}")
    return value.rstrip("/")


HOST_FORM = "a host of 1 to 63 characters between dots"
"""What to say of a host that cannot be looked up."""


def can_be_looked_up(host: str) -> bool:
    """Return whether Python can ask for the address of a host; for others it raises an error that is no OSError.

    >>> [can_be_looked_up(host) for host in ("db.example", "10.0.0.7", "", "h..x", "a" * 64)]
    [True, True, True, False, False]
    """
    try:
        host.encode("idna")
    except UnicodeError:
        return False
    return True


def tracking_uri(value: str) -> str:
    """Return where MLflow keeps its runs: an address, which is checked like `url`, or a URI of another kind."""
    return url(value) if value.lower().startswith("http") else value


def without_password(address: str) -> str:
    """Return an address for a message, without user, password and query.

    >>> without_password("https://user:pa@ss@host:5000/mlflow?key=x")
    'https://host:5000/mlflow'
    """
    scheme, _, rest = address.partition("://")
    return f"{scheme}://{re.split('[?#]', rest.rpartition('@')[2], maxsplit=1)[0]}"


def what_failed(error: Exception, address: str) -> str:
    """Return an error for a message; only its kind if the address has a password, which its text may repeat."""
    return type(error).__name__ if "@" in address else str(error)


def checked_token(value: str) -> str:
    """Return a bearer token that can stand in a header; raises ValueError saying what was expected."""
    if not re.fullmatch(r"[\x21-\x7e]{1,512}", value):
        raise ValueError("1 to 512 visible ASCII characters without spaces")
    return value


MIN_TOKEN_CHARACTERS = 16
"""A new token has at least so many; a shorter one that was in use before still works."""
REFUSED_FROM = "0.3.0"
"""The version that will refuse a shorter token."""


def new_token(value: str) -> str:
    """Return a bearer token that is long enough to be a new one; raises ValueError saying what was expected."""
    if len(checked_token(value)) < MIN_TOKEN_CHARACTERS:
        raise ValueError(f"{MIN_TOKEN_CHARACTERS} to 512 visible ASCII characters without spaces")
    return value


def short_token_warning(variable: str, token: str) -> str | None:
    """Return what to say about a token that is shorter than a new one may be, None if it is long enough."""
    if len(token) >= MIN_TOKEN_CHARACTERS:
        return None
    return (
        f"{variable}: has fewer than {MIN_TOKEN_CHARACTERS} characters. It works, and version {REFUSED_FROM} will "
        "refuse it: rotate to a longer token (docs/operations.md)"
    )


class _Default(Enum):
    REQUIRED = "required"


REQUIRED: Final = _Default.REQUIRED
"""Stands for the default of a variable that has none."""


@dataclass(frozen=True)
class Variable:
    """The description of one environment variable, and how it is read."""

    name: str
    meaning: str
    parse: Callable[[str], Any]
    default: str | None
    required: bool
    secret: bool
    file_may_be_missing: bool = False


@overload
def variable(
    name: str,
    parse: Callable[[str], T],
    default: None,
    meaning: str,
    *,
    secret: bool = False,
    file_may_be_missing: bool = False,
) -> T | None: ...


@overload
def variable(
    name: str,
    parse: Callable[[str], T],
    default: float | str | Literal[_Default.REQUIRED],
    meaning: str,
    *,
    secret: bool = False,
) -> T: ...


def variable(
    name: str,
    parse: Callable[[str], Any],
    default: object,
    meaning: str,
    *,
    secret: bool = False,
    file_may_be_missing: bool = False,
) -> Any:
    """Declare a field of a settings class and the variable that it is read from.

    The field has the type that `parse` returns: with another type, mypy fails. A default that is text is parsed like
    any value. Only a secret without a default may name a file that is missing.
    """
    declared = Variable(
        name,
        meaning,
        parse,
        default=None if default in (REQUIRED, None) else str(default),
        required=default is REQUIRED,
        secret=secret,
        file_may_be_missing=file_may_be_missing,
    )
    return dataclasses.field(metadata={"variable": declared})


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Reads every field of a settings class from the environment."""

    @classmethod
    def from_env(cls, environ: Mapping[str, str]) -> Self:
        """Read and check every variable of this class.

        A secret may also come from the file that NAME_FILE names. An empty variable counts as absent.

        Raises BadSetting.
        """
        return cls(**{field.name: _read(field.metadata["variable"], environ) for field in dataclasses.fields(cls)})

    @classmethod
    def variables(cls) -> list[Variable]:
        """Return what this class reads, in order, for tables and checks."""
        return [field.metadata["variable"] for field in dataclasses.fields(cls)]


def _read(variable: Variable, environ: Mapping[str, str]) -> Any:
    name = variable.name
    value = environ.get(name, "")
    if variable.secret and environ.get(f"{name}_FILE"):
        if value:
            raise BadSetting(f"{name} and {name}_FILE are both set; remove one of them")
        try:
            value = read_secret_file(f"{name}_FILE", Path(environ[f"{name}_FILE"]))
        except BadSetting as error:
            if not (variable.file_may_be_missing and isinstance(error.__cause__, FileNotFoundError)):
                raise
    if not value:
        if variable.required:
            raise BadSetting(f"{name} is not set; it is required: {variable.meaning}")
        if variable.default is None:
            return None
        value = variable.default
    try:
        return variable.parse(value)
    except ValueError as error:
        is_hidden = variable.secret or variable.parse in {url, tracking_uri}
        got = "a value that is kept secret" if is_hidden else repr(value)
        raise BadSetting(f"{name}: expected {error}, got {got}") from None  # the cause may repeat a secret


def read_secret_file(variable: str, path: Path) -> str:
    """Return the content of the file that `variable` names, without a trailing newline.

    Raises BadSetting if it cannot be read.
    """
    try:
        return read_regular(path, NAMED_LIMIT_BYTES).decode().rstrip("\r\n")
    except OSError as error:
        raise BadSetting(f"{variable}: {path} cannot be read ({error.strerror})") from error
    except UnicodeDecodeError as error:
        raise BadSetting(f"{variable}: {path} cannot be read (expected text in UTF-8)") from error


def open_file_warning(variable: str, path: Path) -> str | None:
    """Return what to say about a file of secrets that belongs to this user and is open to others, None if it is not.

    If it belongs to another user, this one reads it as its group (a Secret of Kubernetes) or as any user (of Compose).
    """
    try:
        state = path.stat()
    except OSError:  # reading it says so
        return None
    mode = stat.S_IMODE(state.st_mode)
    if state.st_uid != os.geteuid() or not mode & 0o077:
        return None
    return f"{variable}: {path} is open to other users (mode {mode:04o}); run chmod 600 on it"
