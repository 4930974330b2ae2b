"""Configures gunicorn for the benchmark: our settings, but another application and as many processes as wanted."""

import os

from api.gunicorn_conf import *  # noqa: F403  every setting and hook of ours

wsgi_app = os.environ["BENCH_APPLICATION"]
workers = int(os.environ["BENCH_PROCESSES"])
