"""Golden rows that hold values of transactions are replaced by `forget`, on the volume and in MLflow."""

import dataclasses
import json
import struct
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sqlalchemy as sa

from fraud_detection.model.files import CURRENT, MANIFEST, ONNX
from fraud_detection.model.manifest import Golden
from fraud_detection.model.read import load, read_manifest
from fraud_detection.model.write import replace_golden
from fraud_detection.store import history
from jobs.detect_drift import detect_drift
from jobs.forget import forget
from jobs.training.usable import score
from jobs.upkeep.backup import back_up
from tests.support.environment import TOKEN
from tests.support.installation import FEATURES, NOW, SmallInstallation, made_up
from tests.support.service import post, service


def values_of(installation: SmallInstallation) -> set[float]:
    with installation.here.stores() as (store,), store.begin() as connection:
        return set(history.read(store, connection).matrix.ravel().tolist())


@pytest.fixture
def of_an_earlier_release(trained: SmallInstallation) -> SmallInstallation:
    """Give the version, and the run of MLflow, golden rows as an earlier release made them."""
    values = np.array(sorted(values_of(trained))).reshape(-1, 3)
    rows = values[np.linspace(0, len(values) - 1, 24).astype(int)]
    old = Golden(rows.tolist(), score((trained.models_dir / CURRENT / ONNX).read_bytes(), rows).tolist())
    replace_golden(trained.models_dir, (trained.models_dir / CURRENT).readlink().name, old)
    for path in runs_of(trained):
        path.write_text(json.dumps({**json.loads(path.read_text()), "golden": dataclasses.asdict(old)}))
    return trained


def runs_of(installation: SmallInstallation) -> list[Path]:
    return list((installation.folder / "data" / "mlartifacts").rglob(MANIFEST))


def test_no_manifest_holds_the_value_of_a_transaction_afterwards(
    of_an_earlier_release: SmallInstallation, capsys: pytest.CaptureFixture[str]
) -> None:
    installation = of_an_earlier_release
    values, before = values_of(installation), read_manifest(installation.models_dir / CURRENT)
    version = (installation.models_dir / CURRENT).readlink()
    (run,) = runs_of(installation)
    told = json.loads(run.read_text())
    assert values.issuperset(np.ravel(before.golden.rows).tolist())

    done = forget("imported-100:0", installation.here)

    assert capsys.readouterr() == ("", "")  # MLflow would draw a progress bar per artefact
    after = load(installation.settings.model_path, FEATURES).manifest
    assert values.isdisjoint(np.ravel(after.golden.rows).tolist())
    assert min(after.golden.scores) < 0.4 <= max(after.golden.scores)
    assert (installation.models_dir / CURRENT).readlink() == version
    changed: dict[str, Any] = {"golden": before.golden, "files": before.files}
    assert (dataclasses.replace(after, **changed), after.digest) == (before, before.digest)
    renewed = json.loads(run.read_text())
    assert renewed == {**told, "golden": dataclasses.asdict(after.golden)}
    assert (done.golden.versions, done.golden.runs, done.golden.failed) == ([version.name], 1, [])
    again = forget("imported-100:0", installation.here).golden
    assert (again.versions, again.runs, again.failed) == ([], 0, [])


def test_a_run_without_a_version_is_scored_by_its_own_model(of_an_earlier_release: SmallInstallation) -> None:
    installation = of_an_earlier_release
    values, (run,) = values_of(installation), runs_of(installation)
    version = (installation.models_dir / CURRENT).readlink().name
    (installation.models_dir / version).rename(installation.folder / "elsewhere")

    done = forget("nothing", installation.here)

    golden = json.loads(run.read_text())["golden"]
    assert values.isdisjoint(np.ravel(golden["rows"]).tolist())
    assert golden["scores"] == score((run.parent / ONNX).read_bytes(), np.array(golden["rows"])).tolist()
    assert (done.golden.versions, done.golden.runs) == ([], 1)


def test_no_file_of_the_installation_holds_a_forgotten_transaction(of_an_earlier_release: SmallInstallation) -> None:
    """The API runs all the time and logs all that it ever does."""
    installation = of_an_earlier_release
    golden = read_manifest(installation.models_dir / CURRENT).golden
    with installation.here.stores(read_only=False) as (store,), store.begin() as connection:
        table, found = store.tables.requests, history.read(store, connection)
        (row, *_) = np.flatnonzero(np.isin(found.matrix, golden.rows).any(axis=1))
        key = (table.c.request_id == str(found.request_id[row])) & (table.c.row_index == int(found.row_index[row]))
        connection.execute(sa.update(table).where(key).values(transaction_id="order-4711"))
    values = found.matrix[row].tolist()
    traces = [b"order-4711"]
    for value in values:
        traces += [repr(value).encode(), struct.pack("<d", value), struct.pack(">d", value), struct.pack("<f", value)]
    installation.variables |= {"DRIFT_MIN_ROWS": "50"}
    environment = {**installation.environment, "API_TOKEN": TOKEN, "LOG_LEVEL": "DEBUG", "ACCESS_LOG": "all"}
    api = service(environment, installation.folder / "api.log")

    with api.running(), api.connection() as client:
        asked = {"data": [values] * 3, "transaction_ids": ["order-4711"] * 3}
        label = {"transaction_id": "order-4711", "is_fraud": False, "source": "analyst"}
        assert post(client, "/predict", asked, {"Idempotency-Key": "once"})[0] == 200
        assert post(client, "/predict", {"data": [[*values, values[0]]]})[0] == 422
        assert post(client, "/labels", {"labels": [label]})[0] == 200
        installation.score(made_up(100, seed=3)[0], age_days=1)
        detect_drift(installation.settings, NOW)
        before = holding(installation.folder, traces)

        done = forget("order-4711", installation.here)
        back_up(installation.folder / "backup", installation.here, now=NOW)
        back_up(installation.folder / "backup.tar.gz", installation.here, now=NOW)
        assert holding(installation.folder, traces) == set()

    assert {"requests.db", MANIFEST} <= before
    assert (done.rows, done.labels, done.idempotency_keys) == (4, 5, 1)
    assert holding(installation.folder, traces) == set()
    searched = {path.name for path, _ in contents(installation.folder)}
    assert {"api.log", "drift_result.json", "scores.png", "mlflow.db", "promotions.jsonl"} <= searched
    assert "POST /predict" in api.log.read_text()


def holding(folder: Path, traces: list[bytes]) -> set[str]:
    return {path.name for path, content in contents(folder) if any(trace in content for trace in traces)}


def contents(folder: Path) -> Iterator[tuple[Path, bytes]]:
    """Give every file below a folder, and those in its archives, with its content."""
    for path in folder.rglob("*"):
        if path.name.endswith(".tar.gz"):
            with tarfile.open(path) as archive:
                for member in archive:
                    content = archive.extractfile(member) if member.isfile() else None
                    if content is not None:
                        yield path / member.name, content.read()
        elif path.is_file():
            yield path, path.read_bytes()
