"""Marks the revision from which on rows of the public features are within the bounds of the built-in list."""

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    """Leave the tables as they are: `schema_version` of each new row says which bounds it was accepted by."""
