"""Orders the index of transaction_id by time, so that a look-up reads the newest rows and no others."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Replace the index; an older version that still writes uses the new one as well."""
    with_id = sa.text("transaction_id IS NOT NULL")
    op.create_index(
        "ix_requests_newest",
        "requests",
        ["transaction_id", sa.text("ts DESC"), "row_index"],
        sqlite_where=with_id,
        postgresql_where=with_id,
    )
    op.drop_index("ix_requests_transaction_id", "requests")
