"""SQL of the user reaches the database unchanged."""

from fraud_detection.database.query import run_query
from fraud_detection.store import Store, decisions
from tests.support.transactions import scored


def test_runs_sql_as_it_is_written(store: Store) -> None:
    with store.begin() as connection:
        decisions.append(store, connection, [scored(3, transaction_ids=["a", "b", None])])

        names, rows = run_query(
            connection, "SELECT transaction_id, ':x' AS literal FROM requests WHERE transaction_id LIKE '%b%'"
        )

        assert (names, list(rows)) == (["transaction_id", "literal"], [("b", ":x")])
