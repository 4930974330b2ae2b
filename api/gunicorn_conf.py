"""How gunicorn serves: `gunicorn -c python:api.gunicorn_conf`; everything else comes from our own variables."""

import os
import resource
import sys
from typing import Any

from gunicorn import glogging

from api import server
from fraud_detection import logs
from fraud_detection.file_modes import share_with_group
from fraud_detection.settings import ApiSettings, BadSetting


def _settings() -> ApiSettings:
    try:
        return ApiSettings.from_env(os.environ)
    except BadSetting as error:
        sys.stderr.write(f"fraud-detection cannot start: {error}\n")
        sys.exit(2)


class Logger(glogging.Logger):  # type: ignore[misc]  # gunicorn ships no types
    """What gunicorn itself has to say goes the way of our own log; it writes no line for each request."""

    def setup(self, cfg: Any) -> None:
        """Pass everything on to the root logger."""
        super().setup(cfg)
        self.error_log.handlers.clear()
        self.error_log.propagate = True


_ours = _settings()

wsgi_app = "api.wsgi:serve()"
worker_class = server.Worker
workers = 1  # one process writes; the database's queue between processes is a poll that starves some
bind = f"{_ours.host}:{_ours.port}"
worker_connections = 1000
worker_tmp_dir = "/dev/shm"  # noqa: S108  the heartbeat file must not wait for a disk; gunicorn makes it privately
control_socket_disable = True  # a second way to command the service, which nobody needs
keepalive = 75  # longer than the 60 s of common load balancers, which must be the ones to hang up
graceful_timeout = 20
limit_request_line = 4096
limit_request_fields = 100
limit_request_field_size = 8192
logger_class = Logger
loglevel = _ours.log_level.lower()
proc_name = "fraud-detection"


def on_starting(_arbiter: object) -> None:
    """Log in the parent as everywhere, and make files as everywhere; the worker inherits both."""
    share_with_group()  # gunicorn's own setting `umask` is only for its sockets and heartbeat files
    logs.configure(_ours.log_level, _ours.log_format)


def post_fork(_arbiter: object, _worker: object) -> None:
    """Log from a thread, which the parent must not; allow a descriptor for each of `worker_connections`."""
    logs.configure(_ours.log_level, _ours.log_format, is_queued=True)
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 65_536), hard))


def worker_exit(_arbiter: object, worker: Any) -> None:
    """Let the application end in order: store what waits, close the database."""
    close = getattr(getattr(worker, "wsgi", None), "close", None)
    if close is not None:
        close()


def on_exit(_arbiter: object) -> None:
    """Tell whoever started the service why it ended."""
    server.exit_with_status()
