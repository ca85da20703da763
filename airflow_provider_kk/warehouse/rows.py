"""Cursors and rows of any driver: a row is a tuple, in the order of the statement's columns."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from typing import Any

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
