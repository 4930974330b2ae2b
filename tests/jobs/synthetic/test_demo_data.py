"""Demo data can be imported, and one seed gives the same transactions."""

import io
from pathlib import Path

from fraud_detection.features import FeatureList
from fraud_detection.settings import JobSettings
from jobs.exchange.transaction_file import pages, read_layout
from jobs.installation import Installation
from jobs.synthetic.demo_data import write_demo_data


def test_writes_a_file_that_can_be_imported(tmp_path: Path, features: FeatureList) -> None:
    with (tmp_path / "demo.csv").open("w") as out:
        frauds = write_demo_data(
            out, Installation(JobSettings.from_env({}), features), rows=200, seed=3, fraud_share=0.1
        )

    (page,) = pages(tmp_path / "demo.csv", features, read_layout(tmp_path / "demo.csv", features))
    assert frauds == page.is_fraud.count(True) == 20
    assert page.transaction_ids[0] == "demo-3-0"
    assert page.matrix.shape == (200, 29)


def test_the_same_seed_gives_the_same_transactions(features: FeatureList) -> None:
    def made(seed: int) -> str:
        out = io.StringIO()
        write_demo_data(out, Installation(JobSettings.from_env({}), features), rows=50, seed=seed)
        return out.getvalue()

    assert made(1) == made(1)
    assert made(1) != made(2)
