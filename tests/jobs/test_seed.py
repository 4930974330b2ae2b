import json
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import average_precision_score

from fraud_detection.database import DatabaseRefused
from fraud_detection.features import Feature, FeatureList
from fraud_detection.model import Manifest, install_version, read_manifest, read_version
from fraud_detection.settings import JobSettings
from fraud_detection.store import ImportedRows, Store
from jobs.describe import PUBLIC_SCALING, read_labelled
from jobs.drift.reference import read_reference
from jobs.seed import main, seed_baseline, statistics_for
from jobs.synthetic.transactions import (
    PUBLIC_STATISTICS,
    BadStatistics,
    Transactions,
    describe,
    read_statistics,
    to_json,
)

NOW = datetime(2026, 1, 1, tzinfo=UTC)
SEVEN = FeatureList(tuple(Feature(f"field_{number}") for number in range(7)))


def seed(out: Path, features: FeatureList, rows: int = 2000, now: datetime = NOW) -> Manifest:
    return seed_baseline(out, features, read_statistics(PUBLIC_STATISTICS), threshold=0.4, now=now, rows=rows)


def test_a_baseline_never_shown_a_real_transaction_ranks_real_ones(
    real_data: Path, tmp_path: Path, features: FeatureList
) -> None:
    seed(tmp_path / "baseline", features, rows=20_000)

    real = read_labelled(real_data, features, PUBLIC_SCALING)
    scores = read_version(tmp_path / "baseline", features).score(real.matrix)
    assert average_precision_score(real.is_fraud, scores) >= 0.75
    assert (scores[~real.is_fraud] >= 0.4).mean() < 0.005


def test_a_baseline_is_a_whole_version_that_says_what_it_is(tmp_path: Path, features: FeatureList) -> None:
    seed(tmp_path / "baseline", features)

    manifest = read_manifest(tmp_path / "baseline")
    assert (manifest.trained_on, manifest.training_window, manifest.label_sources) == ("synthetic", None, {})
    assert manifest.rows == {"fraud": 3, "genuine": 1997}
    assert manifest.holdout is not None
    assert manifest.holdout.rows == 2000
    assert manifest.amount_scaling == PUBLIC_SCALING
    assert read_reference(tmp_path / "baseline", features).shape == (2000, 29)
    installed = install_version(tmp_path / "models", tmp_path / "baseline")
    assert read_version(tmp_path / "models" / installed, features).digest == manifest.digest
    assert list(tmp_path.iterdir()) == [tmp_path / "baseline", tmp_path / "models"]


def test_the_same_seed_makes_the_same_model_and_replaces_it(tmp_path: Path, features: FeatureList) -> None:
    seed(tmp_path / "baseline", features)
    first = read_manifest(tmp_path / "baseline").digest

    seed(tmp_path / "baseline", features, now=datetime(2026, 2, 2, tzinfo=UTC))

    assert read_manifest(tmp_path / "baseline").digest == first
    assert read_manifest(tmp_path / "baseline").created.startswith("2026-02-02")


def test_a_folder_of_somebody_elses_is_not_replaced(tmp_path: Path, features: FeatureList) -> None:
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "thesis.txt").write_text("years of work")

    with pytest.raises(FileExistsError, match="is no baseline of ours"):
        seed(tmp_path / "home", features)

    assert (tmp_path / "home" / "thesis.txt").exists()


def test_other_features_need_statistics_of_their_own(tmp_path: Path) -> None:
    with pytest.raises(BadStatistics, match="describes other features than the 7 of FEATURES_FILE"):
        seed(tmp_path / "baseline", SEVEN)


def test_the_command_seeds_an_installation_with_features_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    random = np.random.default_rng(1)
    is_fraud = np.arange(1000) % 10 == 0
    history = Transactions(random.normal(size=(1000, 7)) + 3 * is_fraud[:, np.newaxis], is_fraud)
    (tmp_path / "statistics.json").write_text(to_json(describe(history, SEVEN, source="ours.csv")))
    (tmp_path / "features.json").write_text(json.dumps({"features": [{"name": name} for name in SEVEN.names]}))
    monkeypatch.setenv("FEATURES_FILE", str(tmp_path / "features.json"))
    monkeypatch.setenv("FRAUD_THRESHOLD", "0.3")
    out = ["--out", str(tmp_path / "baseline"), "--rows", "1000"]

    assert main([*out, "--statistics", str(tmp_path / "statistics.json")]) == 0

    manifest = read_manifest(tmp_path / "baseline")
    assert (manifest.features, manifest.threshold) == (list(SEVEN.names), 0.3)
    assert read_version(tmp_path / "baseline", SEVEN).score(np.full((1, 7), 3.0))[0] > 0.5


def test_a_wrong_setting_ends_with_2(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("FRAUD_THRESHOLD", "40")

    assert main(["--out", str(tmp_path / "baseline")]) == 2
    assert not (tmp_path / "baseline").exists()


def test_features_of_ones_own_get_a_baseline_from_the_history_in_the_store(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "features.json").write_text(json.dumps({"features": [{"name": name} for name in SEVEN.names]}))
    for name, value in (("FEATURES_FILE", "features.json"), ("LATEST_DB", "live.db"), ("TRAIN_DB", "history.db")):
        monkeypatch.setenv(name, str(tmp_path / value))
    out = ["--out", str(tmp_path / "baseline"), "--rows", "1000"]

    assert main(out) == 3  # nothing is imported yet
    truths: list[bool | None] = [number % 10 == 0 for number in range(1000)]
    matrix = np.random.default_rng(1).normal(size=(1000, 7)) + 3 * np.array(truths, dtype=np.float64)[:, np.newaxis]
    store = Store.create_or_migrate(tmp_path / "history.db", SEVEN)
    rows = ImportedRows("a", ["2026-01-01 00:00:00.000000"] * 1000, matrix, truths, [None] * 1000)
    with store.begin() as connection:
        store.import_history(connection, [rows], reporter="test", received_at="2026-01-02 00:00:00.000000")
    store.close()
    assert main(out) == 0

    scores = read_version(tmp_path / "baseline", SEVEN).score(matrix)
    assert average_precision_score(truths, scores) > 0.8
    assert read_manifest(tmp_path / "baseline").trained_on == "synthetic"


def test_a_damaged_store_is_named_and_not_taken_for_an_empty_one(tmp_path: Path) -> None:
    (tmp_path / "live.db").write_bytes(b"no database" * 1000)
    settings = JobSettings.from_env({"LATEST_DB": str(tmp_path / "live.db"), "TRAIN_DB": str(tmp_path / "live.db")})

    with pytest.raises(DatabaseRefused) as refused:
        statistics_for(settings, SEVEN)

    assert refused.value.reason == "corrupt"
