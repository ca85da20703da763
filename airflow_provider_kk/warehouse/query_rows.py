"""Run a statement on a warehouse, copy all its rows, then release the warehouse."""

from __future__ import annotations

import contextlib
import logging
import re
import sqlite3
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import islice
from typing import TYPE_CHECKING, Any

from airflow_provider_kk.delivery.sql.driver_errors import is_of_statement, number, redact_db_error, sqlstate
from airflow_provider_kk.warehouse.mapping_arguments import Check, ColumnsError
from airflow_provider_kk.warehouse.spool import Spool
from airflow_provider_kk.warehouse.sql import (
    PERCENT_STYLES,
    driver_of,
    leave_autocommit,
    plain_cursor,
    style_of,
    tuples,
)

if TYPE_CHECKING:
    from airflow.providers.common.sql.hooks.sql import DbApiHook

    from airflow_provider_kk.delivery.log import Log

_ROWS_PER_FETCH = 1_000
_LOG_EVERY_S = 10.0
_log = logging.getLogger(__name__)


class ReadError(RuntimeError):
    """The warehouse did not run the statement, or not to its end; the text holds nothing of its rows.

    `is_for_good`: the statement is at fault, so that a retry would not help.
    """

    def __init__(self, text: str, *, is_for_good: bool) -> None:
        super().__init__(text)
        self.is_for_good = is_for_good


def read_rows(
    hook: DbApiHook,
    sql: str,
    parameters: Sequence[Any] | Mapping[str, Any] | None = None,
    log: Log | None = None,
    *,
    check: Check = lambda _: None,
    only_reads: bool = False,
) -> Spool:
    """Read all rows of `sql`, and close cursor and connection, also when this raises.

    Nothing is committed: what the statement changes besides, on a warehouse with transactions, is undone.
    `check` is called with the column names before the first row is kept, and stops the reading by raising.
    With `only_reads`, SQLite, PostgreSQL and MySQL reject a statement that would change anything, DROP TABLE
    for one, which is not undone everywhere. Other warehouses are not asked for it.
    Raises ColumnsError when `sql` is not one statement, or returns no rows at all to read (it is no SELECT),
    ReadError when the warehouse rejects it, and whatever its driver raises while it connects.
    """
    log = log or _log
    _check_statement(hook, sql, parameters)
    if getattr(hook, "strip_semicolon", False):
        sql = sql.strip().rstrip(";")
    started = time.monotonic()
    with contextlib.ExitStack() as warehouse:
        connection = hook.get_conn()
        warehouse.callback(_close, connection, log)
        if hook.get_autocommit(connection) and leave_autocommit(hook, connection):
            # Some drivers close no connection in the middle of a transaction.
            warehouse.callback(_roll_back, connection)
        if only_reads:
            _forbid_changes(connection)
        cursor = _open_cursor(connection, sql)
        warehouse.callback(_close, cursor, log)
        arguments = (sql, parameters) if parameters else (sql,)
        has_percent = bool(parameters) and _takes_percent_for_place(sql, style_of(hook, connection))
        advice = _DOUBLE_IT if has_percent else ""
        _ask(cursor, sql, lambda: cursor.execute(*arguments), binds=bool(parameters), advice=advice)
        # psycopg2's named cursors describe their columns only once something was fetched.
        first = _fetch(cursor, sql) if cursor.description or _is_named(cursor) else []
        if not cursor.description:
            raise ColumnsError("the statement returns no rows to read: `sql` must be one SELECT")
        names = tuple(str(column[0]).lower() for column in cursor.description)
        check(names)
        spool = Spool.filled(names, _rows(cursor, sql, first, log))
    log.info("Read %d rows in %.1f s; the warehouse is closed", spool.rows, time.monotonic() - started)
    return spool


def _fetch(cursor: Any, sql: str) -> list[tuple[Any, ...]]:
    return tuples(cursor, _ask(cursor, sql, lambda: cursor.fetchmany(_ROWS_PER_FETCH)))


def _rows(cursor: Any, sql: str, batch: list[tuple[Any, ...]], log: Log) -> Iterator[tuple[Any, ...]]:
    """Yield all rows from the first batch on; raise if there is another result, whose rows would be lost."""
    logged, count = time.monotonic(), 0
    while batch:
        yield from batch
        count += len(batch)
        if time.monotonic() - logged > _LOG_EVERY_S:
            logged = time.monotonic()
            log.info("Read %d rows so far", count)
        batch = _fetch(cursor, sql)
    while not _is_named(cursor) and _ask(cursor, sql, lambda: _next_result(cursor)):
        if cursor.description:
            raise ColumnsError("the statement returns more than one result: `sql` must be one SELECT")


def _next_result(cursor: Any) -> Any:
    try:
        return cursor.nextset()
    except Exception as error:
        # PEP 249 leaves it to the driver whether there are further results.
        if isinstance(error, AttributeError) or type(error).__name__.startswith("NotSupported"):
            return None
        raise


def _ask(cursor: Any, sql: str, call: Callable[[], Any], *, binds: bool = False, advice: str = "") -> Any:
    """Call the driver; with `binds`, what fails before the warehouse is asked gets an `advice`.

    Raises ReadError.
    """
    try:
        return call()
    except Exception as error:  # whatever the driver raises
        names = [str(column[0]) for column in cursor.description or ()]
        fault, is_for_good = redact_db_error(error, sql, *names), is_of_statement(error)
        if binds and _is_of_binding(error):
            fault, is_for_good = f"{fault}{advice}", True
    # Outside of the handler: the driver's error may hold a name, and a traceback has the whole chain.
    raise ReadError(fault, is_for_good=is_for_good)


_DOUBLE_IT = ". With `parameters`, write a literal % twice: LIKE '%%shirt'"


def _is_of_binding(error: Exception) -> bool:
    """Return whether the driver could not put the parameters into the statement, so that nothing was run."""
    if isinstance(error, (TypeError, ValueError, IndexError, KeyError)):
        return True
    if sqlstate(error) or number(error) is not None:
        return False
    name = type(error).__name__
    return name == "ProgrammingError" or (name == "InterfaceError" and "%" in str(error))


def _takes_percent_for_place(sql: str, style: str) -> bool:
    """Return whether the driver reads a % of the statement, such as one of LIKE, as a parameter."""
    if style not in PERCENT_STYLES:
        return False
    bare = sql.replace("%%", "")
    return bool(re.search(r"%(?![sbt(])|'[^']*%[^']*'", bare))


def _check_statement(hook: DbApiHook, sql: str, parameters: object) -> None:
    if not sql or not sql.strip():
        raise ColumnsError("sql is empty")
    if parameters and getattr(hook, "conn_type", "") == "gcpbigquery" and not isinstance(parameters, Mapping):
        raise ColumnsError(
            "BigQuery takes parameters by name only: pass a dict, and write %(name)s in the statement"
        )
    if (count := _statements(sql)) > 1:
        # Some drivers would run all of them and return the first one's rows.
        raise ColumnsError(
            f"sql holds {count} statements: `sql` must be one SELECT (comments and a `;` at its end are fine)"
        )


def _statements(sql: str) -> int:
    import sqlparse

    # Whether a backslash hides a quote depends on the warehouse. When in doubt, it is one statement.
    return min(
        sum(1 for one in sqlparse.split(text) if re.sub(r"#.*", "", _without_comments(one)).strip("; \t\r\n"))
        for text in (sql, sql.replace("\\", "/"))
    )


def _without_comments(sql: str) -> str:
    return re.sub(r"--[^\n]*|/\*.*?\*/", " ", sql, flags=re.DOTALL).strip()


def _forbid_changes(connection: Any) -> None:
    driver = driver_of(connection)
    if driver == "psycopg2":
        connection.set_session(readonly=True)
    elif driver == "psycopg":
        connection.read_only = True
    elif driver in ("MySQLdb", "pymysql", "mysql"):
        with contextlib.closing(connection.cursor()) as cursor:
            cursor.execute("SET SESSION TRANSACTION READ ONLY")
    elif isinstance(connection, sqlite3.Connection):
        connection.execute("PRAGMA query_only = ON")
        connection.set_authorizer(_leaves_files_alone)


def _leaves_files_alone(action: int, _first: str | None, second: str | None, *_more: str | None) -> int:
    """Deny what `query_only` allows: another file, also by VACUUM INTO, and settings of this one."""
    is_setting = action == sqlite3.SQLITE_PRAGMA and second is not None
    return sqlite3.SQLITE_DENY if is_setting or action == sqlite3.SQLITE_ATTACH else sqlite3.SQLITE_OK


def _open_cursor(connection: Any, sql: str) -> Any:
    """Open a cursor that leaves the rows on the server until they are fetched.

    psycopg, psycopg2, redshift_connector, mysqlclient and many drivers for JDBC otherwise take all rows of a
    statement into memory at once. docs/sizing.md describes other drivers.
    """
    driver = driver_of(connection)
    if driver in ("psycopg", "psycopg2") and not connection.autocommit and _can_be_declared(sql):
        return plain_cursor(connection, name="kk_rows")
    if driver == "redshift_connector" and not connection.autocommit and _can_be_declared(sql):
        return _ServerCursor(connection)
    if driver == "jaydebeapi":
        connection.jconn = _FetchingInBatches(connection.jconn)
        return _JdbcCursor(connection.cursor())
    if driver == "MySQLdb":
        return plain_cursor(connection, cursorclass=sys.modules["MySQLdb.cursors"].SSCursor)
    return plain_cursor(connection)


class _Wrapper:
    """Does what another object does, except what a subclass does otherwise."""

    def __init__(self, wrapped: Any) -> None:
        self._wrapped = wrapped

    def __getattr__(self, name: str) -> Any:
        return getattr(self._wrapped, name)


class _ServerCursor(_Wrapper):
    """A cursor on the server, by SQL: redshift_connector has none of its own."""

    name = "kk_rows"

    def __init__(self, connection: Any) -> None:
        super().__init__(connection.cursor())
        self._connection = connection
        self._is_open = False

    def execute(self, sql: str, *parameters: Any) -> None:
        try:
            self._wrapped.execute(f"DECLARE {self.name} CURSOR FOR {sql}", *parameters)
            self._is_open = True
        except Exception:
            # A statement that cannot be declared may still run, and its own error names its own lines.
            self._connection.rollback()
            self._wrapped.execute(sql, *parameters)

    def fetchmany(self, size: int) -> Any:
        if self._is_open:
            # More than a thousand at a time are too many for Redshift on a single node.
            self._wrapped.execute(f"FETCH FORWARD {size} FROM {self.name}")
        return self._wrapped.fetchmany(size)


class _JdbcCursor(_Wrapper):
    """A cursor of JayDeBeApi that gives columns their aliases and fetches rows a batch at a time."""

    @property
    def description(self) -> Any:
        columns = self._wrapped._meta
        if columns is None:
            return None
        # Its own description has the names in the table; what AS makes of a column is its label.
        return [(columns.getColumnLabel(place),) for place in range(1, columns.getColumnCount() + 1)]

    def fetchmany(self, size: int) -> list[Any]:
        # Its own `fetchmany` ends by asking for all rows that are left, as MariaDB's driver understands it.
        return list(islice(iter(self._wrapped.fetchone, None), size))


class _FetchingInBatches(_Wrapper):
    """A JDBC connection that sets how many rows a statement fetches at a time, before it runs."""

    def prepareStatement(self, sql: str) -> Any:  # as Java spells it
        statement = self._wrapped.prepareStatement(sql)
        statement.setFetchSize(_ROWS_PER_FETCH)
        return statement


def _can_be_declared(sql: str) -> bool:
    """Return whether PostgreSQL can declare a cursor: for one statement that only selects. In doubt: no."""
    bare = _without_comments(sql).rstrip(";").lower()
    writes = re.search(r"\b(insert|update|delete|merge|into)\b|;", bare)
    return bool(re.match(r"select\b|with\b|values\b|\(", bare)) and not writes


def _is_named(cursor: Any) -> bool:
    return bool(getattr(cursor, "name", None))


def _roll_back(connection: Any) -> None:
    with contextlib.suppress(Exception):  # what a driver leaves undone ends with the connection
        connection.rollback()


def _close(resource: Any, log: Log) -> None:
    # A connection that cannot be closed must not hide why the reading failed, nor lose what was read.
    try:
        resource.close()
    except Exception as error:
        log.warning("The warehouse's %s did not close: %s", type(resource).__name__, type(error).__name__)
