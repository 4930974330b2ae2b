"""`fraudctl features` writes, checks and shows a feature list."""

import json
from pathlib import Path

import pytest

from fraud_detection.exit_codes import ExitCode
from fraud_detection.features import load_features
from fraud_detection.model.read import Model
from fraud_detection.store import Store
from tests.support.command_line import Fraudctl


@pytest.fixture
def features_file(tmp_path: Path) -> Path:
    path = tmp_path / "features.json"
    path.write_text('{"features": [{"name": "amount", "minimum": 0, "description": "in euro"}]}')
    return path


def test_init_writes_what_check_accepts(fraudctl: Fraudctl, tmp_path: Path) -> None:
    (tmp_path / "history.csv").write_text("amount,shop,Class\n10,corner,0\n30,mall,1\n")
    environment = {"MODEL_PATH": "models/rf_model.pkl", "LATEST_DB": "data/requests.db"}

    printed = fraudctl("features", "init", "history.csv", "--leave-out", "shop", env=environment)
    written = fraudctl("features", "init", "history.csv", "--leave-out", "shop", "--out", "f.json", env=environment)
    checked = fraudctl("features", "check", "f.json", env=environment)
    refused = fraudctl("features", "init", "history.csv", env=environment, exit_code=3)

    assert json.loads(printed.stdout)["features"][0]["name"] == "amount"
    assert load_features(tmp_path / "f.json").names == ("amount",)
    assert checked.stdout == "f.json: 1 feature, ok\n"
    assert "--leave-out shop" in refused.stderr
    assert written.stderr.splitlines()[1:] == [
        "  export FEATURES_FILE=f.json",
        "  fraudctl import history.csv --ignore shop",
    ]


def test_init_warns_of_a_column_that_looks_like_the_truth(fraudctl: Fraudctl, tmp_path: Path) -> None:
    (tmp_path / "history.csv").write_text("amount,is_fraud\n10,0\n30,1\n")

    drafted = fraudctl("features", "init", "history.csv", "--out", "f.json", env={})

    assert drafted.stderr.startswith("Warning: is_fraud: holds only 0 and 1, or is named like a label.")
    assert "Unless it is a category that you encoded, check that" in drafted.stderr
    assert (
        drafted.stderr.splitlines()[-1] == "  fraudctl features check     # and to import the file, add a column Class"
    )


def test_init_keeps_corrected_bounds_unless_it_is_forced(fraudctl: Fraudctl, tmp_path: Path) -> None:
    (tmp_path / "history.csv").write_text("amount,Class\n10,0\n30,1\n")
    command, path = ("features", "init", "history.csv", "--out", "f.json"), tmp_path / "f.json"
    fraudctl(*command, env={})
    first = path.read_text()
    fraudctl(*command, env={})  # nothing changes
    corrected = first.replace("230.0", "5000.0")
    path.write_text(corrected)

    refused = fraudctl(*command, env={}, exit_code=2)

    assert refused.stderr.startswith("fraudctl: f.json: exists and differs from what would be written")
    assert "add --force to replace it, or give --out another name" in refused.stderr
    assert path.read_text() == corrected != first
    fraudctl(*command, "--force", env={})
    assert path.read_text() == first


def test_init_reads_a_file_from_standard_input(fraudctl: Fraudctl) -> None:
    refused = fraudctl(
        "features", "init", "/dev/stdin", env={}, answer="amount,shop\n1,corner\n", exit_code=ExitCode.UNUSABLE
    )

    assert "line 2: column shop: " in refused.stderr


def test_check_finds_a_store_and_a_model_of_another_list(
    fraudctl: Fraudctl, sqlite_store: Store, model: Model, sqlite_environment: dict[str, str], features_file: Path
) -> None:
    fits = fraudctl("features", "check", env=sqlite_environment)
    other = fraudctl("features", "check", env={**sqlite_environment, "FEATURES_FILE": str(features_file)}, exit_code=3)

    assert fits.stdout == "the default list: 29 features, ok\n"
    assert "requests.db: belongs to another feature list" in other.stdout
    assert f"{model.version}: belongs to another feature list" in other.stdout


def test_an_import_remembers_the_list_which_check_then_finds(
    fraudctl: Fraudctl, features_file: Path, tmp_path: Path
) -> None:
    (tmp_path / "history.csv").write_text("amount,Class\n10,0\n30,1\n")

    fraudctl("import", "history.csv", env={"FEATURES_FILE": "features.json"})
    checked = fraudctl("features", "check", env={})

    assert checked.stdout == f"{features_file}: 1 feature, ok\n"


def test_check_refuses_a_file_that_is_no_list(fraudctl: Fraudctl, features_file: Path) -> None:
    features_file.write_text('{"features": [{"name": "ts"}]}')

    result = fraudctl("features", "check", features_file, env={}, exit_code=2)

    assert "'ts' is a column of every store; rename it" in result.stderr


def test_show_prints_names_bounds_and_meaning(fraudctl: Fraudctl, features_file: Path) -> None:
    shown = fraudctl("features", "show", env={"FEATURES_FILE": str(features_file)})
    default = fraudctl("features", "show", env={})

    assert shown.stdout == "  0  amount                   0 to 1e+09               in euro\n"
    assert default.stdout.count("\n") == 29
    assert default.stdout.startswith("  0  V1")


def test_show_writes_a_features_file_to_widen(fraudctl: Fraudctl, tmp_path: Path) -> None:
    shown = fraudctl("features", "show", "--json", env={"MODEL_PATH": "models/rf_model.pkl"})
    (tmp_path / "features.json").write_text(shown.stdout)

    assert load_features(tmp_path / "features.json") == load_features(None)
