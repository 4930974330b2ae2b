"""A synthetic baseline is a whole version that ranks real frauds."""

from datetime import UTC, datetime
from pathlib import Path

import pytest
from sklearn.metrics import average_precision_score

from fraud_detection.features import Feature, FeatureList
from fraud_detection.model.manifest import Manifest
from fraud_detection.model.read import read_manifest, read_version
from fraud_detection.model.write import install_version
from jobs.describe import read_labelled
from jobs.drift.reference import read_reference
from jobs.synthetic.baseline import seed_baseline
from jobs.synthetic.statistics import PUBLIC_SCALING, PUBLIC_STATISTICS, BadStatistics, read_statistics

NOW = datetime(2026, 1, 1, tzinfo=UTC)


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


def test_another_folder_of_the_user_is_not_replaced(tmp_path: Path, features: FeatureList) -> None:
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "thesis.txt").write_text("years of work")

    with pytest.raises(FileExistsError, match="is not a baseline"):
        seed(tmp_path / "home", features)

    assert (tmp_path / "home" / "thesis.txt").exists()


def test_other_features_need_statistics_of_their_own(tmp_path: Path) -> None:
    with pytest.raises(BadStatistics, match="describes other features than the 7 of FEATURES_FILE"):
        seed(tmp_path / "baseline", FeatureList(tuple(Feature(f"field_{number}") for number in range(7))))
