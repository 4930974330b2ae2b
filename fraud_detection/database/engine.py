"""Opens the database at a location: an SQLite file by its path, PostgreSQL by its URL."""

from pathlib import Path

import sqlalchemy as sa

from fraud_detection.database import postgresql, sqlite


def open_engine(location: str | Path, *, read_only: bool = False, allow_network_filesystem: bool = False) -> sa.Engine:
    """Return an engine on a PostgreSQL URL or an SQLite file; the file is not created.

    Raises: DatabaseRefused.
    """
    if isinstance(location, str):
        return postgresql.open_server(location, read_only=read_only)
    return sqlite.open_file(location, read_only=read_only, allow_network_filesystem=allow_network_filesystem)


def create_engine(location: str | Path, *, allow_network_filesystem: bool = False) -> sa.Engine:
    """Return an engine as `open_engine` does, but create an SQLite file that does not exist yet.

    Raises: DatabaseRefused.
    """
    if isinstance(location, str):
        return postgresql.open_server(location, read_only=False)
    return sqlite.create_file(location, allow_network_filesystem=allow_network_filesystem)
