"""`fraudctl mlflow` refuses in one line what it cannot open."""

import subprocess
import sys

import pytest

from tests.support.command_line import Fraudctl


@pytest.mark.parametrize(
    ("uri", "shown"),
    [
        ("http://mlflow:5000", "http://mlflow:5000"),
        ("https://me:secret@mlflow.example/runs", "https://mlflow.example/runs"),
    ],
)
def test_where_a_server_keeps_the_runs_the_command_says_so(
    fraudctl: Fraudctl, sqlite_environment: dict[str, str], uri: str, shown: str
) -> None:
    result = fraudctl("mlflow", env={**sqlite_environment, "MLFLOW_TRACKING_URI": uri})

    assert result.stdout == f"MLFLOW_TRACKING_URI names a server. Its UI is at {shown}\n"


def test_a_tracking_uri_that_names_no_server_is_refused(fraudctl: Fraudctl, sqlite_environment: dict[str, str]) -> None:
    result = fraudctl("mlflow", env={**sqlite_environment, "MLFLOW_TRACKING_URI": "databricks"}, exit_code=2)

    assert result.stderr == (
        "fraudctl: MLFLOW_TRACKING_URI: expected an address such as http://HOST:PORT or https://HOST\n"
    )


def test_what_prevents_the_ui_is_one_line(fraudctl: Fraudctl, sqlite_environment: dict[str, str]) -> None:
    result = fraudctl("mlflow", env=sqlite_environment, exit_code=1)

    assert "mlflow.db: does not exist. `fraudctl retrain` records the first run.\n" in result.stderr


def test_the_commands_do_not_wait_for_mlflow_to_be_imported() -> None:
    """It takes seconds."""
    asked = "import sys, fraudctl.main; sys.exit('mlflow' in sys.modules)"

    subprocess.run([sys.executable, "-c", asked], check=True)
