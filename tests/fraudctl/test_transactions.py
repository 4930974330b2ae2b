"""Transactions go from demo data over scores to labels and exports, in CSV and Parquet."""

import csv
import gzip
import io
import re
import time
from pathlib import Path
from typing import Any

import pyarrow.parquet
import pytest

from tests.support.command_line import Fraudctl


def test_the_round_from_demo_data_to_labels(fraudctl: Fraudctl, running_api: dict[str, str], tmp_path: Path) -> None:
    made = fraudctl("demo-data", "--rows", 300, "--fraud-share", 0.1, "--out", "demo.csv", env=running_api)
    scored = fraudctl("score", "demo.csv", "--out", "scored.csv", env=running_api)
    listed = fraudctl("unlabelled", "--limit", 5, env=running_api)
    one = fraudctl("label", "demo-42-0", "--genuine", "--reporter", "ann", env=running_api)
    again = fraudctl("label", next(_lines("scored.csv"))["request_id"] + ":1", "--fraud", env=running_api)
    labelled = fraudctl("import-labels", "scored.csv", "--source", "chargeback", env=running_api)
    exported = fraudctl("export", "--since", "2026-01-01", "--out", "all.csv", env=running_api)

    assert made.stderr == "300 transactions, 30 of them fraud, in demo.csv.\n"
    assert "Scored 300 transactions with 2026" in scored.stdout
    assert re.search(r"in the file: \d+ of 30 frauds flagged, and \d+ of 270 genuine transactions\.", scored.stdout)
    assert scored.stderr.startswith("run ")
    assert len(list(csv.DictReader(io.StringIO(listed.stdout)))) == 5
    assert listed.stderr == "5 transactions.\n"
    assert one.stdout == "demo-42-0: genuine, says analyst.\n"
    assert again.stdout.endswith(":1: fraud, says analyst.\n")
    assert labelled.stdout == "scored.csv: 300 labels, 300 of them new; 0 lines without a label.\n"
    assert exported.stderr == "300 transactions in all.csv.\n"
    assert [bool(line["is_fraud"]) for line in _lines("all.csv")] == [True] * 300


def _lines(path: str) -> "csv.DictReader[str]":
    return csv.DictReader(io.StringIO(Path(path).read_text()))


@pytest.mark.parametrize("ending", ["csv.gz", "parquet"])
def test_the_round_works_with_gzipped_csv_and_parquet_too(
    fraudctl: Fraudctl, running_api: dict[str, str], ending: str
) -> None:
    fraudctl("demo-data", "--rows", 30, "--out", f"demo.{ending}", env=running_api)
    fraudctl("score", f"demo.{ending}", "--out", f"scored.{ending}", env=running_api)
    fraudctl("unlabelled", "--out", f"todo.{ending}", env=running_api)
    labelled = fraudctl("import-labels", f"scored.{ending}", env=running_api)
    again = fraudctl("import-labels", "/dev/stdin", env=running_api, answer=Path(f"scored.{ending}").read_bytes())
    refused = fraudctl("unlabelled", "--out", f"todo.{ending}", env=running_api, exit_code=2)
    fraudctl("export", "--out", f"all.{ending}", env=running_api)
    fraudctl("export", "--out", "all.csv", env=running_api)

    assert labelled.stdout == f"scored.{ending}: 30 labels, 30 of them new; 0 lines without a label.\n"
    assert again.stdout == "stdin: 30 labels, 0 of them new; 0 lines without a label.\n"
    assert f"todo.{ending}: exists and differs" in refused.stderr
    assert not (set(_table(f"todo.{ending}")["is_fraud"]) - {None, ""})
    plain = _table("all.csv")
    if ending == "parquet":  # numbers are numbers there, to the last bit
        plain = {
            name: [_as(value, text) for value, text in zip(values, plain[name], strict=True)]
            for name, values in _table("all.parquet").items()
        }
    assert _table(f"all.{ending}") == plain


def _table(path: str) -> dict[str, list[Any]]:
    if path.endswith(".parquet"):
        read: dict[str, list[Any]] = pyarrow.parquet.read_table(path).to_pydict()
        return read
    text = gzip.decompress(Path(path).read_bytes()).decode() if path.endswith(".gz") else Path(path).read_text()
    header, *rows = csv.reader(io.StringIO(text))
    return dict(zip(header, map(list, zip(*rows, strict=True)), strict=True))


def _as(value: Any, text: str) -> object:
    """Return the text of a CSV cell as the type of the same cell in Parquet."""
    return None if value is None and not text else type(value)(text)


def test_a_run_that_broke_off_is_completed_under_its_name(fraudctl: Fraudctl, running_api: dict[str, str]) -> None:
    fraudctl("demo-data", "--rows", 20, "--out", "demo.csv", env=running_api)
    for _ in range(2):
        fraudctl("score", "demo.csv", "--run", "monday", env=running_api)

    stored = fraudctl("db", "query", "SELECT COUNT(*) AS n FROM requests", env=running_api)

    assert stored.stdout == "n\n20\n"


def test_a_result_may_take_the_place_of_its_input(
    fraudctl: Fraudctl, running_api: dict[str, str], tmp_path: Path
) -> None:
    fraudctl("demo-data", "--rows", 20, "--out", "self.csv", env=running_api)
    fraudctl("score", "self.csv", "--out", "self.csv", "--force", env=running_api)

    assert [bool(line["request_id"]) for line in _lines("self.csv")] == [True] * 20
    assert [path.name for path in tmp_path.glob("*self.csv*")] == ["self.csv"]


def test_a_command_that_fails_leaves_the_result_before_it(
    fraudctl: Fraudctl, sqlite_environment: dict[str, str], tmp_path: Path
) -> None:
    (tmp_path / "all.csv").write_text("of yesterday")
    (tmp_path / "link.csv").symlink_to("all.csv")

    fraudctl("export", "--out", "link.csv", env=sqlite_environment, exit_code=3)

    assert (tmp_path / "link.csv").read_text() == "of yesterday"
    assert not list(tmp_path.glob(".*.partial"))


def test_only_force_replaces_a_file_that_differs(
    fraudctl: Fraudctl, running_api: dict[str, str], tmp_path: Path
) -> None:
    fraudctl("demo-data", "--rows", 20, "--out", "demo.csv", env=running_api)
    (tmp_path / "mine.csv").write_text("mine")

    commands = (["demo-data", "--rows", "20"], ["score", "demo.csv"], ["unlabelled"], ["export"])
    for command in commands:
        refused = fraudctl(*command, "--out", "mine.csv", env=running_api, exit_code=2)
        assert refused.stderr.splitlines()[-1].startswith("fraudctl: mine.csv: exists")
        assert refused.stderr.endswith("; add --force to replace it, or give --out another name\n")
    stored = fraudctl("db", "query", "SELECT COUNT(*) AS n FROM requests", env=running_api)

    assert stored.stdout == "n\n0\n"  # nothing was scored for a result that has no place
    assert (tmp_path / "mine.csv").read_text() == "mine"
    assert not list(tmp_path.glob(".*.partial"))
    for command in commands:
        fraudctl(*command, "--out", "mine.csv", "--force", env=running_api)
    assert len(list(_lines("mine.csv"))) == 20


@pytest.mark.parametrize("ending", ["csv", "csv.gz", "parquet"])
def test_a_file_with_the_same_content_is_no_other(
    fraudctl: Fraudctl, sqlite_environment: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ending: str
) -> None:
    fraudctl("demo-data", "--rows", 20, "--out", f"demo.{ending}", env=sqlite_environment)
    (tmp_path / f"demo.{ending}").rename(tmp_path / f"renamed.{ending}")
    monkeypatch.setattr(time, "time", lambda: 2e9)  # gzip writes the time into its header by default

    fraudctl("demo-data", "--rows", 20, "--out", f"renamed.{ending}", env=sqlite_environment)
    fraudctl("demo-data", "--rows", 21, "--out", f"renamed.{ending}", env=sqlite_environment, exit_code=2)


def test_demo_data_goes_into_a_file_or_to_the_api(fraudctl: Fraudctl, sqlite_environment: dict[str, str]) -> None:
    refused = fraudctl("demo-data", "--send", "--out", "demo.csv", env=sqlite_environment, exit_code=2)

    assert "expected --send or --out, not both" in refused.stderr


def test_a_result_may_go_into_a_device(fraudctl: Fraudctl, sqlite_environment: dict[str, str]) -> None:
    fraudctl("demo-data", "--rows", 20, "--out", "/dev/null", env=sqlite_environment)

    assert Path("/dev/null").is_char_device()


def test_demo_data_can_go_straight_to_the_api(fraudctl: Fraudctl, running_api: dict[str, str], tmp_path: Path) -> None:
    sent = fraudctl("demo-data", "--rows", 50, "--send", env=running_api)

    assert sent.stdout.startswith("Scored 50 transactions")
    assert list(tmp_path.glob("*.csv")) == []
    labelled = fraudctl("db", "query", 'SELECT COUNT("Class") AS n FROM requests', env=running_api)
    assert labelled.stdout == "n\n50\n"


def test_an_unknown_transaction_cannot_be_labelled(fraudctl: Fraudctl, running_api: dict[str, str]) -> None:
    result = fraudctl("label", "nobody", "--fraud", env=running_api, exit_code=1)

    assert result.stderr == "fraudctl: the API answered 404: label 0: no such transaction is stored\n"


def test_the_token_that_serve_wrote_is_found(fraudctl: Fraudctl, running_api: dict[str, str], tmp_path: Path) -> None:
    token = running_api["API_TOKEN"]
    without = {name: value for name, value in running_api.items() if name != "API_TOKEN"}
    refused = fraudctl("label", "nobody", "--fraud", env=without, exit_code=2)
    (tmp_path / ".api_token").write_text(token + "\n")

    found = fraudctl("label", "nobody", "--fraud", env=without, exit_code=1)

    assert refused.stderr.startswith(
        f"fraudctl: API_TOKEN is not set, and {tmp_path}/.api_token, which `fraudctl serve"
    )
    assert "the API answered 404" in found.stderr


@pytest.mark.parametrize("command", ["unlabelled", "export"])
def test_listing_an_installation_without_a_store_fails(
    fraudctl: Fraudctl, sqlite_environment: dict[str, str], command: str
) -> None:
    result = fraudctl(command, env=sqlite_environment, exit_code=3)

    assert "no database there; create one with `fraudctl bootstrap`" in result.stderr
