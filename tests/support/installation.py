"""Make a small installation for the tests of retraining: three features, a store, labelled history."""

import json
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fraud_detection.clock import timestamp
from fraud_detection.features import Feature, FeatureList, Matrix
from fraud_detection.model.files import CURRENT, PICKLE
from fraud_detection.model.manifest import Manifest
from fraud_detection.model.read import journal, load, read_manifest
from fraud_detection.settings import JobSettings
from fraud_detection.store import Store, decisions, labels, transfer
from fraud_detection.store.decisions import ScoredRequest
from fraud_detection.store.labels import NewLabel
from fraud_detection.store.transfer import ImportedRows
from jobs.installation import Installation

FEATURES = FeatureList((Feature("amount_eur"), Feature("distance_km"), Feature("hour")))
NOW = datetime.now(UTC)  # the journal keeps real time


def made_up(rows: int, seed: int, *, shift: float = 0.0) -> tuple[Matrix, NDArray[np.bool_]]:
    """Make up transactions: a tenth are frauds, larger and farther away; `shift` makes their amounts more ordinary."""
    random = np.random.default_rng(seed)
    is_fraud = np.arange(rows) % 10 == 0
    matrix = random.normal(size=(rows, 3))
    matrix[:, 0] += is_fraud * (2.5 - shift)
    matrix[:, 1] += is_fraud * 2.0
    return matrix, is_fraud


@dataclass
class SmallInstallation:
    """An installation in one folder; times are given as days before NOW, when the tests started."""

    folder: Path
    variables: dict[str, str] = field(default_factory=dict)

    @property
    def environment(self) -> dict[str, str]:
        return {
            "FEATURES_FILE": str(self.folder / "features.json"),
            "MODEL_PATH": str(self.models_dir / PICKLE),
            "LATEST_DB": str(self.folder / "data" / "requests.db"),
            "TRAIN_DB": str(self.folder / "data" / "requests.db"),
            "DRIFT_RESULT": str(self.folder / "data" / "drift_result.json"),
            "GATE_MIN_FRAUDS": "20",
            **self.variables,
        }

    @property
    def settings(self) -> JobSettings:
        return JobSettings.from_env(self.environment)

    @property
    def here(self) -> Installation:
        return Installation.of(self.settings)

    @property
    def models_dir(self) -> Path:
        return self.folder / "models"

    def make(self) -> "SmallInstallation":
        names = [{"name": name} for name in FEATURES.names]
        (self.folder / "features.json").write_text(json.dumps({"features": names}))
        self.store().close()
        return self

    def store(self) -> Store:
        return Store.create_or_migrate(self.settings.store_location, FEATURES)

    def import_labelled(self, matrix: Matrix, is_fraud: NDArray[np.bool_], *, age_days: float) -> None:
        """Import history, one row per minute, that ends `age_days` before NOW."""
        rows = ImportedRows(
            f"imported-{age_days}", _minutes(len(matrix), age_days), matrix, is_fraud.tolist(), [None] * len(matrix)
        )
        store = self.store()
        with store.begin() as connection:
            transfer.import_history(store, connection, [rows], reporter="test", received_at=timestamp(NOW))
        store.close()

    def score(self, matrix: Matrix, *, age_days: float, truths: NDArray[np.bool_] | None = None) -> None:
        """Store rows as the API would, scored by the current model, and label them if truths are given."""
        model = load(self.settings.model_path, FEATURES)
        store = self.store()
        times = _minutes(len(matrix), age_days)
        requests = [
            ScoredRequest(
                request_id=f"scored-{age_days}-{number:06d}",
                ts=times[number],
                matrix=matrix[number : number + 1],
                fraud_probability=[float(score)],
                threshold=0.4,
                model_version=model.version,
                model_digest=model.digest,
                transaction_ids=[None],
            )
            for number, score in enumerate(model.score(matrix))
        ]
        with store.begin() as connection:
            decisions.append(store, connection, requests)
            if truths is not None:
                reported = [
                    NewLabel(
                        is_fraud=bool(truth),
                        source="chargeback",
                        reporter="bank",
                        reported_at=timestamp(NOW),
                        request_id=request.request_id,
                        row_index=0,
                    )
                    for request, truth in zip(requests, truths, strict=True)
                ]
                labels.add(store, connection, reported, received_at=timestamp(NOW))
        store.close()

    def report_drift(self, **facts: object) -> None:
        """Write a drift_result.json that asks for a retraining of the current model."""
        found = {"retrain": True, "provenance": {"reference_digest": self.served().digest}, **facts}
        self.settings.drift_result.write_text(json.dumps(found))

    def served(self) -> Manifest:
        return read_manifest(self.models_dir / CURRENT)

    def events(self) -> list[str]:
        return [entry["event"] for entry in journal(self.models_dir)]


def _minutes(rows: int, age_days: float) -> list[str]:
    end = NOW - timedelta(days=age_days)
    return [timestamp(end - timedelta(minutes=rows - number)) for number in range(rows)]
