"""The application that gunicorn's worker calls: the API, and what only a server needs around it."""

import os
import sys

from api.app import Api, create_app
from api.health import ProbeServer
from api.server import halt
from fraud_detection.environment import BadSetting
from fraud_detection.exit_codes import ExpectedError
from fraud_detection.settings import ApiSettings


def serve() -> Api:
    """Start the API in this process; if it cannot start, print one line to stderr and end the whole server."""
    try:
        settings = ApiSettings.from_env(os.environ)
        app = create_app(settings, give_up=halt)
        _answer_probes(app, settings)
    except ExpectedError as error:
        sys.stderr.write(f"fraud-detection cannot start: {error}\n")
        halt(error.exit_code)
    if settings.rollout_mode == "reload":
        app.served.watch()
    return app


def _answer_probes(app: Api, settings: ApiSettings) -> None:
    try:
        probes = ProbeServer(settings.host, settings.probe_port, app.health)
    except OSError as error:
        app.close()
        raise BadSetting(
            f"PROBE_PORT: {settings.probe_port} cannot be opened ({error.strerror}); choose another port"
        ) from error
    probes.start()
    app.at_the_end.callback(probes.close)
