"""An installation that was used a little, whose folder looks like a checkout."""

import contextlib
import io
import shutil
import sqlite3
import sys
from pathlib import Path

import pandas as pd
import pytest

from tests.documents.blocks import Block, run
from tests.support.project import ROOT
from tests.support.sample import Sample, made_up_sample

_USE = """\
fraudctl serve --first-time
fraudctl demo-data --fraud-share 0.02 --out used.csv
fraudctl score used.csv --out used-scored.csv
fraudctl import-labels used.csv --source analyst
export API_TOKEN=$(cat .api_token)
curl -s http://127.0.0.1:5000/predict -H "Authorization: Bearer $API_TOKEN" -H "Content-Type: application/json" \\
  -d "{\\"data\\": [[$(seq -s , 29 | sed 's/[0-9]*/0/g')]], \\"transaction_ids\\": [\\"order-1001\\"]}"
cp models/rf_model.pkl old/rf_model.pkl
fraudctl features show --json > wider.json
"""


@pytest.fixture(scope="session")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that looks like a checkout after `make setup`, with files of transactions that documents name."""
    folder = tmp_path_factory.mktemp("checkout")
    for name in ("Makefile", "requirements", "fraudctl", "api", "jobs", "fraud_detection", "charts", "docs"):
        (folder / name).symlink_to(ROOT / name)
    (folder / ".venv").symlink_to(sys.prefix)
    (folder / "bin").mkdir()
    (folder / "bin" / "fraudctl").write_text('#!/bin/sh\nexec .venv/bin/python -m fraudctl "$@"\n')
    (folder / "bin" / "fraudctl").chmod(0o755)
    _write_files(folder, made_up_sample())
    return folder


@pytest.fixture(scope="session")
def used(checkout: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same with a first model, 2,000 scored and labelled transactions, and no server."""
    folder = tmp_path_factory.mktemp("used") / "checkout"
    shutil.copytree(checkout, folder, symlinks=True)
    run([Block(Path("preparation"), 0, _USE, not_run=None)], folder, {})
    return folder


def _write_files(folder: Path, sample: Sample) -> None:
    """Write the files of transactions and labels that documents name."""
    (folder / "creditcard.csv").write_text(sample.text(sample.history))
    few = pd.read_csv(io.StringIO(sample.text(sample.calm)))
    few.assign(shop="corner").to_csv(folder / "history.csv.gz", index=False)
    few.to_parquet(folder / "history.parquet")
    few[["Amount", "Class"]].assign(shop="corner").to_csv(folder / "history.csv", index=False)
    payments = few.drop(columns=["Time", "Class"]).assign(transaction_id=[f"new-{row}" for row in few.index])
    payments.to_csv(folder / "new.csv", index=False)
    payments.to_csv(folder / "new.csv.gz", index=False)
    payments.to_parquet(folder / "new.parquet")
    pd.DataFrame({"transaction_id": ["new-0", "new-1"], "is_fraud": 1}).to_csv(folder / "chargebacks.csv", index=False)
    for name in ("old", "older"):
        (folder / name).mkdir()
        with contextlib.closing(sqlite3.connect(folder / name / "requests.db")) as old, old:
            scaled = few.assign(Amount_scaled=(few.Amount - 88) / 250).drop(columns=["Time", "Amount"])
            scaled.assign(transaction_id=[f"{name}-{row}" for row in few.index]).to_sql("requests", old, index=False)
