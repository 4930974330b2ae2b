"""Sets up logging, one line per event: JSON for machines, text on a terminal, never blocking a request."""

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

_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


class JsonFormatter(logging.Formatter):
    """Renders a record as one line of JSON; `extra` of a call becomes fields."""

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


_QUEUED_LINES = 10_000
_QUEUED_LINES_WITH_AUDIT = 20_000  # so that no flood of other lines pushes out who did what

_dropped = 0


def dropped_lines() -> int:
    """Return how many lines this process has dropped because the reader of its log was stuck."""
    return _dropped


class _DroppingHandler(logging.handlers.QueueHandler):
    """Passes records to the writing thread and drops them if that is stuck, so that logging never blocks."""

    def enqueue(self, record: logging.LogRecord) -> None:
        """Queue a record, or drop it if too many wait; those of the audit, which have an `event`, find room longer."""
        global _dropped  # noqa: PLW0603  a process has one log
        room = _QUEUED_LINES_WITH_AUDIT if hasattr(record, "event") else _QUEUED_LINES
        if self.queue.qsize() < room:  # type: ignore[attr-defined]  # a Queue, which `configure` gives
            self.queue.put_nowait(record)
        else:
            _dropped += 1

    def prepare(self, record: logging.LogRecord) -> logging.LogRecord:
        """Return the record unchanged: the formatter in the other thread renders the traceback."""
        return record


class _DescriptorHandler(logging.Handler):
    """Writes each record with one system call, bypassing Python's buffered stream.

    A process forked while another thread writes would inherit that stream's lock held, and hang on it at its end. A
    server forks its worker.
    """

    def __init__(self, descriptor: int) -> None:
        super().__init__()
        self._descriptor = descriptor

    def emit(self, record: logging.LogRecord) -> None:
        """Write the record."""
        with contextlib.suppress(OSError):  # the reader of the log is gone
            os.write(self._descriptor, f"{self.format(record)}\n".encode(errors="backslashreplace"))


def configure(level: str, log_format: str, *, is_queued: bool = False) -> None:
    """Send the log to standard error; `log_format` is auto, json or text. A second call replaces the first.

    With `is_queued` a thread writes, so that a stuck reader of the log blocks no request. A process that forks must not
    use it, because its children get no threads.
    """
    stream = _to_stderr()
    stream.setFormatter(_formatter(log_format))
    handler: logging.Handler = stream
    if is_queued:
        handler = _DroppingHandler(queue.Queue())
        listener = logging.handlers.QueueListener(handler.queue, stream)
        listener.start()
        atexit.register(listener.stop)  # writes queued records before the process ends
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    logging.getLogger("alembic").setLevel("WARNING")  # its lines at each start carry no information


def is_text(log_format: str) -> bool:
    """Return whether a log of this format is text for people, which `auto` decides by the terminal."""
    return log_format == "text" or (log_format == "auto" and sys.stderr.isatty())


def _to_stderr() -> logging.Handler:
    try:
        return _DescriptorHandler(sys.stderr.fileno())
    except io.UnsupportedOperation:  # a stream in memory, which tests use
        return logging.StreamHandler(sys.stderr)


def _formatter(log_format: str) -> logging.Formatter:
    if is_text(log_format):
        return logging.Formatter("%(asctime)s %(levelname)-7s %(message)s", datefmt="%H:%M:%S")
    return JsonFormatter()
