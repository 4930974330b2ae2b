"""Make the fixtures of this folder, an installation and its backup, with the code of an older commit.

    .venv/bin/python -m tests.compatibility.make_fixtures

Only programs of that commit write what is packed. Run it again only if the fixtures must hold more than they do:
identifiers and times differ in each run.
"""

import contextlib
import csv
import json
import os
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from tests.compatibility.older_installation import ARCHIVE, BODY, KEY, VARIABLES
from tests.support.client import ask
from tests.support.installation import FEATURES, made_up
from tests.support.ports import free_port
from tests.support.project import ROOT
from tests.support.waiting import PATIENCE_SECONDS, answers, wait_until

COMMIT = "af489ea7431797f22468e5720f042b5f95e59145"
"""The last commit before jobs, store and model became packages."""

MOST_BYTES = 1_000_000


def main() -> None:
    """Write the archive, or say why it may not be written."""
    with tempfile.TemporaryDirectory(prefix="older-") as scratch:
        older = Path(scratch) / "code"
        subprocess.run(["git", "worktree", "add", "--quiet", "--detach", older, COMMIT], cwd=ROOT, check=True)
        try:
            made = Path(scratch) / "installation"
            make(made, older)
            pack(made)
        finally:
            subprocess.run(["git", "worktree", "remove", "--force", older], cwd=ROOT, check=True)
    print(f"{ARCHIVE.relative_to(ROOT)}: {ARCHIVE.stat().st_size:,} bytes")


def make(folder: Path, older: Path) -> None:
    """Walk once round the loop with the older code: import, train, serve, label, compare, train again, back up."""
    folder.mkdir()
    ports = {"PORT": free_port(), "PROBE_PORT": free_port()}
    url = f"http://127.0.0.1:{ports['PORT']}"
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(older), **VARIABLES, **ports, "API_URL": url}

    def fraudctl(*arguments: str) -> str:
        command = [sys.executable, "-m", "fraudctl", *arguments]
        done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    (folder / "features.json").write_text(json.dumps({"features": [{"name": name} for name in FEATURES.names]}))
    write_history(folder / "history.csv")
    fraudctl("import-csv", "history.csv")
    (folder / "history.csv").unlink()
    fraudctl("retrain", "--force")
    with serving(environment, folder, url):
        answers = use(url)
    fraudctl("drift")
    fraudctl("retrain", "--force")
    with serving(environment, folder, url):
        answers["model"] = answer(url, "GET", "/model")
        answers["scored"] = answer(url, "POST", "/predict", {"data": BODY["data"]})
    fraudctl("drift")
    fraudctl("db", "backup", "backup.tar")
    (folder / "answers.json").write_text(json.dumps(answers, indent=1))


def write_history(path: Path) -> None:
    """Write labelled transactions, one a minute, that are older than every label maturity."""
    matrix, is_fraud = made_up(1000, seed=1)
    start = datetime(2026, 1, 1, tzinfo=UTC)
    with path.open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["ts", "transaction_id", *FEATURES.names, "Class"])
        for number, (row, truth) in enumerate(zip(matrix.tolist(), is_fraud.tolist(), strict=True)):
            moment = (start + timedelta(minutes=number)).isoformat(sep=" ")
            table.writerow([moment, f"history-{number}", *row, int(truth)])


@contextlib.contextmanager
def serving(environment: Mapping[str, str], folder: Path, url: str) -> Iterator[None]:
    """Run the older API until the block ends."""
    command = [sys.executable, "-m", "gunicorn", "-c", "python:api.gunicorn_conf"]
    server = subprocess.Popen(command, cwd=folder, env=dict(environment))
    try:
        wait_until(lambda: answers(f"{url}/health"), process=server, otherwise=lambda: "the older API does not answer")
        yield
    finally:
        server.terminate()
        server.wait(PATIENCE_SECONDS)


def use(url: str) -> dict[str, Any]:
    """Score and label with the first version, and return what the older API answered."""
    matrix, is_fraud = made_up(400, seed=2)
    ids = [f"order-{number}" for number in range(len(matrix))]
    answer(url, "POST", "/predict", {"data": matrix.tolist(), "transaction_ids": ids})
    labels = [
        {"transaction_id": name, "is_fraud": truth, "source": "chargeback"}
        for name, truth in zip(ids[:350], is_fraud.tolist(), strict=False)
    ]
    answer(url, "POST", "/labels", {"labels": labels})
    return {
        "predicted": answer(url, "POST", "/predict", BODY, {"Idempotency-Key": KEY}),
        "order-1": answer(url, "GET", "/transactions/order-1"),
        "order-399": answer(url, "GET", "/transactions/order-399"),
    }


def answer(url: str, method: str, path: str, *sent: Mapping[str, Any]) -> dict[str, Any]:
    """Return what the older API answers, which must be a success."""
    status, answered = ask(url, method, path, *sent)
    assert status == 200, answered
    return answered


def pack(folder: Path) -> None:
    """Pack the folder, small enough for a repository."""
    ARCHIVE.parent.mkdir(exist_ok=True)
    with tarfile.open(ARCHIVE, "w:xz", preset=9) as archive:
        for name in sorted(path.name for path in folder.iterdir()):
            archive.add(folder / name, name)
    size = ARCHIVE.stat().st_size
    assert size < MOST_BYTES, f"{size:,} bytes; at most {MOST_BYTES:,} may be committed"


if __name__ == "__main__":
    main()
