"""What the tests of the jobs share: an MLflow database that is made once, because making one takes seconds."""

import shutil
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest
import sqlalchemy.exc
from mlflow import MlflowClient


@pytest.fixture(scope="session")
def _empty_mlflow(tmp_path_factory: pytest.TempPathFactory) -> Path:
    database = tmp_path_factory.mktemp("mlflow") / "mlflow.db"
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=sqlalchemy.exc.SADeprecationWarning)
        MlflowClient(f"sqlite:///{database}")
    return database


@pytest.fixture
def with_mlflow(_empty_mlflow: Path) -> Callable[[Path], None]:
    """Put an empty MLflow database into a folder: with_mlflow(folder)."""

    def copy(folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copy(_empty_mlflow, folder / "mlflow.db")

    return copy
