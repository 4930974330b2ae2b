import json
import logging
import subprocess
import sys

from fraud_detection.logs import JsonFormatter

PROGRAM = """
import logging
from fraud_detection.logs import configure
configure("INFO", {form!r})
logging.getLogger("service").info("ready", extra={{"port": 5000}})
logging.getLogger("service").debug("not shown")
try:
    1 / 0
except ZeroDivisionError:
    logging.getLogger("service").exception("failed")
"""


def written(form: str) -> str:
    return subprocess.run(
        [sys.executable, "-c", PROGRAM.format(form=form)], check=True, capture_output=True, text=True
    ).stderr


def test_json_is_one_line_an_event_with_its_fields() -> None:
    lines = written("auto").splitlines()

    ready, failed = (json.loads(line) for line in lines)
    assert (ready["message"], ready["level"], ready["port"]) == ("ready", "INFO", 5000)
    assert "ZeroDivisionError" in failed["traceback"]


def test_text_is_readable() -> None:
    assert "INFO    ready\n" in written("text")


def test_a_value_json_does_not_know_becomes_text() -> None:
    record = logging.makeLogRecord({"msg": "x", "path": {1, 2}.__class__})

    assert json.loads(JsonFormatter().format(record))["path"] == "<class 'set'>"
