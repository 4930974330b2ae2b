"""The columns of the schema are those that inserts, history and listings use."""

from dataclasses import fields

import numpy as np
import pytest
import sqlalchemy as sa

from fraud_detection.clock import Clock
from fraud_detection.features import BadFeatureList, Feature, FeatureList, default_features
from fraud_detection.schema import RESERVED_NAMES, REVISION, Role, names_of, tables
from fraud_detection.store import Store, decisions, transfer
from fraud_detection.store.decisions import ScoredRequest
from fraud_detection.store.history import History, listed_columns
from fraud_detection.store.labels import Label
from fraud_detection.store.transfer import ImportedRows

FEATURES = default_features()
TABLES = tables(FEATURES.names)
NOT_LISTED = {"schema_version", "model_digest"}  # for programs, not for analysts


def stored_row(store: Store) -> dict[str, object]:
    with store.begin() as connection:
        return dict(connection.execute(sa.select(store.tables.requests)).mappings().one())


def test_every_column_but_the_features_is_a_reserved_name() -> None:
    names = {column.name.lower() for column in TABLES.requests.columns}

    assert names - {name.lower() for name in FEATURES.names} == RESERVED_NAMES


@pytest.mark.parametrize("name", sorted(RESERVED_NAMES))
def test_no_feature_takes_a_reserved_name(name: str) -> None:
    with pytest.raises(BadFeatureList, match="is a column of every store"):
        FeatureList((Feature(name.upper()),))


def test_a_scored_transaction_fills_its_columns_and_no_others(store: Store) -> None:
    ts, request_id = Clock().tick()
    numbers = np.arange(29.0)
    request = ScoredRequest(request_id, ts, numbers.reshape(1, 29), [0.5], 0.25, "version", "digest", ["id"])
    with store.begin() as connection:
        decisions.append(store, connection, [request])

    row = stored_row(store)

    expected = {
        "request_id": request_id,
        "row_index": 0,
        "ts": ts,
        **dict(zip(FEATURES.names, numbers, strict=True)),
        "fraud_probability": 0.5,
        "threshold": 0.25,
        "is_flagged": 1,
        "model_version": "version",
        "model_digest": "digest",
        "transaction_id": "id",
        "schema_version": REVISION,
    }
    assert {name: value for name, value in row.items() if name != "id" and value is not None} == expected
    assert list(expected) == names_of(TABLES.requests, Role.ROW, Role.FEATURE, Role.DECISION)


def test_imported_history_fills_its_columns_and_no_others(store: Store) -> None:
    ts, request_id = Clock().tick()
    numbers = np.arange(29.0)
    imported = ImportedRows(request_id, [ts], numbers.reshape(1, 29), [True], ["id"])
    with store.begin() as connection:
        transfer.import_history(store, connection, [imported], reporter="old.csv", received_at=ts)

    row = stored_row(store)

    expected = {
        "request_id": request_id,
        "row_index": 0,
        "ts": ts,
        **dict(zip(FEATURES.names, numbers, strict=True)),
        "transaction_id": "id",
        "schema_version": REVISION,
        "Class": 1,
    }
    assert {name: value for name, value in row.items() if name != "id" and value is not None} == expected
    assert list(expected) == names_of(TABLES.requests, Role.ROW, Role.FEATURE, Role.LABEL)


def test_a_label_has_the_columns_of_its_table() -> None:
    assert ["id", *(field.name for field in fields(Label))] == [column.name for column in TABLES.labels.columns]


def test_history_holds_columns_under_their_own_names() -> None:
    derived = {"matrix", "is_fraud", "label_source"}  # the features together, and the label that counts

    names = {field.name for field in fields(History)} - derived

    assert names < set(names_of(TABLES.requests, Role.ROW, Role.DECISION))


def test_a_listing_leaves_out_only_what_analysts_do_not_need() -> None:
    listed = set(listed_columns(FEATURES).values())

    assert listed == set(names_of(TABLES.requests, Role.ROW, Role.FEATURE, Role.DECISION, Role.LABEL)) - NOT_LISTED
