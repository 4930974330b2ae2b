import os
from typing import Any

import pytest
from gunicorn.config import Config

from api.surroundings import check_gunicorn, check_variables
from fraud_detection.environment import BadSetting


@pytest.mark.parametrize(
    ("name", "value", "instead"),
    [
        ("GUNICORN_CMD_ARGS", "--pid /tmp/x", "docs/configuration.md"),
        ("GUNICORN_PID", "1", "docs/configuration.md"),
        ("WEB_CONCURRENCY", "4", "add replicas with DATABASE_URL"),
        ("FORWARDED_ALLOW_IPS", "*", "TRUSTED_PROXIES"),
        ("SCRIPT_NAME", "/fraud", "let your proxy remove the prefix"),
        ("GEVENT_BACKEND", "select", "gevent's own choice"),
        ("GEVENT_LOOP", "libuv", "gevent's own choice"),
        ("LIBEV_FLAGS", "1", "gevent's own choice"),
        ("FLASK_DEBUG", "1", "LOG_LEVEL=DEBUG"),
        ("PROMETHEUS_MULTIPROC_DIR", "metrics", "GET /metrics"),
        ("prometheus_multiproc_dir", "metrics", "GET /metrics"),
        ("PYTHONHASHSEED", "0", "reading of JSON slow"),
        ("PYTHONINTMAXSTRDIGITS", "0", "too long to read"),
        ("PYTHONINSPECT", "1", "exit code"),
        ("PYTHONWARNINGS", "error", "a warning must not fail a request"),
        ("PYTHONWARNINGS", "ignore,e::DeprecationWarning", "a warning must not fail a request"),
    ],
)
def test_a_variable_that_breaks_a_promise_is_refused_by_name(name: str, value: str, instead: str) -> None:
    with pytest.raises(BadSetting, match=f"^{name} is set, and the API cannot work with it; remove it: ") as refused:
        check_variables({name: value})

    assert instead in str(refused.value)


def test_sockets_that_systemd_passes_to_this_process_are_refused() -> None:
    with pytest.raises(BadSetting, match=r"LISTEN_FDS is set.* set HOST and PORT"):
        check_variables({"LISTEN_FDS": "1", "LISTEN_PID": str(os.getpid())})


@pytest.mark.parametrize(
    "harmless",
    [
        {"GUNICORN_CMD_ARGS": "", "WEB_CONCURRENCY": "1"},
        {"GUNICORN_PID": str(os.getppid()), "GUNICORN_FD": "5,6"},
        {"LISTEN_FDS": "1", "LISTEN_PID": "1"},
        {"FLASK_DEBUG": "false", "PYTHONHASHSEED": "random", "PYTHONWARNINGS": "ignore"},
        {"PYTHONPATH": "/app", "PYTHONUNBUFFERED": "1", "PYTHONDONTWRITEBYTECODE": "1", "PYTHON_VERSION": "3.12"},
        {
            "PORT": "5000",
            "web_concurrency": "4",
            "GUNICORN_SERVICE_HOST": "10.0.0.1",
            "NOTIFY_SOCKET": "/run/systemd/notify",
        },
    ],
)
def test_what_does_no_harm_may_stay(harmless: dict[str, str]) -> None:
    check_variables(harmless)


OURS = {"workers": 1, "keepalive": 75, "bind": ["127.0.0.1:5000"]}


def gunicorn_with(**settings: Any) -> Config:
    configuration = Config()
    for name, value in {**OURS, **settings}.items():
        configuration.set(name, value)
    return configuration


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("workers", 3), ("keepalive", 2), ("bind", "0.0.0.0:80"), ("timeout", 1), ("threads", 4), ("umask", 63),
        ("reload", True), ("max_requests", 100), ("worker_class", "gthread"), ("proxy_protocol", "auto"),
        ("raw_env", ["A=b"]), ("daemon", True), ("on_exit", lambda _: None),
    ],
)  # fmt: skip
def test_a_setting_of_gunicorn_that_is_not_ours_is_refused_by_name(name: str, value: object) -> None:
    with pytest.raises(BadSetting, match=f"^gunicorn's setting {name} is "):
        check_gunicorn(gunicorn_with(**{name: value}), OURS)


def test_our_settings_and_a_file_that_names_the_process_are_accepted() -> None:
    check_gunicorn(gunicorn_with(pidfile="/run/fraud.pid"), {**OURS, "a_name_of_python": object()})
