"""A table of statistics survives writing and reading, and describes no single person."""

import os
from pathlib import Path

import numpy as np
import pytest

from fraud_detection.database import DatabaseRefused
from fraud_detection.features import Feature, FeatureList
from fraud_detection.model.manifest import AmountScaling
from fraud_detection.settings import JobSettings
from jobs.installation import Installation
from jobs.synthetic.statistics import BadStatistics, describe, read_statistics, statistics_for, to_json

TWO = FeatureList((Feature("amount"), Feature("age_days")))


def test_a_damaged_store_is_named_and_not_taken_for_an_empty_one(tmp_path: Path) -> None:
    (tmp_path / "live.db").write_bytes(b"no database" * 1000)
    settings = JobSettings.from_env({"LATEST_DB": str(tmp_path / "live.db"), "TRAIN_DB": str(tmp_path / "live.db")})

    with pytest.raises(DatabaseRefused) as refused:
        statistics_for(Installation(settings, TWO))

    assert refused.value.reason == "corrupt"


def test_a_table_survives_being_written_and_read(tmp_path: Path) -> None:
    rows = np.random.default_rng(5).normal(size=(1000, 2))
    statistics = describe(
        rows,
        np.arange(1000) % 10 == 0,
        TWO,
        source="test",
        fraud_share=0.002,
        amount_scaling=AmountScaling(mean=20, standard_deviation=5),
    )

    (tmp_path / "table.json").write_text(to_json(statistics))

    assert read_statistics(tmp_path / "table.json") == statistics
    assert statistics.fraud_share == 0.002


def test_a_class_too_small_to_be_described_without_its_members_is_refused() -> None:
    with pytest.raises(BadStatistics, match="at least 50 fraud rows, got 49"):
        describe(np.ones((4000, 2)), np.arange(4000) < 49, TWO, source="test")


def test_a_pipe_is_no_table_and_never_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "table.json")

    with pytest.raises(BadStatistics, match=r"table.json: cannot be read \(expected a file, got a named pipe\)"):
        read_statistics(tmp_path / "table.json")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "cannot be read"),
        ("{", "is not a table of"),
        ('{"source": "x"}', "is not a table of"),
        ("[]", "is not a table of"),
    ],
)
def test_a_file_that_is_no_table_is_refused_by_name(tmp_path: Path, content: str | None, message: str) -> None:
    path = tmp_path / "table.json"
    if content is not None:
        path.write_text(content)

    with pytest.raises(BadStatistics, match=f"table.json: {message}"):
        read_statistics(path)
