"""`python -m bench.compare`: the service, the naive application and an empty route under the same load, by turns.

Every server runs on 127.0.0.1 only, ours and the naive one with the very same forest and every row on the disk
before its answer. Rounds alternate, so that a noisy minute of the machine does not hit one of them alone; the table
shows medians. After the last round the stored rows are counted and the scores compared with scikit-learn's.
"""

import argparse
import contextlib
import importlib.metadata
import os
import pickle
import platform
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from statistics import median

import pysqlite3

from bench.load import BrokenServer, Question, Round, drive, question, wrong_answers
from fraud_detection.features import Matrix, default_features
from fraud_detection.model.files import PICKLE
from jobs.synthetic.baseline import seed_baseline
from jobs.synthetic.statistics import PUBLIC_STATISTICS, read_statistics
from jobs.synthetic.transactions import synthetic

ROOT = Path(__file__).parent.parent
RESULTS = Path(__file__).with_name("results.md")
TOKEN = "for-the-benchmark-only"  # noqa: S105  protects nothing
TRAINING_ROWS = 20_000
START_SECONDS = 30
LARGE_REQUEST_ROWS = 1000
LIBRARIES = ("flask", "gunicorn", "gevent", "numpy", "onnxruntime", "scikit-learn", "sqlalchemy")


@dataclass
class Server:
    """A running server under test and what the client has seen of it."""

    title: str
    processes: int
    port: int
    database: Path | None
    """Where it stores what it scores; None for the empty route."""
    small: list[Round] = field(default_factory=list)
    large: list[Round] = field(default_factory=list)
    rows_answered: int = 0
    wrong_answers: int = 0

    def ask(self, questions: Sequence[Question], *, connections: int, seconds: float) -> Round:
        """Drive the server for a while and keep account of what it answered."""
        seen = drive(self.port, questions, connections=connections, seconds=seconds)
        if self.database is not None:
            self.wrong_answers += wrong_answers(questions, seen.answers)
        self.rows_answered += sum(
            len(questions[answer.question].scores) for answer in seen.answers if answer.status == 200
        )
        return seen

    def rows_missing(self) -> int:
        """Rows that were answered but are not stored."""
        if self.database is None:
            return 0
        with contextlib.closing(pysqlite3.connect(self.database)) as database:
            stored: int = database.execute("SELECT COUNT(*) FROM requests").fetchone()[0]
        return self.rows_answered - stored


@dataclass(frozen=True)
class Plan:
    """How long and how often."""

    rounds: int
    seconds: float
    connections: int


def main(arguments: list[str] | None = None) -> int:
    """Run the comparison; exit code 1 when an answer was wrong or a row is missing."""
    parser = argparse.ArgumentParser(prog="python -m bench.compare", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=5, help="length of a round (default: %(default)s)")
    parser.add_argument("--connections", type=int, default=16)
    parser.add_argument("--write", action="store_true", help=f"also store the table as {RESULTS.relative_to(ROOT)}")
    given = parser.parse_args(arguments)
    plan = Plan(given.rounds, given.seconds, given.connections)
    with tempfile.TemporaryDirectory(prefix="fraud-bench-") as folder:
        servers = measure(Path(folder), plan)
        report = render(servers, plan)
        failures = [
            f"{server.title}: {server.wrong_answers} wrong answers, {server.rows_missing()} answered rows not stored"
            for server in servers
            if server.wrong_answers or server.rows_missing()
        ]
    print(report)
    print("\n".join(failures))
    if given.write and not failures:
        RESULTS.write_text(report + "\n", encoding="utf-8")
    return 1 if failures else 0


def measure(folder: Path, plan: Plan) -> list[Server]:
    """Start every server, let them take turns, stop them."""
    rows, scores = prepare(folder)
    small = [question([row], [score], token=TOKEN) for row, score in zip(rows[:500], scores, strict=False)]
    large = [
        question(rows[start : start + LARGE_REQUEST_ROWS], scores[start : start + LARGE_REQUEST_ROWS], token=TOKEN)
        for start in range(0, len(rows), LARGE_REQUEST_ROWS)
    ]
    with contextlib.ExitStack() as running:
        servers = [
            running.enter_context(server)
            for server in (
                gunicorn("ours", folder, "api.wsgi:serve()", processes=1, ours=True, stores=True),
                gunicorn("naive application", folder, "bench.naive_app:app", processes=2, ours=False, stores=True),
                gunicorn("naive application", folder, "bench.naive_app:app", processes=1, ours=False, stores=True),
                gunicorn("empty route", folder, "bench.empty_app:app", processes=1, ours=True, stores=False),
                gunicorn("empty route", folder, "bench.empty_app:app", processes=2, ours=True, stores=False),
            )
        ]
        for server in servers:
            server.ask(small, connections=plan.connections, seconds=1)  # the first requests load what is loaded late
        for _ in range(plan.rounds):
            for server in servers:
                server.small.append(server.ask(small, connections=plan.connections, seconds=plan.seconds))
        for _ in range(plan.rounds):
            for server in servers[:3]:
                server.large.append(server.ask(large, connections=4, seconds=plan.seconds / 2))
    return servers


def prepare(folder: Path) -> tuple[list[list[float]], list[float]]:
    """Make a model and an empty store; return rows to ask about and what scikit-learn scores them."""
    statistics = read_statistics(PUBLIC_STATISTICS)
    seed_baseline(
        folder / "baseline", default_features(), statistics, threshold=0.4, now=datetime.now(UTC), rows=TRAINING_ROWS
    )
    subprocess.run(
        [sys.executable, "-m", "api.bootstrap"], cwd=ROOT, env=environment(folder, "ours"), check=True, timeout=120
    )
    rows: Matrix = synthetic(4 * LARGE_REQUEST_ROWS, seed=3, statistics=statistics).matrix
    forest = pickle.loads((folder / "models" / PICKLE).read_bytes())  # noqa: S301  written by seed_baseline
    return rows.tolist(), forest.predict_proba(rows)[:, 1].tolist()


def environment(folder: Path, name: str) -> dict[str, str]:
    """What every server needs to know, and nothing of the caller's own settings."""
    return {
        "PATH": os.environ["PATH"],
        "API_TOKEN": TOKEN,
        "MODEL_PATH": str(folder / "models" / PICKLE),
        "BASELINE_DIR": str(folder / "baseline"),
        "LATEST_DB": str(folder / f"{name}.db"),
        "LOG_LEVEL": "WARNING",
    }


@contextlib.contextmanager
def gunicorn(
    title: str, folder: Path, application: str, *, processes: int, ours: bool, stores: bool
) -> Iterator[Server]:
    """Run an application on our gunicorn settings or on gunicorn's own with sync workers, until the block ends."""
    name = f"{title}-{processes}" if title != "ours" else title
    port, probe_port = free_port(), free_port()
    theirs = ["--no-control-socket", "-b", f"127.0.0.1:{port}", "-w", str(processes), application]
    with (folder / f"{name}.log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "gunicorn", *(["-c", "python:bench.gunicorn_conf"] if ours else theirs)],
            cwd=ROOT,
            env={
                **environment(folder, name),
                "PORT": str(port),
                "PROBE_PORT": str(probe_port),
                "BENCH_APPLICATION": application,
                "BENCH_PROCESSES": str(processes),
            },
            stdout=log,
            stderr=log,
        )
    try:
        wait_for(port, process, folder / f"{name}.log")
        yield Server(title, processes, port, folder / f"{name}.db" if stores else None)
    finally:
        process.terminate()
        try:
            process.wait(timeout=START_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def free_port() -> int:
    """Return a free port of the loopback."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


def wait_for(port: int, process: subprocess.Popen[bytes], log: Path) -> None:
    """Return when the server answers anything at all; raises BrokenServer with its log when it does not."""
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        with (
            contextlib.suppress(OSError),
            socket.create_connection(("127.0.0.1", port), timeout=START_SECONDS) as connection,
        ):
            connection.sendall(b"GET /health HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n")
            if connection.recv(1):
                return
        time.sleep(0.1)
    raise BrokenServer(f"the server did not start:\n{log.read_text(errors='replace')}")


def render(servers: Sequence[Server], plan: Plan) -> str:
    """The results as Markdown."""
    ours, naive, naive_alone, empty, _ = servers
    lines = [
        "# Benchmark",
        "",
        f"{plan.connections} connections, one row a request, {plan.rounds} alternating rounds of {plan.seconds:g} s, "
        "medians. Ours and the naive application",
        "serve the same forest of 100 trees and have every row on the disk before they answer.",
        "",
        "| Server | processes | requests/s | p50 ms | p99 ms | times naive |",
        "|---|---|---|---|---|---|",
        *(
            f"| {server.title} | {server.processes} | {speed(server):,.0f} | {latency(server, 50):.1f} "
            f"| {latency(server, 99):.1f} | {speed(server) / speed(naive):.1f} |"
            for server in servers
        ),
        "",
        f"Ours is {speed(ours) / speed(naive):.1f} times the naive application with two processes and "
        f"{speed(ours) / speed(empty):.2f} of an empty Flask route on the same",
        f"server settings; its p99 is {latency(ours, 99) / latency(ours, 50):.1f} times its p50.",
        "",
        f"Requests of {LARGE_REQUEST_ROWS:,} rows over 4 connections: "
        + ", ".join(
            f"{server.title} ({server.processes}) {rows_per_second(server):,.0f} rows/s"
            for server in (ours, naive, naive_alone)
        )
        + "; the number of processes in brackets.",
        "",
        f"Machine: {machine()}.",
    ]
    return "\n".join(lines)


def speed(server: Server) -> float:
    """Median of the requests a second of its rounds."""
    return median(seen.requests_per_second for seen in server.small)


def latency(server: Server, percent: float) -> float:
    """Median of that percentile, in milliseconds, of its rounds."""
    return median(seen.percentile_ms(percent) for seen in server.small)


def rows_per_second(server: Server) -> float:
    """Median of the rows a second of its rounds of large requests."""
    return LARGE_REQUEST_ROWS * median(seen.requests_per_second for seen in server.large)


def machine() -> str:
    """What the figures depend on and a reader needs to judge them; no name of the machine."""
    cores = len(os.sched_getaffinity(0))
    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in LIBRARIES)
    return (
        f"{cores} cores shared with the client, {platform.system()} {platform.release()}, "
        f"Python {platform.python_version()}, SQLite {pysqlite3.sqlite_version}, {versions}"
    )


if __name__ == "__main__":
    sys.exit(main())
