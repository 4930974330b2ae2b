"""Finds what our migrations did not make in a database and what could change, hide or block our rows."""

import json
from collections.abc import Iterator

import sqlalchemy as sa

from fraud_detection.schema import Tables

_LONGEST_NAME = 60


def foreign_objects(tables: Tables, connection: sa.Connection, *, is_other_revision: bool) -> list[str]:
    """Return kind and name of each such object, names quoted because they come from the file.

    Ordinary tables and indexes of others are left alone: they do nothing to our rows, unless the table refers to ours,
    or the index is unique, partial or of an expression. Another revision may have indexes that this one does not know.
    """
    find = _in_sqlite if connection.dialect.name == "sqlite" else _in_postgresql
    return sorted(find(tables.metadata, connection, is_other_revision=is_other_revision))


def _in_sqlite(ours: sa.MetaData, connection: sa.Connection, *, is_other_revision: bool) -> Iterator[str]:
    # A name that starts with sqlite_ excuses no trigger, view or virtual table: the author of the file chooses it.
    objects = connection.execute(sa.text("SELECT type, name, tbl_name, rootpage, sql FROM sqlite_schema")).all()
    for kind, name, table, rootpage, sql in objects:
        if kind == "trigger":
            yield f"trigger {_quoted(name)} on {_quoted(table)}"
        elif kind == "view":
            yield f"view {_quoted(name)}"
        elif kind == "table" and not rootpage:
            yield f"virtual table {_quoted(name)}"
        elif (
            kind == "index"
            and sql
            and table in ours.tables
            and not is_other_revision
            and _can_reject(ours, connection, name)
        ):
            yield f"index {_quoted(name)} on {_quoted(table)}"
    references = sa.text(
        'SELECT DISTINCT m.name, f."table" FROM sqlite_schema AS m JOIN pragma_foreign_key_list(m.name) AS f'
        " WHERE m.type = 'table'"
    )
    for name, refers_to in connection.execute(references):
        if name not in ours.tables and refers_to.lower() in ours.tables:
            yield f"table {_quoted(name)} that refers to {_quoted(refers_to)}"


def _can_reject(ours: sa.MetaData, connection: sa.Connection, name: str) -> bool:
    """Return whether an index can reject rows and is not what the schema describes under its name."""
    described = {
        str(index.name): (
            bool(index.unique),
            index.dialect_options["sqlite"]["where"] is not None,
            [column.name for column in index.columns],
        )
        for table in ours.tables.values()
        for index in table.indexes
    }
    is_unique, is_partial = connection.execute(
        sa.text(
            'SELECT l."unique", l.partial FROM sqlite_schema AS m JOIN pragma_index_list(m.tbl_name) AS l'
            " ON l.name = m.name WHERE m.type = 'index' AND m.name = :name"
        ),
        {"name": name},
    ).one()
    info = sa.text("SELECT name FROM pragma_index_info(:name) ORDER BY seqno")
    columns = list(connection.execute(info, {"name": name}).scalars())  # that of an expression has no name
    is_plain = not is_unique and not is_partial and None not in columns
    return not is_plain and described.get(name) != (bool(is_unique), bool(is_partial), columns)


def _in_postgresql(ours: sa.MetaData, connection: sa.Connection, *, is_other_revision: bool) -> Iterator[str]:
    del is_other_revision  # only what acts on rows counts: administrators add indexes
    objects = connection.execute(
        sa.text(
            "WITH ours AS (SELECT oid, relname, relkind FROM pg_class"
            " WHERE oid IN (SELECT to_regclass(name) FROM unnest(CAST(:names AS text[])) AS name))"
            " SELECT 'trigger', tgname, relname FROM pg_trigger JOIN ours ON ours.oid = tgrelid WHERE NOT tgisinternal"
            " UNION ALL SELECT 'rule', rulename, relname FROM pg_rewrite JOIN ours ON ours.oid = ev_class"
            " WHERE relkind IN ('r', 'p')"
            " UNION ALL SELECT 'row policy', polname, relname FROM pg_policy JOIN ours ON ours.oid = polrelid"
            " UNION ALL SELECT 'view', relname, relname FROM ours WHERE relkind NOT IN ('r', 'p')"
        ),
        {"names": list(ours.tables)},
    )
    for kind, name, table in objects:
        yield f"{kind} {_quoted(name)} on {_quoted(table)}"


def _quoted(name: str) -> str:
    """Return a name so that no control character of it reaches a terminal or a log."""
    return json.dumps(name if len(name) <= _LONGEST_NAME else f"{name[:_LONGEST_NAME]}…")
