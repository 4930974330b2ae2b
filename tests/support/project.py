"""Where the files of this checkout are."""

from pathlib import Path

ROOT = Path(__file__).parents[2]
CHART = ROOT / "charts" / "fraud-detection"
REAL_DATA = ROOT.parent / "shared" / "data" / "creditcard_sample.csv.gz"
"""The sample of real transactions, on machines that have it."""
