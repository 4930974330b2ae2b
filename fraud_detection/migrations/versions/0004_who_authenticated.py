"""Adds to labels the name of the token that reported them."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    """Add the column, empty for labels of before; an older version that still writes leaves it empty."""
    op.add_column("labels", sa.Column("token_name", sa.Text))
