"""`fraudctl status` says what serves, what is stored and what is next, whatever is there."""

import json
import re
from pathlib import Path

import numpy as np

from fraud_detection.clock import timestamp
from fraud_detection.model.files import CURRENT, JOURNAL
from fraud_detection.model.read import Model
from fraud_detection.model.write import record
from fraud_detection.store import Store, transfer
from fraud_detection.store.transfer import ImportedRows
from tests.support.command_line import Fraudctl
from tests.support.installation import NOW


def remember(store: Store) -> None:
    """Import four transactions of today: one fraud, one genuine, two unknown."""
    rows = ImportedRows("r", [timestamp(NOW)] * 4, np.zeros((4, 29)), [True, False, None, None], [None] * 4)
    with store.begin() as connection:
        transfer.import_history(store, connection, [rows], reporter="r", received_at=timestamp(NOW))


def unwrapped(told: str) -> str:
    """Return the text with one line per subject, however long the paths are."""
    return told.replace("\n            ", " ")


def test_it_says_what_is_there_while_the_api_is_down(
    fraudctl: Fraudctl, store: Store, model: Model, environment: dict[str, str]
) -> None:
    remember(store)
    record(Path(environment["MODEL_PATH"]).parent, "verified", version=model.version, digest=model.digest, actor="a")
    Path(environment["DRIFT_RESULT"]).parent.mkdir(exist_ok=True)
    Path(environment["DRIFT_RESULT"]).write_text(
        json.dumps({"retrain": True, "state": "drift", "provenance": {"reference_digest": model.digest}})
    )
    environment |= {"API_URL": "http://127.0.0.1:9", "API_TOKEN": "not-asked-for-by-anything"}

    told = unwrapped(fraudctl("status", env=environment).stdout)
    found = json.loads(fraudctl("status", "--json", env=environment).stdout)

    lines = [line.split(maxsplit=1) for line in told.splitlines()]
    assert [name for name, _ in lines if name.isalpha()] == [
        "model", "api", "stored", "labelled", "drift", "retrained", "judged", "next"
    ]  # fmt: skip
    assert f"  model     {model.version}, trained on labels, current since 20" in told
    assert "  api       http://127.0.0.1:9: the API does not answer (ConnectionError); start it with `fraudctl" in told
    assert f": 4 transactions, the newest of {timestamp(NOW)[:16]} UTC; 0 scored, 2 labelled, 1 fraud\n" in told
    assert "  labelled  under 7 days 50.0%\n" in told
    assert "  drift     drift, reported 20" in told
    assert "  retrained no retraining has run yet\n  judged    no retraining has judged a model yet\n" in told
    why = "drift was reported, but nothing can be trained yet. Every transaction with a settled true label (1) is a"
    assert f"  next      No retraining is due: {why} " in told
    assert (found["model"]["version"], found["model"]["is_verified"]) == (model.version, True)
    assert (found["api"]["state"], found["label_coverage"]) == ("no_answer", {"under_7_days": 0.5})
    assert found["stores"][0]["counts"] == {
        "rows": 4, "scored": 0, "labelled": 2, "frauds": 1, "newest": timestamp(NOW)
    }  # fmt: skip
    assert not found["next_retraining"]["is_due"]
    assert found["next_retraining"]["why"].startswith(why)


def test_it_shows_a_retraining_that_judged_nothing(
    fraudctl: Fraudctl, sqlite_store: Store, model: Model, sqlite_environment: dict[str, str]
) -> None:
    held = fraudctl("retrain", "--force", env=sqlite_environment).stdout.strip()

    told = unwrapped(fraudctl("status", env=sqlite_environment).stdout)
    found = json.loads(fraudctl("status", "--json", env=sqlite_environment).stdout)

    outcome, paragraph = held.split(": ", 1)
    assert re.search(rf"^  retrained {outcome}, \S+ \S+ UTC\. {re.escape(paragraph)}$", told, re.MULTILINE)
    assert found["last_retraining"].items() >= {"outcome": "held_derived", "paragraph": paragraph}.items()


def test_a_result_that_is_no_result_is_none(
    fraudctl: Fraudctl, sqlite_store: Store, model: Model, sqlite_environment: dict[str, str]
) -> None:
    result = Path(sqlite_environment["DRIFT_RESULT"]).with_name("retrain_result.json")
    result.parent.mkdir(exist_ok=True)
    result.mkdir()

    held = fraudctl("retrain", "--force", env=sqlite_environment)
    told = fraudctl("status", env=sqlite_environment).stdout

    assert held.stdout.startswith("held_derived: ")
    assert "  retrained no retraining has run yet\n" in told


def test_it_asks_the_running_api_what_it_serves(
    fraudctl: Fraudctl, sqlite_store: Store, model: Model, running_api: dict[str, str]
) -> None:
    same = fraudctl("status", env=running_api).stdout
    refused = fraudctl("status", env={**running_api, "API_TOKEN": "another-token-than-the-one-of-the-api"}).stdout
    manifest = Path(running_api["MODEL_PATH"]).parent / CURRENT / "manifest.json"
    manifest.write_text(manifest.read_text().replace(model.digest, "0" * 64))
    other = json.loads(fraudctl("status", "--json", env=running_api).stdout)

    assert f"  api       {running_api['API_URL']} serves this model\n" in same
    assert "  api       the API answered 401: " in refused
    assert (other["api"]["state"], other["api"]["version"]) == ("serves_another", model.version)


def test_in_an_empty_folder_it_names_the_next_step(fraudctl: Fraudctl) -> None:
    told = fraudctl("status", env={}).stdout

    assert "  model     none is current\n  api       was not asked, because API_TOKEN is not set\n" in told
    assert "  stored    nothing yet\n  labelled  nothing\n" in told
    assert f"There is no model yet in {Path('models').absolute()}: `fraudctl serve" in unwrapped(told)
    assert list(Path().iterdir()) == []


def test_what_cannot_be_read_is_a_problem_and_the_rest_is_told(
    fraudctl: Fraudctl, sqlite_store: Store, model: Model, models_dir: Path, sqlite_environment: dict[str, str]
) -> None:
    (models_dir / JOURNAL).unlink()
    (models_dir / JOURNAL).mkdir()

    told = unwrapped(fraudctl("status", env={**sqlite_environment, "API_TOKEN": ""}, exit_code=3).stdout)

    assert f"  model     {model.version}, trained on labels, current since an unknown time" in told
    assert f"  problem   {models_dir / JOURNAL}: expected a file, got a folder" in told
    assert ": 0 transactions; 0 scored" in told
    assert "  next" not in told
