"""Describes the tables, once for SQLite and PostgreSQL; the feature columns come from the installation's list."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any

import sqlalchemy as sa

from fraud_detection.contract import LABEL_SOURCES

REVISION = 5
"""The newest migration; stored with every row as `schema_version`."""

SOURCES = (*LABEL_SOURCES, "import")
"""Who can report a label, strongest first; only a job imports labels."""

# SQLite's STRICT tables have REAL and INTEGER; PostgreSQL's REAL has half the precision.
NUMBER: sa.types.TypeEngine[float] = sa.REAL().with_variant(sa.Double(), "postgresql")
ID: sa.types.TypeEngine[int] = sa.Integer().with_variant(sa.BigInteger(), "postgresql")


class Role(Enum):
    """How a column of `requests` is filled; INSERTs, history and reserved names derive from it."""

    ROW = "every INSERT"
    FEATURE = "every INSERT, with the features of the transaction"
    DECISION = "the INSERT of a scored transaction; NULL in imported history"
    LABEL = "the label that counts; NULL until there is one"
    DATABASE = "the database itself"
    RESERVED = "no code yet"


@dataclass(frozen=True)
class Tables:
    """The tables of one installation."""

    metadata: sa.MetaData
    requests: sa.Table
    labels: sa.Table
    idempotency: sa.Table
    schema_meta: sa.Table


def columns_of_requests(feature_names: Sequence[str]) -> list[sa.Column[Any]]:
    """Describe the columns of `requests` in the order of the table, each with its role."""
    return [
        _column(Role.DATABASE, "id", ID, primary_key=True),
        _column(Role.ROW, "request_id", sa.Text(), nullable=False),
        _column(Role.ROW, "row_index", sa.Integer(), nullable=False),
        _column(Role.ROW, "ts", sa.Text(), nullable=False, index=True),
        *(_column(Role.FEATURE, name, NUMBER, nullable=False) for name in feature_names),
        _column(Role.DECISION, "fraud_probability", NUMBER),
        _column(Role.DECISION, "threshold", NUMBER),
        _column(Role.DECISION, "is_flagged", sa.Integer()),
        _column(Role.DECISION, "model_version", sa.Text()),
        _column(Role.DECISION, "model_digest", sa.Text()),
        _column(Role.ROW, "transaction_id", sa.Text()),
        _column(Role.ROW, "schema_version", sa.Integer(), nullable=False),
        _column(Role.RESERVED, "review_propensity", NUMBER),
        _column(Role.LABEL, "Class", sa.Integer()),
    ]


def _column(role: Role, name: str, kind: sa.types.TypeEngine[Any], **options: Any) -> sa.Column[Any]:
    return sa.Column(name, kind, info={"role": role}, **options)


def _columns_of_labels() -> list[sa.Column[Any]]:
    return [
        sa.Column("id", ID, primary_key=True),
        sa.Column("request_id", sa.Text, nullable=False),
        sa.Column("row_index", sa.Integer, nullable=False),
        sa.Column("is_fraud", sa.Integer, nullable=False),
        sa.Column("source", sa.Text, nullable=False),
        sa.Column("reporter", sa.Text, nullable=False),
        sa.Column("reported_at", sa.Text, nullable=False),
        sa.Column("received_at", sa.Text, nullable=False),
        _since(4, sa.Column("token_name", sa.Text)),
    ]


def _since(revision: int, column: sa.Column[Any]) -> sa.Column[Any]:
    """Mark a column that stores of earlier revisions do not have."""
    column.info["since"] = revision
    return column


def _of_revision(revision: int, columns: list[sa.Column[Any]]) -> list[sa.Column[Any]]:
    return [column for column in columns if column.info.get("since", 1) <= revision]


RESERVED_NAMES = frozenset(column.name.lower() for column in columns_of_requests([]))
"""Names in lower case that no feature may have, because SQLite ignores case in column names."""


def names_of(requests: sa.Table, *roles: Role) -> list[str]:
    """Return the names of the columns of `requests` that have one of these roles, in the order of the table."""
    return [column.name for column in requests.columns if column.info["role"] in roles]


def tables(feature_names: Sequence[str], revision: int = REVISION) -> Tables:
    """Describe the tables that store transactions of these features, without the columns of later revisions."""
    metadata = sa.MetaData()
    requests = sa.Table(
        "requests",
        metadata,
        *_of_revision(revision, columns_of_requests(feature_names)),
        sa.UniqueConstraint("request_id", "row_index"),
        sa.CheckConstraint("fraud_probability BETWEEN 0 AND 1", name="a_probability"),
        sa.CheckConstraint(
            "(fraud_probability IS NULL) = (threshold IS NULL) AND (threshold IS NULL) = (is_flagged IS NULL)"
            " AND (is_flagged IS NULL) = (model_digest IS NULL)",
            name="scored_or_not",  # imported history was never scored; every other row is scored whole
        ),
        sa.CheckConstraint('"Class" IN (0, 1)', name="a_class"),
        sqlite_strict=True,
    )
    sa.Index(
        "ix_requests_newest",
        requests.c.transaction_id,
        requests.c.ts.desc(),
        requests.c.row_index,
        sqlite_where=requests.c.transaction_id.is_not(None),
        postgresql_where=requests.c.transaction_id.is_not(None),
    )
    labels = sa.Table(
        "labels",
        metadata,
        *_of_revision(revision, _columns_of_labels()),
        sa.ForeignKeyConstraint(["request_id", "row_index"], ["requests.request_id", "requests.row_index"]),
        sa.UniqueConstraint("request_id", "row_index", "is_fraud", "source", "reporter", "reported_at"),
        sa.CheckConstraint("is_fraud IN (0, 1)", name="a_truth"),
        sqlite_strict=True,
    )
    sa.Index(
        "ix_labels_newest",
        labels.c.request_id,
        labels.c.row_index,
        labels.c.reported_at.desc(),
        labels.c.source,
        labels.c.received_at.desc(),
        labels.c.is_fraud.desc(),
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
