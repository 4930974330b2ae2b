"""The tables, once, for SQLite and PostgreSQL alike; the feature columns come from the FeatureList."""

from dataclasses import dataclass

import sqlalchemy as sa

from fraud_detection.features import FeatureList

REVISION = 1
"""The newest migration; stored with every row as `schema_version`."""

SOURCES = ("analyst", "chargeback", "customer", "review", "import")
"""Who can say what a transaction turned out to be, strongest first."""

# SQLite's STRICT tables know REAL and INTEGER; PostgreSQL's REAL would have half the precision.
NUMBER: sa.types.TypeEngine[float] = sa.REAL().with_variant(sa.Double(), "postgresql")
ID: sa.types.TypeEngine[int] = sa.Integer().with_variant(sa.BigInteger(), "postgresql")


@dataclass(frozen=True)
class Tables:
    """The tables of one installation."""

    metadata: sa.MetaData
    requests: sa.Table
    labels: sa.Table
    idempotency: sa.Table
    schema_meta: sa.Table


def tables(features: FeatureList) -> Tables:
    """Describe the tables that store transactions of these features."""
    metadata = sa.MetaData()
    requests = sa.Table(
        "requests",
        metadata,
        sa.Column("id", ID, primary_key=True),
        sa.Column("request_id", sa.Text, nullable=False),
        sa.Column("row_index", sa.Integer, nullable=False),
        sa.Column("ts", sa.Text, nullable=False, index=True),
        *(sa.Column(name, NUMBER, nullable=False) for name in features.names),
        sa.Column("fraud_probability", NUMBER),
        sa.Column("threshold", NUMBER),
        sa.Column("is_flagged", sa.Integer),
        sa.Column("model_version", sa.Text),
        sa.Column("model_digest", sa.Text),
        sa.Column("transaction_id", sa.Text),
        sa.Column("schema_version", sa.Integer, nullable=False),
        sa.Column("review_propensity", NUMBER),
        sa.Column("Class", sa.Integer),
        sa.UniqueConstraint("request_id", "row_index"),
        sa.CheckConstraint("fraud_probability BETWEEN 0 AND 1", name="a_probability"),
        sa.CheckConstraint(
            "(fraud_probability IS NULL) = (threshold IS NULL) AND (threshold IS NULL) = (is_flagged IS NULL)"
            " AND (is_flagged IS NULL) = (model_digest IS NULL)",
            name="scored_or_not",  # imported history was never scored, everything else is scored whole
        ),
        sa.CheckConstraint('"Class" IN (0, 1)', name="a_class"),
        sqlite_strict=True,
    )
    sa.Index(
        "ix_requests_transaction_id",
        requests.c.transaction_id,
        sqlite_where=requests.c.transaction_id.is_not(None),
        postgresql_where=requests.c.transaction_id.is_not(None),
    )
    labels = sa.Table(
        "labels",
        metadata,
        sa.Column("id", ID, primary_key=True),
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
    idempotency = sa.Table(
        "idempotency",
        metadata,
        sa.Column("idempotency_key", sa.Text, primary_key=True),
        sa.Column("body_sha256", sa.Text, nullable=False),
        sa.Column("request_id", sa.Text, nullable=False, index=True),
        sa.Column("ts", sa.Text, nullable=False),
        sqlite_strict=True,
    )
    schema_meta = sa.Table(
        "schema_meta",
        metadata,
        sa.Column("key", sa.Text, primary_key=True),
        sa.Column("value", sa.Text, nullable=False),
        sqlite_strict=True,
    )
    return Tables(metadata, requests, labels, idempotency, schema_meta)
