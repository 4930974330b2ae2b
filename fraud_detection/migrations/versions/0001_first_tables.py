"""Creates the first tables: requests, labels, idempotency, schema_meta."""

import sqlalchemy as sa
from alembic import context, op

revision = "0001"
down_revision = None


def upgrade() -> None:
    """Create the tables; the feature columns come from the installation's feature list."""
    number: sa.types.TypeEngine[float] = sa.REAL().with_variant(sa.Double(), "postgresql")
    identifier: sa.types.TypeEngine[int] = sa.Integer().with_variant(sa.BigInteger(), "postgresql")
    op.create_table(
        "requests",
        sa.Column("id", identifier, primary_key=True),
        sa.Column("request_id", sa.Text, nullable=False),
        sa.Column("row_index", sa.Integer, nullable=False),
        sa.Column("ts", sa.Text, nullable=False),
        *(sa.Column(name, number, nullable=False) for name in context.config.attributes["features"].names),
        sa.Column("fraud_probability", number),
        sa.Column("threshold", number),
        sa.Column("is_flagged", sa.Integer),
        sa.Column("model_version", sa.Text),
        sa.Column("model_digest", sa.Text),
        sa.Column("transaction_id", sa.Text),
        sa.Column("schema_version", sa.Integer, nullable=False),
        sa.Column("review_propensity", number),
        sa.Column("Class", sa.Integer),
        sa.UniqueConstraint("request_id", "row_index"),
        sa.CheckConstraint("fraud_probability BETWEEN 0 AND 1", name="a_probability"),
        sa.CheckConstraint(
            "(fraud_probability IS NULL) = (threshold IS NULL) AND (threshold IS NULL) = (is_flagged IS NULL)"
            " AND (is_flagged IS NULL) = (model_digest IS NULL)",
            name="scored_or_not",
        ),
        sa.CheckConstraint('"Class" IN (0, 1)', name="a_class"),
        sqlite_strict=True,
    )
    op.create_index("ix_requests_ts", "requests", ["ts"])
    with_id = sa.text("transaction_id IS NOT NULL")
    op.create_index(
        "ix_requests_transaction_id",
        "requests",
        ["transaction_id"],
        sqlite_where=with_id,
        postgresql_where=with_id,
    )
    op.create_table(
        "labels",
        sa.Column("id", identifier, primary_key=True),
        sa.Column("request_id", sa.Text, nullable=False),
        sa.Column("row_index", sa.Integer, nullable=False),
        sa.Column("is_fraud", sa.Integer, nullable=False),
        sa.Column("source", sa.Text, nullable=False),
        sa.Column("reporter", sa.Text, nullable=False),
        sa.Column("reported_at", sa.Text, nullable=False),
        sa.Column("received_at", sa.Text, nullable=False),
        sa.ForeignKeyConstraint(["request_id", "row_index"], ["requests.request_id", "requests.row_index"]),
        sa.UniqueConstraint("request_id", "row_index", "is_fraud", "source", "reporter", "reported_at"),
        sa.CheckConstraint("is_fraud IN (0, 1)", name="a_truth"),
        sqlite_strict=True,
    )
    op.create_table(
        "idempotency",
        sa.Column("idempotency_key", sa.Text, primary_key=True),
        sa.Column("body_sha256", sa.Text, nullable=False),
        sa.Column("request_id", sa.Text, nullable=False),
        sa.Column("ts", sa.Text, nullable=False),
        sqlite_strict=True,
    )
    op.create_index("ix_idempotency_request_id", "idempotency", ["request_id"])
    op.create_table(
        "schema_meta",
        sa.Column("key", sa.Text, primary_key=True),
        sa.Column("value", sa.Text, nullable=False),
        sqlite_strict=True,
    )
