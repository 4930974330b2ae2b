"""Opens PostgreSQL: requires durable settings, sets timeouts, classifies errors.

SQLAlchemy imports psycopg when DATABASE_URL names PostgreSQL; this module works without it.
"""

import sys
from typing import Any

import sqlalchemy as sa

from fraud_detection.database import DatabaseRefused, Trouble


def open_server(url: str, *, read_only: bool) -> sa.Engine:
    """Return an engine on a PostgreSQL URL; connecting to write raises DatabaseRefused if commits could be lost."""
    engine = sa.create_engine(
        url,
        isolation_level="REPEATABLE READ" if read_only else "READ COMMITTED",
        # A server that does not answer must fail within seconds, not block a thread; a database without an encoding
        # (SQL_ASCII, as servers of the C locale create them) would answer in bytes.
        connect_args={"connect_timeout": 3, "tcp_user_timeout": 5000, "client_encoding": "utf8"},
        hide_parameters=True,
    )
    sa.event.listen(engine, "handle_error", _leave_values_out)
    if read_only:
        return engine.execution_options(postgresql_readonly=True)

    @sa.event.listens_for(engine, "connect")
    def _require_durability(connection: Any, _record: object) -> None:
        for name, accepted in (
            ("fsync", {"on"}),
            ("full_page_writes", {"on"}),
            ("synchronous_commit", {"on", "remote_apply"}),
        ):
            value = connection.execute(f"SHOW {name}").fetchone()[0]
            if value not in accepted:
                raise DatabaseRefused(
                    "not_durable",
                    f"PostgreSQL: expected {name} {' or '.join(accepted)}, got {value}; "
                    "change it, because commits could be lost",
                )
        connection.rollback()

    return engine


def _leave_values_out(context: sa.ExceptionContext) -> None:
    """Cut the server's details off an error: they repeat the row, and the log must not contain features or scores."""
    error: Any = context.original_exception
    summary = getattr(getattr(error, "diag", None), "message_primary", None)
    if summary is None:
        return
    whole, error.args = str(error), (summary,)
    wrapping = context.sqlalchemy_exception
    if wrapping is not None:
        wrapping.args = tuple(str(text).replace(whole, summary) for text in wrapping.args)


def limit_statements(connection: sa.Connection, milliseconds: int) -> None:
    """Let PostgreSQL stop statements of this connection after a time; SQLite has its busy timeout instead."""
    if connection.dialect.name == "postgresql":
        driver: Any = connection.connection.driver_connection
        driver.execute(f"SET statement_timeout = {milliseconds}")
        driver.commit()


def trouble_of(error: BaseException | None) -> Trouble | None:
    """Return the kind of storage failure, None if the statement is the cause or the error is not of PostgreSQL."""
    psycopg = sys.modules.get(
        "psycopg"
    )  # SQLAlchemy imports it for a PostgreSQL URL; without it no error can be of PostgreSQL
    if psycopg is None or not isinstance(error, psycopg.Error):
        return None
    state = error.sqlstate or ("08" if isinstance(error, psycopg.OperationalError) else "")
    return next((kind for start, kind in _TROUBLE.items() if state.startswith(start)), None)


_TROUBLE: dict[str, Trouble] = {
    "53100": "full",
    "40": "busy",  # serialisation failure, deadlock
    "55P03": "busy",  # lock not available
    "57014": "busy",  # statement timeout
    "08": "failed",
    "25006": "failed",  # became read-only
    "53": "failed",  # out of memory, too many connections
    "57P": "failed",  # shutting down
    "58": "failed",  # input and output
    "XX001": "corrupt",
    "XX002": "corrupt",
}
