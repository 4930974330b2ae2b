"""One line an event: JSON for machines, readable text on a terminal, and never a blocked request."""

import atexit
import contextlib
import io
import json
import logging
import logging.handlers
import os
import queue
import sys
from datetime import UTC, datetime
from typing import Literal

_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


class JsonFormatter(logging.Formatter):
    """A record as one line of JSON; what a call gives as `extra` becomes fields."""

    def format(self, record: logging.LogRecord) -> str:
        """Render the record."""
        event: dict[str, object] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
        }
        event.update({name: value for name, value in vars(record).items() if name not in _STANDARD})
        if record.exc_info:
            event["traceback"] = self.formatException(record.exc_info)
        return json.dumps(event, default=str)


class _DroppingHandler(logging.handlers.QueueHandler):
    """Hands records to the writing thread and drops them when that is stuck, so that logging blocks nobody."""

    dropped = 0

    def enqueue(self, record: logging.LogRecord) -> None:
        """Queue or drop."""
        try:
            self.queue.put_nowait(record)
        except queue.Full:
            self.dropped += 1

    def prepare(self, record: logging.LogRecord) -> logging.LogRecord:
        """Leave the record whole: the formatter on the other side renders the traceback."""
        return record


class _DescriptorHandler(logging.Handler):
    """Writes each record with one call of the system, past Python's buffered stream.

    A process that is forked while another thread writes inherits the lock of that stream closed, and would wait for it
    for ever when it ends; a server forks its worker.
    """

    def __init__(self, descriptor: int) -> None:
        super().__init__()
        self._descriptor = descriptor

    def emit(self, record: logging.LogRecord) -> None:
        """Write the record."""
        with contextlib.suppress(OSError):  # whoever read the log is gone
            os.write(self._descriptor, f"{self.format(record)}\n".encode(errors="backslashreplace"))


def configure(level: str, log_format: str, *, is_queued: bool = False) -> None:
    """Send the log to standard error; `log_format` is auto, json or text. A second call replaces the first.

    With `is_queued` a thread writes, so that a stuck reader of the log blocks nobody; a process that forks does better
    without one, since its children get no threads.
    """
    stream = _to_stderr()
    stream.setFormatter(_formatter(log_format))
    handler: logging.Handler = stream
    if is_queued:
        handler = _DroppingHandler(queue.Queue(10_000))
        listener = logging.handlers.QueueListener(handler.queue, stream)
        listener.start()
        atexit.register(listener.stop)  # what is queued is written before the process ends
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    logging.getLogger("alembic").setLevel("WARNING")  # its lines about each start tell nobody anything


def _to_stderr() -> logging.Handler:
    try:
        return _DescriptorHandler(sys.stderr.fileno())
    except io.UnsupportedOperation:  # a stream in memory, which tests put in its place
        return logging.StreamHandler(sys.stderr)


def _formatter(log_format: str) -> logging.Formatter:
    chosen: Literal["json", "text"] = "json"
    if log_format == "text" or (log_format == "auto" and sys.stderr.isatty()):
        chosen = "text"
    if chosen == "json":
        return JsonFormatter()
    return logging.Formatter("%(asctime)s %(levelname)-7s %(message)s", datefmt="%H:%M:%S")
