"""The environment variables of an installation in one folder."""

from pathlib import Path

from fraud_detection.model.files import PICKLE

TOKEN = "a-token-for-tests-only"


def variables(folder: Path, models_dir: Path) -> dict[str, str]:
    """Return the variables of an installation whose files, but for its models, are in `folder`."""
    return {
        "API_TOKEN": TOKEN,
        "MODEL_PATH": str(models_dir / PICKLE),
        "LATEST_DB": str(folder / "data" / "requests.db"),
        "TRAIN_DB": str(folder / "data" / "requests.db"),
        "DRIFT_RESULT": str(folder / "data" / "drift_result.json"),
        "BASELINE_DIR": str(folder / "baseline"),
    }
