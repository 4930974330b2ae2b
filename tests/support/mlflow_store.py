"""Open the MLflow store of an installation as a notebook does."""

import warnings
from pathlib import Path

import sqlalchemy.exc
from mlflow import MlflowClient


def mlflow_client(folder: Path) -> MlflowClient:
    """Open mlflow.db in this folder, which MLflow makes if it is missing."""
    with warnings.catch_warnings():
        # MLflow declares its tables in a way that SQLAlchemy 2.1 deprecates: once in a process.
        warnings.filterwarnings("ignore", category=sqlalchemy.exc.SADeprecationWarning)
        return MlflowClient(f"sqlite:///{folder / 'mlflow.db'}")
