"""`python -m api`: create what is missing, then become the server; containers run this."""

import os
import sys

from api import bootstrap, surroundings
from fraud_detection.configuration import read_configuration
from fraud_detection.exit_codes import ExpectedError
from fraud_detection.settings import ApiSettings

SERVER = [sys.executable, "-m", "gunicorn", "-c", "python:api.gunicorn_conf"]


def prepare() -> int:
    """Create what an installation needs; return 2 for a wrong configuration, otherwise as `python -m api.bootstrap`."""
    try:
        surroundings.check_variables(os.environ)
        read_configuration(ApiSettings.from_env(os.environ))  # before it creates anything
    except ExpectedError as error:
        sys.stderr.write(f"fraud-detection cannot start: {error}\n")
        return error.exit_code
    return bootstrap.main()


if __name__ == "__main__":
    exit_code = prepare()
    if exit_code:
        sys.exit(exit_code)
    os.execv(sys.executable, SERVER)  # noqa: S606  this process becomes the server, so that signals reach it
