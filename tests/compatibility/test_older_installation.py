"""The code of today opens, serves, retrains and restores what an older commit stored, trained and backed up."""

import json
import sqlite3
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient
from mlflow.entities.model_registry import ModelVersion

from fraud_detection.store import Store
from tests.compatibility.older_installation import BODY, KEY, OlderInstallation, unpack
from tests.support.client import ask
from tests.support.command_line import Fraudctl
from tests.support.installation import FEATURES
from tests.support.mlflow_store import mlflow_client
from tests.support.service import api_process


@pytest.fixture
def older(tmp_path: Path) -> OlderInstallation:
    return unpack(tmp_path / "older")


# -- the API ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Api:
    """The API of today on the older installation."""

    older: OlderInstallation
    url: str

    def ask(self, method: str, path: str, *sent: Mapping[str, Any]) -> tuple[int, dict[str, Any]]:
        """Send a request with the token, and a body and headers if given; return status and answer."""
        return ask(self.url, method, path, *sent)


def says(found: dict[str, Any], before: dict[str, Any]) -> bool:
    """Return whether a look-up says all that it said before; labels of before have no token."""
    labels = [{**label, "token_name": None} for label in before["labels"]]
    return found.items() >= {**before, "labels": labels}.items()


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    """One API for the tests that look at different transactions."""
    installation = unpack(tmp_path_factory.mktemp("served"))
    with api_process(installation.environment, installation.folder / "log") as url:
        yield Api(installation, url)


def test_the_current_model_is_the_one_of_before(api: Api) -> None:
    status, said = api.ask("GET", "/model")

    assert status == 200
    assert said.items() >= api.older.answers["model"].items()


def test_it_scores_as_before_and_the_older_store_takes_the_decision(api: Api) -> None:
    ids = ["scored-today-0", "scored-today-1"]

    status, scored = api.ask("POST", "/predict", BODY | {"transaction_ids": ids})
    _, stored = api.ask("GET", f"/transactions/{ids[0]}")

    assert (status, scored["fraud_probability"]) == (200, api.older.answers["scored"]["fraud_probability"])
    assert stored["request_id"] == scored["request_id"]


def test_an_idempotency_key_of_before_is_known(api: Api) -> None:
    status, repeated = api.ask("POST", "/predict", BODY, {"Idempotency-Key": KEY})
    reused, refusal = api.ask("POST", "/predict", {"data": [[0.0, 0.0, 0.0]]}, {"Idempotency-Key": KEY})

    assert (status, repeated) == (200, api.older.answers["predicted"])
    assert (reused, refusal["error"]["code"]) == (422, "idempotency_key_reused")


@pytest.mark.parametrize("name", ["order-1", "order-399"])
def test_a_decision_of_before_is_found_with_its_labels(api: Api, name: str) -> None:
    status, found = api.ask("GET", f"/transactions/{name}")

    assert status == 200
    assert says(found, api.older.answers[name])


def test_a_decision_of_before_takes_a_label(api: Api) -> None:
    label = {"transaction_id": "order-390", "is_fraud": True, "source": "analyst"}

    status, _ = api.ask("POST", "/labels", {"labels": [label]})
    _, found = api.ask("GET", "/transactions/order-390")

    assert (status, found["is_fraud"]) == (200, True)


# -- the store -------------------------------------------------------------------------------------------------------


def columns(database: Path) -> dict[str, list[Any]]:
    """Return the columns of each table, as SQLite describes them."""
    with sqlite3.connect(database) as connection:
        tables = [name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        return {table: connection.execute(f"PRAGMA table_info({table})").fetchall() for table in tables}


def rows(database: Path, of: dict[str, list[Any]]) -> dict[str, list[Any]]:
    """Return the rows of each table, in these columns."""
    with sqlite3.connect(database) as connection:
        return {
            table: sorted(connection.execute(f"SELECT {', '.join(each[1] for each in described)} FROM {table}"))  # noqa: S608
            for table, described in of.items()
        }


@pytest.mark.parametrize("name", ["requests.db", "history.db"])
def test_the_migrations_leave_what_is_stored_and_end_at_todays_tables(
    older: OlderInstallation, tmp_path: Path, name: str
) -> None:
    database, fresh = older.folder / "data" / name, tmp_path / "fresh.db"
    before = columns(database)
    del before["alembic_version"]  # it holds the revision, which a migration changes
    stored = rows(database, before)

    for path in (database, fresh):
        Store.create_or_migrate(path, FEATURES).close()

    assert columns(database) == columns(fresh)
    assert rows(database, before) == stored
    assert len(stored["requests"]) > 400


def test_history_comes_in_beside_that_of_before(fraudctl: Fraudctl, older: OlderInstallation) -> None:
    more = older.folder / "more.csv"
    more.write_text("ts,transaction_id,amount_eur,distance_km,hour,Class\n2026-02-01,more-1,0.5,0.5,0.5,1\n")

    said = fraudctl("import-csv", more, env=older.environment)
    counted = fraudctl(
        "db",
        "query",
        "SELECT COUNT(*) FROM requests",
        env=older.environment | {"LATEST_DB": older.environment["TRAIN_DB"]},
    )

    assert "1 transaction (1 fraud, 0 genuine, 0 unknown)" in said.stdout
    assert counted.stdout.splitlines()[1] == "1001"


def test_an_older_store_moves_to_postgresql(
    fraudctl: Fraudctl, older: OlderInstallation, postgresql_database: str
) -> None:
    environment = older.environment | {"DATABASE_URL": postgresql_database}

    fraudctl("db", "copy", env=environment)

    fraudctl("db", "check", env=environment)
    counted = fraudctl("db", "query", "SELECT COUNT(*) FROM requests", env=environment)
    assert counted.stdout.splitlines()[1] == "1404"


# -- the loop --------------------------------------------------------------------------------------------------------


def test_drift_compares_with_the_reference_of_before(fraudctl: Fraudctl, older: OlderInstallation) -> None:
    result = Path(older.environment["DRIFT_RESULT"])
    before = json.loads(result.read_text())

    fraudctl("drift", env=older.environment)

    found = json.loads(result.read_text())
    assert len(found["notes"]) == len(before.pop("notes"))  # sentences, whose wording may change
    assert {name: found[name] for name in before} == before


def test_a_drift_result_of_before_decides_whether_a_retraining_starts(
    fraudctl: Fraudctl, older: OlderInstallation
) -> None:
    at_any_time = older.environment | {"RETRAIN_COOLDOWN_DAYS": "0", "RETRAIN_AFTER_DAYS": "3650"}
    result = Path(older.environment["DRIFT_RESULT"])

    calm = fraudctl("retrain", env=at_any_time)
    result.write_text(json.dumps(json.loads(result.read_text()) | {"retrain": True}))
    drifted = fraudctl("retrain", env=at_any_time)

    assert calm.stdout.startswith("skipped: No retraining is due: the last drift report asks for none")
    assert drifted.stdout.startswith("skipped: Nothing was trained. No label is new since")


def test_retraining_learns_from_the_rows_of_before_and_promotes(fraudctl: Fraudctl, older: OlderInstallation) -> None:
    first, second = (entry["version"] for entry in older.journal if entry["event"] == "promoted")

    back = fraudctl("models", "rollback", env=older.environment)
    retrained = fraudctl("retrain", "--force", env=older.environment)

    assert back.stdout.startswith(f"{first} is the current version again. ")
    assert retrained.stdout.startswith("promoted: A new model learned from 944 transactions (95 frauds)")
    of_second, promoted = (
        entry for entry in older.journal if entry["event"] == "promoted" and entry["version"] != first
    )
    assert (of_second["version"], promoted["verdict"]["labels"]) == (second, of_second["verdict"]["labels"])
    assert promoted["version"] in fraudctl("models", "list", env=older.environment).stdout.splitlines()[-1]


def test_a_decision_of_before_has_its_lineage(fraudctl: Fraudctl, older: OlderInstallation) -> None:
    told = fraudctl("lineage", "order-1", env=older.environment).stdout

    first = older.journal[0]
    assert first["version"] in told
    assert first["digest"] in told
    assert first["verdict"]["checks"][0]["sentence"] in told


def champion_of(folder: Path) -> tuple[MlflowClient, ModelVersion]:
    """Open an installation's MLflow database as a notebook does, and return the champion that it names."""
    client = mlflow_client(folder / "data")
    return client, client.get_model_version_by_alias("fraud-api", "champion")


def test_the_champion_in_mlflow_is_the_one_of_before(older: OlderInstallation) -> None:
    client, champion = champion_of(older.folder)

    assert champion.tags["digest"] == older.journal[-1]["digest"]
    assert client.get_run(str(champion.run_id)).info.status == "FINISHED"


def test_artefacts_of_before_are_found_where_the_installation_is_now(
    fraudctl: Fraudctl, older: OlderInstallation, tmp_path: Path
) -> None:
    version_of = {entry["digest"]: entry["version"] for entry in older.journal}

    fraudctl("models", "rollback", env=older.environment)  # opens MLflow's store, whose folder has moved

    client, champion = champion_of(older.folder)
    assert champion.tags["digest"] == older.journal[0]["digest"]
    location = client.get_model_version_download_uri("fraud-api", champion.version)
    assert location.startswith((older.folder / "data" / "mlartifacts").as_uri())
    runs = client.search_runs([client.get_run(str(champion.run_id)).info.experiment_id])
    assert {run.data.tags["digest"] for run in runs} == set(version_of)
    for run in runs:
        found = Path(client.download_artifacts(run.info.run_id, "model/model.onnx", str(tmp_path)))
        version = older.folder / "models" / version_of[run.data.tags["digest"]]
        assert found.read_bytes() == (version / "model.onnx").read_bytes()


# -- the backup ------------------------------------------------------------------------------------------------------


def test_a_backup_of_before_is_restored_into_a_new_folder_and_serves(
    fraudctl: Fraudctl, older: OlderInstallation, tmp_path: Path
) -> None:
    restored = OlderInstallation(tmp_path / "restored")
    restored.folder.mkdir()
    (restored.folder / "features.json").write_bytes((older.folder / "features.json").read_bytes())

    said = fraudctl("db", "restore", older.backup, env=restored.environment)

    fraudctl("db", "check", env=restored.environment)
    assert "404 transactions (requests.db) and 1,000 transactions (history.db)" in said.stdout
    assert f"the current version is {older.journal[-1]['version']}." in said.stdout
    assert restored.journal[:-1] == older.journal
    assert restored.journal[-1]["event"] == "restored"
    with api_process(restored.environment, tmp_path / "log") as url:
        api = Api(restored, url)
        assert api.ask("GET", "/model")[1]["digest"] == older.journal[-1]["digest"]
        assert says(api.ask("GET", "/transactions/order-1")[1], older.answers["order-1"])
    fraudctl("models", "rollback", env=restored.environment)
    client, champion = champion_of(restored.folder)
    assert client.download_artifacts(str(champion.run_id), "model/manifest.json", str(tmp_path))
