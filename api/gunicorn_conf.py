"""Configures gunicorn (`gunicorn -c python:api.gunicorn_conf`); everything else comes from our own variables."""

import os
import resource
import sys
from typing import Any, NoReturn

from gunicorn import glogging

from api import server, surroundings
from fraud_detection import listening, logs
from fraud_detection.configuration import read_configuration
from fraud_detection.environment import BadSetting
from fraud_detection.exit_codes import ExpectedError
from fraud_detection.file_modes import share_with_group
from fraud_detection.settings import ApiSettings


def _settings() -> tuple[ApiSettings, str]:
    """Return the settings, and the IP address of their HOST."""
    try:
        surroundings.check_variables(os.environ)
        settings = ApiSettings.from_env(os.environ)
        read_configuration(settings)  # the worker, which uses it, starts when the ports are open
        _, address = listening.resolve(settings.host)
    except ExpectedError as error:
        _give_up(error)
    return settings, address


def _give_up(error: ExpectedError) -> NoReturn:
    sys.stderr.write(f"fraud-detection cannot start: {error}\n")
    sys.exit(error.exit_code)


class Logger(glogging.Logger):  # type: ignore[misc]  # gunicorn ships no types
    """Sends gunicorn's own messages to our log; writes no line per request."""

    def setup(self, cfg: Any) -> None:
        """Pass every message to the root logger; refuse other settings than ours.

        gunicorn makes its logger when it knows every setting and has done nothing with them.
        """
        if cfg.wsgi_app == wsgi_app:
            try:
                surroundings.check_gunicorn(cfg, globals())
            except BadSetting as error:
                _give_up(error)
        super().setup(cfg)
        self.error_log.handlers.clear()
        self.error_log.propagate = True


_ours, _address = _settings()

wsgi_app = "api.wsgi:serve()"
worker_class = server.Worker
workers = 1  # one process writes; between processes SQLite polls for its lock, which starves some of them
bind = [f"[{_address}]:{_ours.port}", f"[{_address}]:{_ours.probe_port}"]  # the worker gives the second to the probes
worker_connections = 2000 + _ours.max_in_flight  # those that wait for their client, and those with a request in work
forwarded_allow_ips = _ours.trusted_proxies or ""
worker_tmp_dir = "/dev/shm"  # noqa: S108  the heartbeat file must not wait for a disk; gunicorn makes it privately
control_socket_disable = True  # a second way to control the API is not needed
keepalive = 75  # longer than the 60 s of common load balancers, which must close first
graceful_timeout = 20
limit_request_line = 4096
limit_request_fields = 100
limit_request_field_size = 8192
logger_class = Logger
loglevel = _ours.log_level.lower()
proc_name = "fraud-detection"


def on_starting(_arbiter: object) -> None:
    """Set up logging and file modes in the parent; the worker inherits both."""
    _check_ports()
    share_with_group()  # gunicorn's own setting `umask` is only for its sockets and heartbeat files
    logs.configure(_ours.log_level, _ours.log_format)


def _check_ports() -> None:
    """Exit if a port cannot be opened; gunicorn, which opens them next, would try for five seconds and exit with 1."""
    if "GUNICORN_FD" in os.environ:  # they are open: gunicorn replaces its own program
        return
    try:
        listening.require_ports(_ours)
    except BadSetting as error:
        _give_up(error)


def post_fork(_arbiter: object, _worker: object) -> None:
    """Log from a thread, which the parent must not do; allow a descriptor per connection."""
    logs.configure(_ours.log_level, _ours.log_format, is_queued=True)
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 65_536), hard))


def worker_exit(_arbiter: object, worker: Any) -> None:
    """Close the application: store queued requests, close the database."""
    close = getattr(getattr(worker, "wsgi", None), "close", None)
    if close is not None:
        close()


def on_exit(_arbiter: object) -> None:
    """Exit with the status that the worker left."""
    server.exit_with_status()
