"""PostgreSQL is refused if it could lose commits, and its errors never show a password."""

import pytest
import sqlalchemy as sa

from fraud_detection.database.postgresql import limit_statements
from fraud_detection.database.trouble import trouble
from fraud_detection.features import default_features
from fraud_detection.store import Store
from tests.support.refusal import refusal


def test_a_postgresql_that_may_lose_commits_is_refused(postgresql_database: str) -> None:
    Store.create_or_migrate(postgresql_database, default_features()).close()
    careless = sa.make_url(postgresql_database).update_query_dict({"options": "-c synchronous_commit=off"})

    assert refusal(careless.render_as_string(hide_password=False)).reason == "not_durable"


def test_a_database_without_an_encoding_of_its_own_holds_text_all_the_same(postgresql_database: str) -> None:
    url = sa.make_url(postgresql_database)
    server = sa.create_engine(url, isolation_level="AUTOCOMMIT")
    with server.connect() as connection:
        connection.exec_driver_sql(
            f"CREATE DATABASE {url.database}_ascii ENCODING 'SQL_ASCII' LOCALE 'C' TEMPLATE template0"
        )
    url = url.set(database=f"{url.database}_ascii")

    store = Store.create_or_migrate(url.render_as_string(hide_password=False), default_features())
    with store.begin() as connection:
        store.set_meta(connection, "name", "größer")
        found = store.get_meta(connection, "name")
    store.close()
    with server.connect() as connection:
        connection.exec_driver_sql(f"DROP DATABASE {url.database}")
    server.dispose()

    assert found == "größer"


def test_an_unreachable_server_is_named_without_its_password() -> None:
    refused = refusal("postgresql+psycopg://user:geheim@127.0.0.1:1/none")

    assert refused.reason == "unreachable"
    assert "geheim" not in str(refused)


def test_a_statement_has_its_limit_on_postgresql(store: Store) -> None:
    with store.engine.connect() as connection:
        limit_statements(connection, 50)
        if connection.dialect.name == "sqlite":
            return  # its busy timeout limits it already
        with pytest.raises(sa.exc.OperationalError) as late:
            connection.execute(sa.text("SELECT pg_sleep(5)"))

    assert trouble(late.value) == "busy"
