"""Checks the bearer token for every endpoint that is not public."""

import hashlib
import hmac
import logging
import os
import time
from pathlib import Path
from wsgiref.types import WSGIEnvironment

import flask

from api.connections import BROUGHT_TOKEN
from api.metrics import Metrics, TokenId
from fraud_detection.environment import BadSetting, checked_token, read_secret_file
from fraud_detection.settings import ApiSettings

PUBLIC_PATHS = frozenset({"/health", "/openapi.json", "/docs"})
RECHECK_SECONDS = 5.0  # so that a token changed in its file is valid within 10 s

logger = logging.getLogger(__name__)


class Unauthorized(Exception):
    """A request without a valid token; the message does not say what was wrong with the token."""


class Tokens:
    """The digests of the valid tokens; a token from a file is read again when the file changes.

    What cannot be used (a file that is gone, empty or unreadable) leaves the current token as it was. The previous
    one is withdrawn when its file is gone or empty, so that a leaked token can be revoked without a restart.
    """

    def __init__(self, settings: ApiSettings, metrics: Metrics, recheck_seconds: float = RECHECK_SECONDS) -> None:
        self._metrics = metrics
        self._current = _digest(settings.api_token)
        self._previous = _nothing() if settings.api_token_previous is None else _digest(settings.api_token_previous)
        self._current_file = settings.api_token_file
        self._previous_file = settings.api_token_previous_file
        self._recheck_seconds = recheck_seconds
        self._checked_at = time.monotonic()

    def identify(self, credential: bytes) -> TokenId | None:
        """Return which token a credential is, None for none, in a time that reveals nothing about the tokens."""
        if time.monotonic() - self._checked_at >= self._recheck_seconds:
            self._read_again()
        presented = hashlib.sha256(credential).digest()
        # Both are always compared, as bytes, because compare_digest refuses a str that is not ASCII.
        is_current = hmac.compare_digest(presented, self._current)
        is_previous = hmac.compare_digest(presented, self._previous)
        if is_current:
            return "current"
        return "previous" if is_previous else None

    def _read_again(self) -> None:
        self._checked_at = time.monotonic()
        if self._current_file is not None:
            current = _read("API_TOKEN_FILE", self._current_file)
            if current:
                self._current = _digest(current)
            else:
                self._keep("API_TOKEN_FILE", "current")
        if self._previous_file is not None:
            previous = _read("API_TOKEN_PREVIOUS_FILE", self._previous_file)
            if previous:
                self._previous = _digest(previous)
            elif previous == "":
                self._previous = _nothing()
            else:
                self._keep("API_TOKEN_PREVIOUS_FILE", "previous")

    def _keep(self, variable: str, token_id: TokenId) -> None:
        self._metrics.token_reload_failures.labels(token_id).inc()
        logger.warning("%s holds no usable token: the last good one stays valid", variable)


def _read(variable: str, path: Path) -> str | None:
    """Return the token in a file, empty if the file is missing or empty, None if it holds no valid token."""
    try:
        text = read_secret_file(variable, path)
        return text and checked_token(text)
    except BadSetting as error:
        return "" if isinstance(error.__cause__, FileNotFoundError) else None
    except ValueError:
        return None


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode()).digest()


def _nothing() -> bytes:
    return os.urandom(32)  # matches no token, so that comparing takes as long as with one


def require_token(app: flask.Flask, tokens: Tokens, metrics: Metrics) -> None:
    """Reply 401 to every request without a valid token, before reading its body, except on PUBLIC_PATHS.

    Unknown paths and methods are answered as such to everybody.
    """

    @app.before_request
    def _check_token() -> None:
        if flask.request.routing_exception is not None:
            raise flask.request.routing_exception
        if flask.request.path in PUBLIC_PATHS:
            return
        metrics.count_authenticated(authenticate(flask.request.environ, tokens))


def authenticate(environ: WSGIEnvironment, tokens: Tokens) -> TokenId:
    """Return which token a request carries; mark its connection as one that may rest for long.

    Raises Unauthorized.
    """
    token_id = tokens.identify(_credential(environ.get("HTTP_AUTHORIZATION", "")))
    if token_id is None:
        raise Unauthorized("expected the header Authorization: Bearer and a valid token")
    environ[BROUGHT_TOKEN] = True
    return token_id


def _credential(header: str) -> bytes:
    scheme, _, credential = header.partition(" ")
    return credential.strip(" ").encode("utf-8", "replace") if scheme.lower() == "bearer" else b""
