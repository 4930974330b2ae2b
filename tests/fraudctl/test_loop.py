"""`fraudctl drift`, `retrain` and `simulate-drift` print what they did."""

import json
from pathlib import Path

from fraud_detection.features import Matrix
from fraud_detection.lock import promoter
from fraud_detection.model.read import Model
from fraud_detection.store import Store
from tests.support.command_line import Fraudctl


def test_drift_prints_what_it_found(
    fraudctl: Fraudctl, store: Store, reference: Matrix, environment: dict[str, str]
) -> None:
    result = fraudctl("drift", env=environment)

    written = json.loads(Path(environment["DRIFT_RESULT"]).read_text())
    assert written["state"] == "insufficient_data"
    assert result.stdout.count("\n") == 1
    assert result.stderr == ""


def test_in_an_empty_folder_drift_and_retrain_say_how_to_start(fraudctl: Fraudctl) -> None:
    where = f"There is no model yet in {Path('models').absolute()}:"
    how = f"{where} `fraudctl serve --first-time` creates what is missing and starts the API. If you have"

    drift = fraudctl("drift", env={}, exit_code=3)
    retrain = fraudctl("retrain", "--force", env={"API_URL": "http://127.0.0.1:9"}, exit_code=3)

    assert drift.stdout.startswith(f"Drift could not be judged. {how} labelled history, run `fraudctl import FILE` ")
    assert drift.stdout.endswith(" first. Until this is solved, drift is not watched.\n")
    assert retrain.stdout.startswith(f"failed: Nothing was trained. {how} ")
    assert "drift     error, reported 20" in (told := fraudctl("status", env={}).stdout)
    assert "not current" not in told
    assert f"  next step {where}" in told.replace("\n            ", " ")


def test_drift_that_cannot_compare_is_an_error(
    fraudctl: Fraudctl, store: Store, model: Model, environment: dict[str, str]
) -> None:
    result = fraudctl("drift", env=environment, exit_code=3)

    assert "reference_data.db" in result.stdout


def test_retrain_prints_the_outcome_and_why(
    fraudctl: Fraudctl, sqlite_store: Store, model: Model, sqlite_environment: dict[str, str]
) -> None:
    held = fraudctl("retrain", "--force", env=sqlite_environment)
    with promoter(Path(sqlite_environment["MODEL_PATH"]).parent):
        skipped = fraudctl("retrain", env=sqlite_environment)
    failed = fraudctl("retrain", env={**sqlite_environment, "LATEST_DB": "no.db", "TRAIN_DB": "no.db"}, exit_code=3)

    assert held.stdout.startswith("held_")
    assert f"{model.version} keeps serving." in held.stdout
    assert skipped.stdout.startswith("skipped: Nothing was done.")
    assert failed.stdout.startswith("failed: Nothing was trained.")


def test_a_drill_can_be_deleted_again(fraudctl: Fraudctl, reference: Matrix, running_api: dict[str, str]) -> None:
    sent = fraudctl("simulate-drift", "--shift", "V1=2", "--shift", "V2=-0.5", "--rows", 30, env=running_api)
    undo = sent.stdout.splitlines()[-1].split()
    forgotten = fraudctl(*undo[1:], "--yes", env=running_api)

    assert sent.stdout.startswith("Sent 30 transactions: ")
    assert "erased 30 stored rows" in forgotten.stdout


def test_a_shift_needs_a_feature_and_an_amount(
    fraudctl: Fraudctl, reference: Matrix, sqlite_environment: dict[str, str]
) -> None:
    malformed = fraudctl("simulate-drift", "--shift", "V1", env=sqlite_environment, exit_code=2)
    infinite = fraudctl("simulate-drift", "--shift", "V1=nan", env=sqlite_environment, exit_code=2)
    unknown = fraudctl("simulate-drift", "--shift", "V99=1", env=sqlite_environment, exit_code=1)

    assert "'V1': expected FEATURE=AMOUNT, such as V14=1.5" in malformed.stderr
    assert "'V1=nan': expected FEATURE=AMOUNT" in infinite.stderr
    assert "V99: no such feature; choose from V1" in unknown.stderr
