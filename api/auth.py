"""Checks the bearer token of each request, and that the token may do what the request asks for."""

import collections
import hashlib
import hmac
import logging
import os
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from wsgiref.types import WSGIEnvironment

import flask
from prometheus_client import Counter

from api.arrival import TOKEN_NAME
from api.connections import BROUGHT_TOKEN
from api.metrics import Metrics
from api.scopes import needs_of
from fraud_detection.environment import (
    MIN_TOKEN_CHARACTERS,
    BadSetting,
    checked_token,
    open_file_warning,
    read_secret_file,
    short_token_warning,
)
from fraud_detection.settings import ApiSettings
from fraud_detection.token_file import SCOPES, BadTokenFile, NamedToken, Scope, read_tokens

_TOKEN = "fraud.token"  # noqa: S105  where environ holds it
_ONE_SLASH = re.compile("/(?!/)")

RECHECK_SECONDS = 5.0  # so that a token changed in its file is valid within 10 s

logger = logging.getLogger(__name__)


class Unauthorized(Exception):
    """A request without a valid token; the message never says what is wrong with a token."""

    challenge = "Bearer"
    """The WWW-Authenticate of the reply, with the error codes of RFC 6750."""


class MalformedAuthorization(Unauthorized):
    """A request whose header Authorization is not Bearer and a token."""

    challenge = 'Bearer error="invalid_request"'


class UnknownToken(Unauthorized):
    """A request whose token is none of the valid ones."""

    challenge = 'Bearer error="invalid_token"'


class Forbidden(Exception):
    """A request whose token has not the scope that it needs; the message names that scope."""


class MisspeltPath(Exception):
    """A path that starts otherwise than with one slash."""


class TooManyRequests(Exception):
    """A name whose tokens sent more requests in a second than RATE_LIMIT_PER_SECOND."""


class Allowance:
    """The requests that one name may send: in any second, wherever it begins, at most `per_second`."""

    def __init__(self, per_second: int) -> None:
        self._per_second = per_second
        self._taken_at: collections.deque[float] = collections.deque()

    def take(self) -> bool:
        """Take one request; return whether there was one left."""
        now = time.monotonic()
        while self._taken_at and now - self._taken_at[0] >= 1:
            self._taken_at.popleft()
        if len(self._taken_at) == self._per_second:
            return False
        self._taken_at.append(now)
        return True


@dataclass(frozen=True)
class Token:
    """A valid token."""

    name: str
    """Who authenticated; a token and its successor have the same name."""
    scopes: frozenset[Scope]
    digest: bytes
    requests: Counter
    allowance: Allowance | None
    """What the tokens of this name may send, None if there is no limit."""


_EVERYTHING = frozenset(SCOPES)


@dataclass
class _Single:
    """A token that a variable holds, or the file that another one names."""

    name: str
    variable: str
    token_id: str
    scopes: frozenset[Scope]
    file: Path | None
    token: str | None
    may_be_absent: bool


class Tokens:
    """The valid tokens by their digests; a token from a file is read again when the file changes.

    What cannot be used (a file that is unreadable or wrong) leaves the current tokens as they were. A token that may be
    absent is withdrawn when its file is gone or empty, so that a leaked one can be revoked without a restart.

    A short token that was there at start works. Raises BadSetting.
    """

    def __init__(self, settings: ApiSettings, metrics: Metrics, recheck_seconds: float = RECHECK_SECONDS) -> None:
        self._metrics = metrics
        self._singles = (
            _Single("API_TOKEN", "API_TOKEN_FILE", "current", _EVERYTHING,
                    settings.api_token_file, settings.api_token, may_be_absent=False),
            _Single("API_TOKEN", "API_TOKEN_PREVIOUS_FILE", "previous", _EVERYTHING,
                    settings.api_token_previous_file, settings.api_token_previous, may_be_absent=True),
            _Single("METRICS_TOKEN", "METRICS_TOKEN_FILE", "METRICS_TOKEN", frozenset({"metrics"}),
                    settings.metrics_token_file, settings.metrics_token, may_be_absent=True),
        )  # fmt: skip
        self._named_file = settings.api_tokens_file
        self._named: list[NamedToken] = []
        self._named_seen: tuple[int, ...] | None = None
        self._named_problem: str | None = None
        if self._named_file is not None:
            self._read_named(self._named_file)
        if self._named_problem is not None:
            raise BadSetting(f"API_TOKENS_FILE: {self._named_problem}")
        self._no_token = Token("", frozenset(), os.urandom(32), metrics.requests_of("current"), None)
        self._per_second = settings.rate_limit_per_second
        self._allowances: dict[str, Allowance] = {}
        self._by_digest = self._table()
        double = self._double()
        if double is not None:
            raise BadSetting(double)
        for warning in (*self._warnings(), *self._open_files()):
            logger.warning("%s", warning)
        metrics.short_tokens.set_function(lambda: len(self._warnings()))
        self._recheck_seconds = recheck_seconds
        self._checked_at = time.monotonic()

    def identify(self, credential: bytes) -> Token | None:
        """Return which token a credential is, None for none, in a time that reveals nothing about the tokens."""
        if time.monotonic() - self._checked_at >= self._recheck_seconds:
            self._read_again()
        presented = hashlib.sha256(credential).digest()
        # A digest says nothing about the token; one that is not there is compared with random bytes.
        token = self._by_digest.get(presented, self._no_token)
        return token if hmac.compare_digest(presented, token.digest) else None

    def _table(self) -> dict[bytes, Token]:
        table: dict[bytes, Token] = {}
        for token in self._all():
            table.setdefault(token.digest, token)  # during a rotation the previous token can equal the current one
        return table

    def _all(self) -> Iterator[Token]:
        for single in self._singles:
            if single.token is not None:
                digest = hashlib.sha256(single.token.encode()).digest()
                yield Token(
                    single.name,
                    single.scopes,
                    digest,
                    self._metrics.requests_of(single.token_id),
                    self._allowance(single.name),
                )
        for named in self._named:
            requests = self._metrics.requests_of(_token_id(named))
            yield Token(named.name, named.scopes, named.digest, requests, self._allowance(named.name))

    def _allowance(self, name: str) -> Allowance | None:
        if self._per_second == 0:
            return None
        return self._allowances.setdefault(name, Allowance(self._per_second))

    def _double(self) -> str | None:
        """Return what to do about a token that is there under two names, if there is one."""
        for token in self._all():
            first = self._by_digest[token.digest].name
            if first != token.name:
                return f"{token.name}: is the same token as {first}, which may do more or less; make another one"
        return None

    def _warnings(self) -> list[str]:
        found = [
            short_token_warning(single.variable.removesuffix("_FILE"), single.token)
            for single in self._singles
            if single.token is not None
        ]
        return [warning for warning in found if warning is not None]

    def _open_files(self) -> Iterator[str]:
        files = [(single.variable, single.file) for single in self._singles]
        for variable, file in (*files, ("API_TOKENS_FILE", self._named_file)):
            warning = None if file is None else open_file_warning(variable, file)
            if warning is not None:
                yield warning

    def _read_again(self) -> None:
        self._checked_at = time.monotonic()
        known = {single.token for single in self._singles}
        for single in self._singles:
            if single.file is None:
                continue
            token = _read(single, single.file)
            if token and token not in known and len(token) < MIN_TOKEN_CHARACTERS:
                why = (
                    f"holds a new token of fewer than {MIN_TOKEN_CHARACTERS} characters: the last good one stays valid"
                )
                self._keep(single.variable, single.token_id, why)
            elif token or (token == "" and single.may_be_absent):
                single.token = token or None
            else:
                self._keep(single.variable, single.token_id, "holds no usable token: the last good one stays valid")
        if self._named_file is not None:
            self._read_named(self._named_file)
        if self._named_problem is not None:
            self._keep(
                "API_TOKENS_FILE", "named", f"is wrong, and the last good tokens stay valid: {self._named_problem}"
            )
        self._by_digest = self._table()
        double = self._double()
        if double is not None:  # it opens what the first name opens; the other tokens follow their files
            self._keep(double, "named", "(the next start of the API refuses it)")

    def _read_named(self, path: Path) -> None:
        state = _state_of(path)  # before reading: what is written meanwhile is read the next time
        if state is not None and state == self._named_seen:
            return
        self._named_seen, self._named_problem = state, None
        before = self._named
        try:
            self._named = read_tokens(path)
        except BadTokenFile as error:
            self._named_problem = str(error)
            if isinstance(error.__cause__, OSError):  # it may become readable without a change
                self._named_seen = None
        for removed in set(map(_token_id, before)) - set(map(_token_id, self._named)):
            self._metrics.forget_token(removed)

    def _keep(self, variable: str, token_id: str, why: str) -> None:
        self._metrics.token_reload_failures.labels(token_id).inc()
        logger.error("%s %s", variable, why)


def _token_id(named: NamedToken) -> str:
    """Return what a token is called among the metrics."""
    return named.name if named.is_newest else f"{named.name}:previous"


def _read(single: _Single, file: Path) -> str | None:
    """Return the token in a file, empty if the file is missing or empty, None if it holds no valid token."""
    try:
        text = read_secret_file(single.variable, file)
        return text and checked_token(text)
    except BadSetting as error:
        return "" if isinstance(error.__cause__, FileNotFoundError) else None
    except ValueError:
        return None


def _state_of(path: Path) -> tuple[int, ...] | None:
    """Return what changes when a file is written or replaced; None if there is none."""
    try:
        state = path.stat()
    except OSError:
        return None
    return state.st_dev, state.st_ino, state.st_size, state.st_mtime_ns


def require_token(app: flask.Flask, tokens: Tokens) -> None:
    """Reply 401 to a request without a valid token and 403 to one without the scope, before reading its body.

    Call it when every route is there. Unknown paths and methods are answered as such to everybody.

    Raises UndeclaredNeed if a route does not say what it needs.
    """
    needed = needs_of(app)

    @app.before_request
    def _check_token() -> None:
        environ = flask.request.environ
        unknown: Exception | None = flask.request.routing_exception
        if not _ONE_SLASH.match(environ["PATH_INFO"]):  # Flask alone takes //model for /model
            unknown = MisspeltPath("no such path; expected exactly one slash at its start")
        if unknown is not None:
            _valid_token(environ, tokens)  # who tries paths out is named in the log, and may send fewer other requests
            raise unknown
        need = needed[str(flask.request.endpoint)]
        if need != "no token":
            authenticate(environ, tokens, None if need == "any token" else need)


def authenticate(environ: WSGIEnvironment, tokens: Tokens, needed: Scope | None) -> None:
    """Require a valid token with the scope that is needed, if any is.

    Asked again, it neither counts nor limits the request again: the errors of POST /predict come through here twice.

    Raises Unauthorized, MalformedAuthorization, UnknownToken, TooManyRequests or Forbidden.
    """
    token = _valid_token(environ, tokens, needed)
    if token is None:
        raise _refusal(environ.get("HTTP_AUTHORIZATION", ""))
    if needed is not None and needed not in token.scopes:
        raise Forbidden(f"this token has not the scope {needed}, which this request needs; use a token that has it")


def _valid_token(environ: WSGIEnvironment, tokens: Tokens, needed: Scope | None = None) -> Token | None:
    """Return the valid token that a request carries; count the request, and mark its connection as one that may rest.

    Raises TooManyRequests.
    """
    known: Token | None = environ.get(_TOKEN)
    if known is not None:
        return known
    token = tokens.identify(_credential(environ.get("HTTP_AUTHORIZATION", "")))
    if token is None:
        return None
    environ[BROUGHT_TOKEN] = True
    environ[TOKEN_NAME] = token.name
    environ[_TOKEN] = token
    is_scrape = needed == "metrics" and needed in token.scopes  # which shows that a name sends too much
    if token.allowance is not None and not is_scrape and not token.allowance.take():
        raise TooManyRequests(
            "the tokens of this name sent too many requests; repeat this one after Retry-After seconds"
        )
    token.requests.inc()
    return token


def token_name(environ: WSGIEnvironment) -> str | None:
    """Return who authenticated for a request; None if no valid token did."""
    return environ.get(TOKEN_NAME)


def _credential(header: str) -> bytes:
    scheme, _, credential = header.partition(" ")
    return credential.strip(" ").encode("utf-8", "replace") if scheme.lower() == "bearer" else b""


def _refusal(header: str) -> Unauthorized:
    if not header.strip():
        return Unauthorized("expected the header Authorization: Bearer and a token, and the request has none")
    if header.strip().lower() == "bearer":
        return MalformedAuthorization("Authorization: expected a token after Bearer, got none; look where it is set")
    if not re.fullmatch(r"(?i:bearer) +[\x21-\x7e]+ *", header):
        return MalformedAuthorization(
            "Authorization: expected Bearer, a space, and a token of visible ASCII characters"
        )
    return UnknownToken("this token is not valid; use one that this installation accepts")
