"""Refuses what surrounds the API and would break its promises: variables of gunicorn, gevent, Flask and Python."""

import os
import re
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from gunicorn.config import Config

from fraud_detection.environment import BadSetting

_OURS = "docs/configuration.md lists the variables of the API"


class _Rule(NamedTuple):
    """Which variables a rule is about, which of their values do no harm, and what to do instead of the others."""

    names: str
    is_harmless: Callable[[str, Mapping[str, str]], bool]
    instead: str


def _never(_value: str, _environ: Mapping[str, str]) -> bool:
    return False


def _one_of(*values: str) -> Callable[[str, Mapping[str, str]], bool]:
    return lambda value, _environ: value.lower() in values


_RULES = (
    # gunicorn sets these two itself when it replaces its own program (SIGUSR2).
    _Rule("GUNICORN_(PID|FD)", lambda _, environ: environ.get("GUNICORN_PID") == str(os.getppid()), _OURS),
    _Rule("GUNICORN_CMD_ARGS", _never, _OURS),
    _Rule("WEB_CONCURRENCY", _one_of("1"), "one process writes; for more, add replicas with DATABASE_URL"),
    _Rule("FORWARDED_ALLOW_IPS", _never, "name the addresses of your proxies in TRUSTED_PROXIES"),
    _Rule("SCRIPT_NAME", _never, "let your proxy remove the prefix of the path"),
    # systemd addresses its sockets to one process; others only inherit the variables.
    _Rule("LISTEN_FDS", lambda _, environ: environ.get("LISTEN_PID") != str(os.getpid()), "set HOST and PORT"),
    _Rule("GEVENT.*|LIBEV_FLAGS", _never, "the API needs gevent's own choice of its event loop"),
    _Rule("FLASK_DEBUG", _one_of("0", "false", "no"), "set LOG_LEVEL=DEBUG to see more"),
    _Rule("(?i:PROMETHEUS_MULTIPROC_DIR)", _never, "one process counts, and GET /metrics returns its metrics"),
    _Rule("PYTHONHASHSEED", _one_of("random"), "a known seed lets a client make the reading of JSON slow"),
    _Rule("PYTHONINTMAXSTRDIGITS", _one_of("4300"), "a number of more digits takes too long to read"),
    _Rule("PYTHONINSPECT", _never, "the exit code would be lost"),
    _Rule("PYTHONWARNINGS", lambda value, _: not re.search(r"(^|,)\s*e", value), "a warning must not fail a request"),
)

_FREE = frozenset({"config", "default_proc_name", "wsgi_app", "pidfile", "print_config", "check_config"})
"""Settings of gunicorn that may differ from ours, because they say where settings are or only print them."""

_INSTEAD = {"bind": "HOST, PORT and PROBE_PORT", "loglevel": "LOG_LEVEL", "forwarded_allow_ips": "TRUSTED_PROXIES"}


def check_variables(environ: Mapping[str, str]) -> None:
    """Raise BadSetting for the first variable that would break a promise; an empty one counts as absent."""
    for name, value in sorted(environ.items()):
        rule = next((rule for rule in _RULES if re.fullmatch(rule.names, name)), None)
        if rule is not None and value and not rule.is_harmless(value, environ):
            raise BadSetting(f"{name} is set, and the API cannot work with it; remove it: {rule.instead}")


def check_gunicorn(configuration: Any, ours: Mapping[str, Any]) -> None:
    """Raise BadSetting if a setting of gunicorn is not what `ours`, the names of our configuration file, makes it."""
    expected = Config()
    for name in expected.settings.keys() & ours.keys():
        expected.set(name, ours[name])
    for name, setting in expected.settings.items():
        got, wanted = configuration.settings[name].get(), setting.get()
        if got != wanted and name not in _FREE:
            instead = f"; use {_INSTEAD[name]}" if name in _INSTEAD else ""
            raise BadSetting(
                f"gunicorn's setting {name} is {got!r}, and the API needs {wanted!r}. "
                f"Remove it from the command line and from gunicorn's configuration file{instead}"
            )
