"""Classifies errors: by the kind of storage failure, or as caused by the statement."""

import sqlalchemy as sa
from pysqlite3 import dbapi2

from fraud_detection.database import DatabaseRefused, Trouble, postgresql, sqlite
from fraud_detection.database.open_files import StoreVanished


def trouble(error: BaseException | None) -> Trouble | None:
    """Return the kind of storage failure, None if the statement, its values or something else is the cause."""
    if isinstance(error, StoreVanished):
        return "vanished"
    if isinstance(error, DatabaseRefused):
        return "corrupt" if error.reason == "corrupt" else "failed"
    driver_error = error.orig if isinstance(error, sa.exc.DBAPIError) else error
    if isinstance(driver_error, dbapi2.Error):
        return sqlite.trouble_of(driver_error)
    return postgresql.trouble_of(driver_error)
