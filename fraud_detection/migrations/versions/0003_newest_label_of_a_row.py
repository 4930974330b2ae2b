"""Adds an index of labels by time, so that a row with many labels costs a request no more than one with a few."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    """Create the index, in the order in which labels count; an older version that still writes fills it as well."""
    op.create_index(
        "ix_labels_newest",
        "labels",
        [
            "request_id",
            "row_index",
            sa.text("reported_at DESC"),
            "source",
            sa.text("received_at DESC"),
            sa.text("is_fraud DESC"),
        ],
    )
