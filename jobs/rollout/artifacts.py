"""Keeps the artefact locations in a local MLflow database valid when the installation is moved or restored."""

import logging
import shutil
from pathlib import Path, PurePosixPath
from urllib.parse import unquote, urlsplit

import sqlalchemy as sa

DATABASE = "mlflow.db"
ARTIFACTS = "mlartifacts"

_EXPERIMENTS = sa.table("experiments", sa.column("artifact_location"))
_RUNS = sa.table("runs", sa.column("artifact_uri"))
_LOCATIONS = (
    _EXPERIMENTS,
    _RUNS,
    sa.table("model_versions", sa.column("source")),
    sa.table("model_versions", sa.column("storage_location")),
    sa.table("logged_models", sa.column("artifact_location")),
)
"""Columns in which MLflow records absolute locations. It has no API that changes them after a move."""

logger = logging.getLogger(__name__)


def artifacts_uri(folder: Path) -> str:
    """Return the location that experiments in this folder's database must have."""
    return (folder.absolute() / ARTIFACTS).as_uri()


def have_moved(folder: Path) -> bool:
    """Return whether the database, if there is one, records locations in a former folder of the installation."""
    if not (folder / DATABASE).exists():
        return False
    with _engine(folder).connect() as connection:
        return bool(_former_locations(connection, folder))


def follow_move(folder: Path) -> None:
    """Rewrite locations in a former folder to this one, in one transaction; leave all other locations unchanged.

    The caller holds the promoter's lock. An earlier program may have written a run's files to the former folder after
    the move: they are copied here if they still exist.

    Raises SQLAlchemyError.
    """
    with _engine(folder).begin() as connection:
        tables = set(sa.inspect(connection).get_table_names())
        for former in _former_locations(connection, folder):
            logger.info("MLflow's artefacts have moved from %s to %s", former, folder)
            for uri in connection.scalars(sa.select(_RUNS.c.artifact_uri).where(_below(_RUNS.c.artifact_uri, former))):
                _copy_if_left_behind(uri, former, folder)
            for table in _LOCATIONS:
                if table.name in tables:
                    (location,) = table.c
                    moved = sa.literal(artifacts_uri(folder)).concat(sa.func.substr(location, len(former) + 1))
                    connection.execute(sa.update(table).where(_below(location, former)).values({location.name: moved}))


def _engine(folder: Path) -> sa.Engine:
    # Without a pool no connection stays open. This uses Python's own sqlite3, as MLflow does, because two SQLite
    # libraries in one process drop each other's locks.
    return sa.create_engine(
        sa.URL.create("sqlite", database=str(folder.absolute() / DATABASE)), poolclass=sa.pool.NullPool
    )


def _former_locations(connection: sa.Connection, folder: Path) -> list[str]:
    if not sa.inspect(connection).has_table(_EXPERIMENTS.name):
        return []
    recorded = connection.scalars(sa.select(_EXPERIMENTS.c.artifact_location).distinct())
    return [location for location in recorded if _is_ours(location) and location != artifacts_uri(folder)]


def _is_ours(location: str | None) -> bool:
    """Return whether an installation recorded this location: only ours name a folder `mlartifacts` in a file URI."""
    parts = urlsplit(location or "")
    return parts.scheme == "file" and PurePosixPath(unquote(parts.path)).name == ARTIFACTS


def _below(location: sa.ColumnClause[str], former: str) -> sa.ColumnElement[bool]:
    return sa.or_(location == former, sa.func.substr(location, 1, len(former) + 1) == f"{former}/")


def _copy_if_left_behind(uri: str, former: str, folder: Path) -> None:
    source = Path(unquote(urlsplit(uri).path))
    target = folder / ARTIFACTS / unquote(uri[len(former) + 1 :])
    try:
        if target.exists() or not source.is_dir():
            return
        partial = target.with_name(f".{target.name}-partial")
        shutil.rmtree(partial, ignore_errors=True)
        shutil.copytree(source, partial)
        partial.rename(target)  # so that a killed job leaves no half copy that looks complete
    except OSError as error:  # a former folder may belong to another user; the run's metrics are still here
        logger.warning("the artefacts in %s could not be copied here: %s", source, error)
