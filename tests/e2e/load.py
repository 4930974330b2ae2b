"""A client of the API that scores at a constant rate until it is sent SIGTERM; runs in a pod, as real clients do.

Each of its threads keeps one connection. It prints one line of JSON for each transaction: what was answered, or what
went wrong. Without further attempts the first thing that goes wrong is what is printed.
"""

import argparse
import contextlib
import json
import os
import signal
import sys
import threading
import time
import uuid
from pathlib import Path
from typing import Any

import requests
from requests.adapters import HTTPAdapter
from urllib3.util.retry import Retry

TIMEOUTS_SECONDS = (5, 15)


def main() -> None:
    """Read the command line, and score until SIGTERM."""
    parser = argparse.ArgumentParser(description="Score transactions at a constant rate until SIGTERM.")
    parser.add_argument("--rows", type=Path, required=True, help="JSON file of transactions, taken in turn")
    parser.add_argument("--name", required=True, help="what their transaction ids begin with")
    parser.add_argument("--rate", type=float, required=True, help="requests a second")
    parser.add_argument("--connections", type=int, required=True, help="connections, and requests under way at most")
    parser.add_argument("--attempts", type=int, required=True, help="how often a transaction is tried, with one key")
    given = parser.parse_args()
    rows = json.loads(given.rows.read_text())
    told_to_stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: told_to_stop.set())
    began = time.monotonic()
    sent: list[str] = []

    def score_every_nth(first: int) -> None:
        with _session(given.attempts) as session:
            number = first
            while not told_to_stop.wait(max(0.0, began + number / given.rate - time.monotonic())):
                name = f"{given.name}-{number}"
                _print({"transaction_id": name, **_score(session, name, rows[number % len(rows)])})
                sent.append(name)
                number += given.connections

    threads = [threading.Thread(target=score_every_nth, args=(first,)) for first in range(given.connections)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    _print({"seconds": time.monotonic() - began, "sent": len(sent)})


def _session(attempts: int) -> requests.Session:
    session = requests.Session()
    session.headers["Authorization"] = f"Bearer {os.environ['API_TOKEN']}"
    retries = Retry(
        total=attempts - 1, backoff_factor=0.2, backoff_max=2, status_forcelist=[503], allowed_methods=["POST"]
    )
    session.mount("http://", HTTPAdapter(pool_connections=1, pool_maxsize=1, max_retries=retries))
    return session


def _score(session: requests.Session, name: str, row: list[float]) -> dict[str, Any]:
    started = time.monotonic()
    found: dict[str, Any] = {"at": time.time()}
    try:
        answer = session.post(
            f"{os.environ['API_URL']}/predict",
            json={"data": [row], "transaction_ids": [name]},
            headers={"Idempotency-Key": str(uuid.uuid4())},
            timeout=TIMEOUTS_SECONDS,
        )
        found["status"] = answer.status_code
        if answer.status_code == 200:
            document = answer.json()
            found |= {"request_id": document["request_id"], "score": document["fraud_probability"][0]}
            found["digest"] = answer.headers["X-Model-Digest"][:12]
        else:
            found["problem"] = answer.text
    except (requests.RequestException, ValueError, LookupError) as error:
        found["problem"] = f"{type(error).__name__}: {error}"
    return found | {"took": round(time.monotonic() - started, 4)}


_one_at_a_time = threading.Lock()


def _print(line: dict[str, Any]) -> None:
    with _one_at_a_time, contextlib.suppress(BrokenPipeError):
        sys.stdout.write(json.dumps(line, separators=(",", ":")) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
