"""`python -m bench.tables`: import a history as large as the public data set, as CSV, gzipped CSV and Parquet.

The same CSV files are imported by the last commit that read them without pandas, from a copy of its tree. Each import
runs in a process of its own, which reports its time and its peak memory above that of the bare interpreter. Rounds
alternate, so that a noisy minute of the machine does not hit one reader alone; the table shows medians.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

ROOT = Path(__file__).parent.parent
ROWS = 284_807  # of the public data set
MAXIMUM_MB = 300
FILES = ("history.csv", "history.csv.gz", "history.parquet")
FORMER_READER = "jobs/exchange/import_csv.py"

IMPORT = """
import json, sys, time
from datetime import UTC, datetime
from pathlib import Path

def megabytes(name):
    (line,) = (line for line in open("/proc/self/status") if line.startswith(name))
    return int(line.split()[1]) / 1024

bare = megabytes("VmRSS")
file, folder, now = Path(sys.argv[1]), Path(sys.argv[2]), datetime.now(UTC)
database = folder / "history.db"
from fraud_detection.features import default_features
try:
    from jobs.exchange.import_csv import import_csv
except ModuleNotFoundError:  # today's tree
    from fraud_detection.settings import JobSettings
    from jobs.exchange.import_file import import_file
    from jobs.installation import Installation

    def run():
        environment = {"LATEST_DB": database, "TRAIN_DB": database, "MODEL_PATH": folder / "rf_model.pkl"}
        settings = JobSettings.from_env({name: str(path) for name, path in environment.items()})
        return import_file(file, Installation(settings, default_features()), now=now)
else:

    def run():
        return import_csv(file, database, default_features(), models_dir=folder, now=now)

ready, began = megabytes("VmRSS"), time.perf_counter()
done = run()
seconds, peak = time.perf_counter() - began, megabytes("VmHWM")
print(json.dumps({"rows": done.rows, "seconds": seconds, "above_bare": peak - bare, "above_imports": peak - ready}))
"""
"""Runs in either tree; VmHWM, unlike ru_maxrss, knows nothing of the process that started this one."""


def main(arguments: list[str] | None = None) -> int:
    """Print the table; 1 when the memory of one of our imports exceeds the bound."""
    parser = argparse.ArgumentParser(prog="python -m bench.tables", description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--rows", type=int, default=ROWS)
    given = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="bench-tables-") as scratch:
        folder = Path(scratch)
        write_history(folder, given.rows)
        before = former_tree(folder / "before")
        imports = [(ROOT, file) for file in FILES] + [(before, file) for file in FILES if "parquet" not in file]
        found: dict[tuple[Path, str], list[Mapping[str, float]]] = {each: [] for each in imports}
        for _ in range(given.rounds):
            for tree, file in imports:
                found[tree, file].append(imported(tree, folder / file))
    print(f"{given.rows:,} rows, medians of {given.rounds} rounds\n")
    print("| reader | file | seconds | peak MB above the bare interpreter | above the imported modules |")
    print("|---|---|---|---|---|")
    for (tree, file), rounds in found.items():
        seconds, above_bare, above_imports = (
            median(each[name] for each in rounds) for name in ("seconds", "above_bare", "above_imports")
        )
        reader = "pandas" if tree == ROOT else "before"
        print(f"| {reader} | {file} | {seconds:.1f} | {above_bare:.0f} | {above_imports:.0f} |")
    highest = max(each["above_bare"] for (tree, _), rounds in found.items() if tree == ROOT for each in rounds)
    return int(highest > MAXIMUM_MB)


def write_history(folder: Path, rows: int) -> None:
    """Write synthetic transactions in the form of the public data set, its quotes around Class included."""
    random = np.random.default_rng(1)
    columns: dict[str, NDArray[Any]] = {"Time": np.sort(random.integers(0, 172_793, rows))}
    columns |= {f"V{number}": random.normal(size=rows) for number in range(1, 29)}
    columns |= {"Amount": np.round(random.lognormal(3, 1.5, rows), 2), "Class": (random.random(rows) < 0.00173) * 1}
    frame = pd.DataFrame(columns)
    frame.to_parquet(folder / "history.parquet")
    frame["Class"] = frame["Class"].map('"{}"'.format)
    for name in ("history.csv", "history.csv.gz"):
        frame.to_csv(folder / name, index=False, quoting=3)  # 3: the quotes are there already


def former_tree(folder: Path) -> Path:
    """Unpack the last commit that had the reader of before."""
    folder.mkdir()
    removed = subprocess.run(
        ["git", "rev-list", "-1", "HEAD", "--", FORMER_READER], cwd=ROOT, check=True, capture_output=True, text=True
    ).stdout.strip()
    tree = subprocess.run(["git", "archive", f"{removed}^"], cwd=ROOT, check=True, capture_output=True).stdout
    subprocess.run(["tar", "-x"], cwd=folder, input=tree, check=True)
    return folder


def imported(tree: Path, file: Path) -> Mapping[str, float]:
    """Import a file into a new store with the code of a tree, in a process of its own."""
    with tempfile.TemporaryDirectory(dir=file.parent) as store:
        ran = subprocess.run(
            [sys.executable, "-c", IMPORT, file, store], cwd=tree, check=True, stdout=subprocess.PIPE, text=True
        )
    found: Mapping[str, float] = json.loads(ran.stdout)
    return found


if __name__ == "__main__":
    sys.exit(main())
