"""The application that gunicorn's worker calls: the API, and what only a server needs around it."""

import os
import sys

from api.app import Api, create_app
from api.server import halt
from fraud_detection.environment import BadSetting
from fraud_detection.exit_codes import ExpectedError
from fraud_detection.settings import ApiSettings


def serve() -> Api:
    """Start the API in this process; if it cannot start, print one line to stderr and end the whole server."""
    try:
        if "api.gunicorn_conf" not in sys.modules:
            raise BadSetting("the API needs its own settings of gunicorn; start it with `python -m api`")
        settings = ApiSettings.from_env(os.environ)
        app = create_app(settings, give_up=halt)
    except ExpectedError as error:
        sys.stderr.write(f"fraud-detection cannot start: {error}\n")
        halt(error.exit_code)
    if settings.rollout_mode == "reload":
        app.served.watch()
    return app
