"""Unpack the installation of an older commit, and name what its archive holds."""

import json
import tarfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.support.environment import TOKEN

ARCHIVE = Path(__file__).parent / "installation.tar.xz"

VARIABLES = {
    "API_TOKEN": TOKEN,
    "FEATURES_FILE": "features.json",
    "MODEL_PATH": "models/rf_model.pkl",
    "LATEST_DB": "data/requests.db",
    "TRAIN_DB": "data/history.db",
    "DRIFT_RESULT": "data/drift_result.json",
    "DRIFT_WINDOW_ROWS": "200",
    "DRIFT_MIN_ROWS": "100",
    "GATE_MIN_FRAUDS": "20",
    "LABEL_MATURITY_DAYS": "0",
}
"""The variables of the installation, as seen from its own folder."""

_PATHS = ("FEATURES_FILE", "MODEL_PATH", "LATEST_DB", "TRAIN_DB", "DRIFT_RESULT")

KEY = "key-of-before"
BODY = {"data": [[2.5, 2.0, 0.0], [0.0, 0.0, 0.0]], "transaction_ids": ["with-key-0", "with-key-1"]}
"""The request that was sent with this idempotency key."""


@dataclass(frozen=True)
class OlderInstallation:
    """An installation in a folder that belongs to the test."""

    folder: Path

    @property
    def environment(self) -> dict[str, str]:
        """The variables of the installation, with absolute paths."""
        return VARIABLES | {name: str(self.folder / VARIABLES[name]) for name in _PATHS}

    @property
    def backup(self) -> Path:
        """The archive that the older `fraudctl db backup` wrote."""
        return self.folder / "backup.tar"

    @property
    def answers(self) -> dict[str, Any]:
        """The requests to the older API, and its answers: see make_fixtures.py."""
        answers: dict[str, Any] = json.loads((self.folder / "answers.json").read_text())
        return answers

    @property
    def journal(self) -> list[dict[str, Any]]:
        """The journal of the models, the oldest entry first."""
        lines = (self.folder / "models" / "promotions.jsonl").read_text().splitlines()
        return [json.loads(line) for line in lines]


def unpack(folder: Path) -> OlderInstallation:
    """Unpack the installation that the older commit made."""
    with tarfile.open(ARCHIVE) as archive:
        archive.extractall(folder, filter="fully_trusted")  # noqa: S202  our own; other filters change the files' modes
    return OlderInstallation(folder)
