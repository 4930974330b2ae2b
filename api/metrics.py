"""GET /metrics: what the API counts, with names and labels from fixed sets only."""

import bisect
import itertools
import math
import shutil
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Literal, get_args

import flask
import pysqlite3
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Info, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from prometheus_client.registry import Collector

from api.connections import Connections, Outcome, State
from api.scopes import needs
from fraud_detection.database import Trouble
from fraud_detection.logs import dropped_lines
from fraud_detection.model.read import RefusalReason

# Buckets are narrow where most scores of a forest lie (below 0.05) and where thresholds lie (0.2 to 0.6).
_SCORE_BUCKETS = (0.001, 0.005, 0.01, 0.02, 0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99, 1.0)
_SECONDS_BUCKETS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0)
_BATCH_BUCKETS = (1, 2, 4, 8, 16, 32, 64, 128)
_STATUS_CLASSES = ("2xx", "3xx", "4xx", "5xx")


class Metrics:
    """The metrics of one application, in a registry of its own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.scraped_at = 0.0  # on the monotonic clock
        ProcessCollector(registry=self.registry)
        self._predictions = self._counter("predictions", "Transactions scored, by decision.", "decision")
        self._flagged = self._predictions.labels("flagged")
        self._passed = self._predictions.labels("passed")
        self.suspicious_rows = self._counter(
            "fraud_suspicious_rows",
            "Transactions scored with a value outside the range in which its feature was seen.",
        )
        self._scores = ScoreHistogram()
        self.registry.register(self._scores)
        self._seconds = self._histogram(
            "fraud_request_seconds",
            "Time from the end of the request header to the start of the reply.",
            _SECONDS_BUCKETS,
            "handler",  # not "endpoint", which Prometheus itself sets on what a ServiceMonitor finds
            "status",
        )
        self._request_seconds: dict[tuple[str, str], Histogram] = {}
        self._add_handler("other")
        self._rejected = self._counter("fraud_rejected_requests", "Requests that were rejected.", "reason")
        self._authenticated = self._counter("fraud_auth_requests", "Requests by token (never its value).", "token_id")
        self.token_reload_failures = self._counter(
            "fraud_token_reload_failures", "Reads of a token file that found no usable token.", "token_id"
        )
        self.audit_lines_left_out = self._counter(
            "fraud_audit_lines_left_out",
            "Refused requests without a line of their own in the log: more than ten of a name in a second.",
        )
        self.registry.register(DroppedLines())
        self.short_tokens = self._gauge("fraud_short_tokens", "Valid tokens that are shorter than a new one may be.")

        self.rows_stored = self._counter("fraud_rows_stored", "Rows committed by this process.")
        self.queue_requests = self._gauge("fraud_writer_queue_requests", "Requests waiting for the writer.")
        self.queue_refused = self._counter(
            "fraud_writer_queue_refused", "Requests rejected because the queue was full."
        )
        self.batch_requests = self._histogram(
            "fraud_writer_batch_requests", "Requests stored by one commit.", _BATCH_BUCKETS
        )
        self.commit_seconds = self._histogram(
            "fraud_commit_seconds", "Time from BEGIN to the end of COMMIT, one transaction.", _SECONDS_BUCKETS
        )
        self.batch_fallbacks = self._counter(
            "fraud_writer_batch_fallback", "Batches repeated request by request because one of them failed."
        )
        self.late_commits = self._counter("fraud_late_commit", "Requests stored after the API replied 503.")
        self.storage_errors = self._counter("fraud_storage_errors", "Database transactions that failed.", "reason")
        self.storage_ok = self._gauge("fraud_storage_ok", "1 if the last attempt to commit succeeded.")
        self.wal_bytes = self._gauge("fraud_wal_bytes", "Size of SQLite's write-ahead log.")
        self.checkpoint_seconds = self._histogram(
            "fraud_checkpoint_seconds", "Time of a checkpoint that empties the write-ahead log.", _SECONDS_BUCKETS
        )
        self.checkpoints_busy = self._counter("fraud_checkpoint_busy", "Checkpoints that a reader prevented.")
        self.rows_expired = self._counter("fraud_rows_expired", "Rows deleted because of RETENTION_DAYS.")
        Info("fraud_sqlite", "The SQLite library.", registry=self.registry).info({"version": pysqlite3.sqlite_version})

        self.model_info = Info("fraud_model", "The current model.", registry=self.registry)
        self.model_created = self._gauge(
            "fraud_model_created_timestamp_seconds", "Time at which the current model was made."
        )
        self.model_refused = self._counter("fraud_model_refused", "Model versions refused.", "reason")

        # Create at start: a counter that first appears as 1 has not risen, so no alert would see it.
        for counter, values in (
            (self._authenticated, ("current", "previous")),
            (self.token_reload_failures, ("current", "previous", "METRICS_TOKEN", "named")),
            (self.storage_errors, get_args(Trouble)),
            (self.model_refused, get_args(RefusalReason)),
            (self._rejected, ("unauthorized", "forbidden")),
        ):
            for value in values:
                counter.labels(value)

    def name_handlers(self, paths: Iterable[str]) -> None:
        """Measure the requests of these routes apart, each under its handler; all others and those of / are "other"."""
        for path in paths:
            if path != "/":
                self._add_handler(_handler_of(path))

    def _add_handler(self, handler: str) -> None:
        # Every pair from the start: looking a child up costs as much as counting, and rates begin at 0.
        for status in _STATUS_CLASSES:
            self._request_seconds[handler, status] = self._seconds.labels(handler, status)

    def watch_volume(self, folder: Path) -> None:
        """Report at each scrape how full a folder's volume is; kubelets do not report every volume."""

        def bytes_of(kind: Literal["free", "total"]) -> float:
            try:
                return float(getattr(shutil.disk_usage(folder), kind))
            except OSError:  # the other metrics matter most when the volume is missing
                return math.nan

        size = self._gauge("fraud_volume_size_bytes", "Size of the volume that holds the database.")
        size.set_function(lambda: bytes_of("total"))
        free = self._gauge("fraud_volume_free_bytes", "Bytes left on the volume that holds the database.")
        free.set_function(lambda: bytes_of("free"))

    def watch_connections(self, connections: Connections) -> None:
        """Report at each scrape what became of the connections."""
        self.registry.register(ConnectionFigures(connections))

    def _counter(self, name: str, meaning: str, *labels: str) -> Counter:
        return Counter(name, meaning, labels, registry=self.registry)

    def _gauge(self, name: str, meaning: str) -> Gauge:
        return Gauge(name, meaning, registry=self.registry)

    def _histogram(self, name: str, meaning: str, buckets: Sequence[float], *labels: str) -> Histogram:
        return Histogram(name, meaning, labels, registry=self.registry, buckets=buckets)

    def count_predictions(self, scores: Sequence[float], flagged: int) -> None:
        """Count the transactions of one stored request, `flagged` of which were flagged."""
        self._flagged.inc(flagged)
        self._passed.inc(len(scores) - flagged)
        self._scores.observe(scores)

    def count_rejection(self, reason: str) -> None:
        """Count a rejected request; `reason` is one of our error codes, never something a client sent."""
        self._rejected.labels(reason).inc()

    def requests_of(self, token_id: str) -> Counter:
        """Return the counter of requests with a token, so that you see when no client uses the old one."""
        return self._authenticated.labels(token_id)

    def forget_token(self, token_id: str) -> None:
        """Remove the series of a token that is no longer valid."""
        self._authenticated.remove(token_id)

    def observe_request(self, path: str, status: str, seconds: float) -> None:
        """Note how long a request took; `status` begins with its three digits."""
        key = (_handler_of(path), f"{status[0]}xx")
        child = self._request_seconds.get(key) or self._request_seconds["other", key[1]]
        child.observe(seconds)

    def handler(self, path: str) -> str:
        """Return the name under which the requests of a path are counted; it holds nothing that a client chose."""
        name = _handler_of(path)
        return name if (name, "2xx") in self._request_seconds else "other"


def _handler_of(path: str) -> str:
    """Return the first part of a path, which names its route."""
    return path[1:].partition("/")[0]


class ScoreHistogram(Collector):
    """Counts scores, a thousand in the time in which prometheus_client's own histogram counts fifty."""

    def __init__(self) -> None:
        self._counts = [0] * (len(_SCORE_BUCKETS) + 1)  # the last one stays empty: no score is above 1
        self._sum = 0.0

    def observe(self, scores: Sequence[float]) -> None:
        """Count scores, each from 0 to 1."""
        for score in scores:
            self._counts[bisect.bisect_left(_SCORE_BUCKETS, score)] += 1
        self._sum += sum(scores)

    def collect(self) -> Iterator[HistogramMetricFamily]:
        """Return how many scores were at most each bound."""
        bounds = [*map(str, _SCORE_BUCKETS), "+Inf"]
        buckets = list(zip(bounds, itertools.accumulate(self._counts), strict=True))
        yield HistogramMetricFamily("fraud_probabilities", "Scores answered.", buckets, self._sum)


class DroppedLines(Collector):
    """Reads at each scrape what the log counts, which does not know of metrics."""

    def collect(self) -> Iterator[CounterMetricFamily]:
        """Return how many lines were dropped."""
        yield CounterMetricFamily(
            "fraud_log_lines_dropped", "Lines of the log dropped, because its reader was stuck.", dropped_lines()
        )


class ConnectionFigures(Collector):
    """Counts connections when Prometheus asks, so that a connection costs no more than an addition."""

    def __init__(self, connections: Connections) -> None:
        self._connections = connections

    def collect(self) -> Iterator[Metric]:
        """Return how many connections are open, by state, and have ended, by outcome."""
        states = self._connections.states()
        is_open = GaugeMetricFamily("fraud_connections", "Open connections, by what they do.", labels=["state"])
        for state in get_args(State):
            is_open.add_metric([state], states[state])
        yield is_open
        yield GaugeMetricFamily(
            "fraud_connections_limit", "Open connections at which one must go.", self._connections.limit
        )
        ended = CounterMetricFamily("fraud_connections_ended", "Connections that ended, by reason.", labels=["outcome"])
        for outcome in get_args(Outcome):
            ended.add_metric([outcome], self._connections.ended[outcome])
        yield ended


def blueprint(metrics: Metrics) -> flask.Blueprint:
    """Serve GET /metrics in Prometheus's text format."""
    routes = flask.Blueprint("metrics", __name__)

    @routes.get("/metrics")
    @needs("metrics")
    def show_metrics() -> flask.Response:
        metrics.scraped_at = time.monotonic()
        return flask.Response(generate_latest(metrics.registry), content_type=CONTENT_TYPE_LATEST)

    return routes
