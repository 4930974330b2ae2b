"""`python -m jobs.seed` writes a baseline for any feature list."""

import json
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import average_precision_score

from fraud_detection import logs
from fraud_detection.features import Feature, FeatureList
from fraud_detection.model.read import read_manifest, read_version
from fraud_detection.store import Store, transfer
from fraud_detection.store.transfer import ImportedRows
from jobs.seed import main
from jobs.synthetic.statistics import describe, to_json

SEVEN = FeatureList(tuple(Feature(f"field_{number}") for number in range(7)))


def test_the_command_seeds_an_installation_with_features_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    random = np.random.default_rng(1)
    is_fraud = np.arange(1000) % 10 == 0
    matrix = random.normal(size=(1000, 7)) + 3 * is_fraud[:, np.newaxis]
    (tmp_path / "statistics.json").write_text(to_json(describe(matrix, is_fraud, SEVEN, source="ours.csv")))
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


def test_a_folder_that_cannot_be_made_is_named_before_the_training(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("jobs.synthetic.baseline.fit", None)
    monkeypatch.setattr(logs, "configure", lambda *_: None)  # the log stays with pytest

    assert main(["--out", f"{__file__}/below/baseline", "--rows", "1000"]) == 3
    assert caplog.messages == [f"{__file__}: expected a folder, got a file; give another path, or move it away"]


def test_other_features_get_a_baseline_from_the_history_in_the_store(
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
        transfer.import_history(store, connection, [rows], reporter="test", received_at="2026-01-02 00:00:00.000000")
    store.close()
    assert main(out) == 0

    scores = read_version(tmp_path / "baseline", SEVEN).score(matrix)
    assert average_precision_score(truths, scores) > 0.8
    assert read_manifest(tmp_path / "baseline").trained_on == "synthetic"
