"""A store that holds what could change, hide or reject rows is refused, and each such object is named."""

import pytest

from fraud_detection.database import DatabaseRefused
from fraud_detection.store import Store
from tests.support.refusal import refusal

ON_SQLITE = {
    "CREATE TRIGGER thief AFTER INSERT ON requests BEGIN DELETE FROM labels; END": 'trigger "thief" on "requests"',
    "CREATE TRIGGER forger AFTER UPDATE ON labels BEGIN SELECT 1; END": 'trigger "forger" on "labels"',
    "CREATE VIEW daily AS SELECT * FROM requests": 'view "daily"',
    "CREATE VIRTUAL TABLE words USING fts5(word)": 'virtual table "words"',
    "CREATE UNIQUE INDEX one_a_day ON requests (ts)": 'index "one_a_day" on "requests"',
    "CREATE INDEX sizes ON requests (abs(V1))": 'index "sizes" on "requests"',
    "CREATE INDEX large ON requests (V1) WHERE abs(V1) > 1": 'index "large" on "requests"',
    "CREATE TABLE notes (of INTEGER REFERENCES Requests (id))": 'table "notes" that refers to "Requests"',
}
ON_POSTGRESQL = {
    "CREATE TRIGGER thief BEFORE UPDATE ON labels FOR EACH ROW EXECUTE FUNCTION suppress_redundant_updates_trigger()": (
        'trigger "thief" on "labels"'
    ),
    "CREATE RULE forger AS ON INSERT TO requests DO INSTEAD NOTHING": 'rule "forger" on "requests"',
    "CREATE POLICY veil ON requests USING (false)": 'row policy "veil" on "requests"',
    "ALTER TABLE idempotency RENAME TO kept; CREATE VIEW idempotency AS SELECT * FROM kept": (
        'view "idempotency" on "idempotency"'
    ),
}


def run(store: Store, *statements: str) -> None:
    with store.begin() as connection:
        for statement in statements:
            connection.exec_driver_sql(statement)


@pytest.mark.parametrize("statement", ON_SQLITE)
def test_what_could_change_hide_or_reject_rows_is_refused(sqlite_store: Store, statement: str) -> None:
    run(sqlite_store, statement)

    refused = refusal(sqlite_store.location)
    with pytest.raises(DatabaseRefused) as not_started:
        Store.create_or_migrate(sqlite_store.location, sqlite_store.features)

    assert (refused.reason, not_started.value.reason) == ("foreign_objects", "foreign_objects")
    assert f"hide rows: {ON_SQLITE[statement]}; if you made it, stop the API and drop it" in str(refused)


@pytest.mark.parametrize("location", ["postgresql"], indirect=True)
@pytest.mark.parametrize("statement", ON_POSTGRESQL)
def test_postgresql_is_searched_for_what_acts_on_our_tables(store: Store, statement: str) -> None:
    run(store, *statement.split("; "))

    assert f"hide rows: {ON_POSTGRESQL[statement]}; " in str(refusal(store.location))


def test_an_index_of_ours_that_was_made_anew_in_another_way_is_refused(sqlite_store: Store) -> None:
    run(sqlite_store, "DROP INDEX ix_requests_ts", "CREATE UNIQUE INDEX ix_requests_ts ON requests (ts)")

    assert 'index "ix_requests_ts" on "requests"' in str(refusal(sqlite_store.location))


@pytest.mark.parametrize(
    "statement",
    [
        "CREATE TABLE _litestream_seq (id INTEGER PRIMARY KEY, seq INTEGER)",
        "CREATE TABLE counters (id INTEGER PRIMARY KEY AUTOINCREMENT, day TEXT UNIQUE)",
        "CREATE INDEX by_amount ON requests (request_id, row_index)",
        "ANALYZE",
    ],
)
def test_what_does_nothing_to_our_rows_is_left_alone(store: Store, statement: str) -> None:
    if store.engine.dialect.name == "postgresql":
        statement = statement.replace("AUTOINCREMENT", "")
    run(store, statement)

    Store.open(store.location, store.features).close()


@pytest.mark.parametrize(
    "of_revision",
    ["UPDATE alembic_version SET version_num = '0001'", "UPDATE alembic_version SET version_num = '0099'"],
)
def test_another_revision_may_have_indexes_that_this_one_does_not_know(sqlite_store: Store, of_revision: str) -> None:
    run(
        sqlite_store,
        of_revision,
        "CREATE UNIQUE INDEX of_another_time ON requests (request_id, ts)",
    )

    Store.open(sqlite_store.location, sqlite_store.features).close()
    run(sqlite_store, "CREATE VIEW daily AS SELECT 1")
    assert 'view "daily"' in str(refusal(sqlite_store.location))


def test_names_from_the_file_reach_no_terminal_as_they_are(sqlite_store: Store) -> None:
    run(sqlite_store, 'CREATE VIEW "\x1b[2J\n""mine" AS SELECT 1', f"CREATE VIEW {'long' * 1000} AS SELECT 1")

    told = str(refusal(sqlite_store.location))

    assert r'view "\u001b[2J\n\"mine"' in told
    assert len(told) < 600


def test_a_name_in_sqlites_own_form_excuses_no_trigger(sqlite_store: Store) -> None:
    run(
        sqlite_store,
        "CREATE TRIGGER thief AFTER INSERT ON requests BEGIN DELETE FROM labels; END",
        "PRAGMA writable_schema = ON",
        "UPDATE sqlite_schema SET name = 'sqlite_thief', sql = replace(sql, 'thief', 'sqlite_thief')"
        " WHERE name = 'thief'",
    )

    assert 'trigger "sqlite_thief" on "requests"' in str(refusal(sqlite_store.location))


def test_of_many_objects_the_first_are_named_and_the_rest_counted(sqlite_store: Store) -> None:
    run(sqlite_store, *(f"CREATE VIEW view_{number} AS SELECT 1" for number in range(8)))

    told = str(refusal(sqlite_store.location))

    assert 'view "view_4" and 3 more; ' in told
    assert "view_5" not in told
