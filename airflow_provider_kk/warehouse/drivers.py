"""Differences between the warehouse's drivers: transactions, cursors, and rows, which are tuples here."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from airflow.providers.common.sql.hooks.sql import DbApiHook

#: For each driver whose connections can yield other rows: a module, and the argument of `cursor()` with the
#: module's value of it for tuples.
_PLAIN = {
    "psycopg": ("psycopg.rows", "row_factory", "tuple_row"),
    "psycopg2": ("psycopg2.extensions", "cursor_factory", "cursor"),
    "MySQLdb": ("MySQLdb.cursors", "cursorclass", "Cursor"),
    "pymysql": ("pymysql.cursors", "cursor", "Cursor"),
}


def driver_of(connection: Any) -> str:
    """Return the top-level package of a connection's driver."""
    return type(connection).__module__.partition(".")[0]


def plain_cursor(connection: Any, **arguments: Any) -> Any:
    """Open a cursor that yields tuples, whatever rows the connection is set up to yield.

    A connection's `cursor` extra, such as `dictcursor`, is for other code. `arguments` win over those for
    tuples.
    """
    if driver_of(connection) in _PLAIN:
        module, argument, value = _PLAIN[driver_of(connection)]
        arguments = {argument: getattr(sys.modules[module], value), **arguments}
    return connection.cursor(**arguments)


def tuples(cursor: Any, rows: Iterable[Any]) -> list[tuple[Any, ...]]:
    """Return fetched rows as tuples, those too that a driver yields as dictionaries all the same."""
    names = [column[0] for column in cursor.description or ()]
    return [tuple(row[name] for name in names) if isinstance(row, Mapping) else tuple(row) for row in rows]


def leave_autocommit(hook: DbApiHook, connection: Any) -> bool:
    """Turn autocommit off, which is on by default with JDBC and where a connection asks for it.

    Returns whether changes now wait for a commit. They do not on a warehouse that has no transactions.
    """
    if not hook.get_autocommit(connection):
        return True
    with contextlib.suppress(Exception):  # whatever the driver raises
        hook.set_autocommit(connection, False)
    return not hook.get_autocommit(connection)
