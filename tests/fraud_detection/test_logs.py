"""Logs are JSON lines or readable text, in every process."""

import json
import logging
import subprocess
import sys

import pytest

from fraud_detection.logs import JsonFormatter
from tests.support.waiting import PATIENCE_SECONDS

PROGRAM = """
import logging
from fraud_detection.logs import configure
configure("INFO", {form!r}, is_queued={queued})
logging.getLogger("service").info("ready", extra={{"port": 5000}})
logging.getLogger("service").debug("not shown")
try:
    1 / 0
except ZeroDivisionError:
    logging.getLogger("service").exception("failed")
"""


def written(form: str, *, queued: bool = False) -> str:
    return subprocess.run(
        [sys.executable, "-c", PROGRAM.format(form=form, queued=queued)], check=True, capture_output=True, text=True
    ).stderr


@pytest.mark.parametrize("queued", [False, True])
def test_json_is_one_line_per_event_with_its_fields(queued: bool) -> None:
    lines = written("auto", queued=queued).splitlines()

    ready, failed = (json.loads(line) for line in lines)
    assert (ready["message"], ready["level"], ready["port"]) == ("ready", "INFO", 5000)
    assert "ZeroDivisionError" in failed["traceback"]


def test_text_is_readable() -> None:
    assert "INFO    ready\n" in written("text")


def test_a_value_json_does_not_know_becomes_text() -> None:
    record = logging.makeLogRecord({"msg": "x", "path": {1, 2}.__class__})

    assert json.loads(JsonFormatter().format(record))["path"] == "<class 'set'>"


CHILD = """
import logging, os, sys, threading
from fraud_detection.logs import configure
configure("INFO", "json")
before = threading.active_count()
for number in range(100):
    logging.getLogger("parent").info("a line at the moment of the fork")
    child = os.fork()
    if child == 0:
        configure("INFO", "json", is_queued=True)
        logging.getLogger("child").info("alive")
        sys.exit()
    os.waitpid(child, 0)
print(before)
"""


def test_a_process_that_forks_logs_without_a_thread_and_its_children_log_too() -> None:
    ended = subprocess.run(
        [sys.executable, "-c", CHILD], check=True, capture_output=True, text=True, timeout=PATIENCE_SECONDS
    )

    assert ended.stdout == "1\n"
    assert ended.stderr.count('"alive"') == 100


STUCK = """
import logging, sys
from fraud_detection.logs import configure, dropped_lines
configure("INFO", "json", is_queued=True)
for number in range(15_000):
    logging.getLogger("any").info("a line that fills the pipe")
logging.getLogger("audit").info("who did what", extra={"event": "look-up"})
print(dropped_lines(), flush=True)
"""


def test_a_flood_while_the_reader_is_stuck_is_counted_and_pushes_no_audit_out() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", STUCK], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        dropped = int(process.stdout.readline())
        _, log = process.communicate(timeout=PATIENCE_SECONDS)

    assert 0 < dropped < 5_000 + 1
    assert log.count("a line that fills the pipe") == 15_000 - dropped
    assert log.count('"event": "look-up"') == 1
