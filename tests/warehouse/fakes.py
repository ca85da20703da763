"""Doubles of Airflow's hooks for Snowflake and BigQuery, on a SQLite file.

They keep what is different about the real hooks and their drivers, as the providers' public sources and the
drivers' documentation have it. Where the real one would fail, these fail too.

    FakeSnowflakeHook(path=...), FakeBigQueryHook(path=..., use_legacy_sql=False)

Without `path` the file is the `host` of the hook's Airflow connection.
"""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any, NoReturn

from airflow.providers.common.sql.hooks.sql import DbApiHook

paramstyle = "pyformat"
"""Snowflake's connector says so of itself; BigQuery's connection within Airflow says nothing."""

#: Names of the calls that a hook's connections and cursors got, the newest last: `hook.calls`.
Calls = list[str]


class DriverError(Exception):
    """What the real driver raises when the warehouse refuses a statement."""


class _OnSqlite(DbApiHook):
    def __init__(self, *args: Any, path: str | Path | None = None, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._path = path
        self.calls: Calls = []
        self.statements: list[str] = []

    def _open(self) -> sqlite3.Connection:
        path = self._path or self.get_connection(self.get_conn_id()).host
        return sqlite3.connect(str(path), isolation_level=None, timeout=300, check_same_thread=False)

    def get_uri(self) -> str:
        """No SQLAlchemy dialect for these is installed where tests run."""
        return f"{self.conn_type}://"


class FakeSnowflakeHook(_OnSqlite):
    """Snowflake: names in upper case, numbers as Decimals with a scale, UNIQUE accepted and not enforced."""

    conn_name_attr = "snowflake_conn_id"
    default_conn_name = "snowflake_default"
    conn_type = "snowflake"
    hook_name = "Snowflake"
    supports_autocommit = True

    def get_conn(self) -> SnowflakeConnection:
        return SnowflakeConnection(self)

    def set_autocommit(self, conn: Any, autocommit: Any) -> None:
        conn.autocommit(autocommit)
        conn.autocommit_mode = autocommit

    def get_autocommit(self, conn: Any) -> Any:
        return getattr(conn, "autocommit_mode", False)


class SnowflakeConnection:
    """Autocommit is on and is a method, other than on most connections."""

    def __init__(self, hook: FakeSnowflakeHook) -> None:
        self._hook = hook
        self._db = hook._open()

    def autocommit(self, mode: bool) -> None:
        self._db.isolation_level = None if mode else "DEFERRED"

    def cursor(self) -> SnowflakeCursor:
        return SnowflakeCursor(self._hook, self._db)

    def commit(self) -> None:
        self._hook.calls.append("commit")
        self._db.commit()

    def rollback(self) -> None:
        self._hook.calls.append("rollback")
        self._db.rollback()

    def close(self) -> None:
        self._hook.calls.append("connection.close")
        self._db.close()


class SnowflakeCursor:
    """Parameters are put into the text by the driver (pyformat), and only when there are some."""

    def __init__(self, hook: FakeSnowflakeHook, db: sqlite3.Connection) -> None:
        self._hook = hook
        self._cursor = db.cursor()

    @property
    def description(self) -> list[tuple[Any, ...]] | None:
        columns = self._cursor.description
        return None if columns is None else [(column[0].upper(), *column[1:]) for column in columns]

    def execute(
        self, command: str, params: Sequence[Any] | Mapping[str, Any] | None = None
    ) -> SnowflakeCursor:
        self._hook.statements.append(command)
        for name in re.findall(r'"([^"]*)"', command):
            if name != name.upper():
                raise DriverError(f"SQL compilation error: invalid identifier '\"{name}\"'")
        sql, values = _bound(command, params) if params else (command, ())
        sql = sql.replace('"', "`")  # for SQLite, an unknown name in double quotes would be a text
        _run(self._cursor, re.sub(r"(?i)\b(unique|primary key)\b(\s*\([^)]*\))?", "", sql), values)
        return self

    def fetchone(self) -> tuple[Any, ...] | None:
        return next(iter(self.fetchmany(1)), None)

    def fetchmany(self, size: int = 1) -> list[tuple[Any, ...]]:
        return [tuple(map(_scaled, row)) for row in self._cursor.fetchmany(size)]

    def fetchall(self) -> list[tuple[Any, ...]]:
        return [tuple(map(_scaled, row)) for row in self._cursor.fetchall()]

    def close(self) -> None:
        self._hook.calls.append("cursor.close")
        self._cursor.close()


class FakeBigQueryHook(_OnSqlite):
    """BigQuery: parameters by name only, no transactions, no `insert_rows`, legacy SQL by default."""

    conn_name_attr = "gcp_conn_id"
    default_conn_name = "google_cloud_bigquery_default"
    conn_type = "gcpbigquery"
    hook_name = "Google Bigquery"

    def __init__(
        self, *args: Any, use_legacy_sql: bool = True, location: str | None = None, **kwargs: Any
    ) -> None:
        super().__init__(*args, **kwargs)
        self.use_legacy_sql = use_legacy_sql
        self.location = location

    def get_conn(self) -> BigQueryConnection:
        return BigQueryConnection(self)

    def insert_rows(self, *args: Any, **kwargs: Any) -> NoReturn:
        raise NotImplementedError()

    def get_records(self, sql: Any, parameters: Any = None) -> Any:
        if self.location is None:
            raise DriverError("Need to specify 'location' to use BigQueryHook.get_records()")
        return super().get_records(sql, parameters=parameters)


class BigQueryConnection:
    """Only makes cursors; each statement is a job of its own and lasts at once."""

    def __init__(self, hook: FakeBigQueryHook) -> None:
        self._hook = hook
        self._db = hook._open()

    def cursor(self) -> BigQueryCursor:
        return BigQueryCursor(self._hook, self._db)

    def commit(self) -> None:
        """There is nothing to commit."""

    def rollback(self) -> NoReturn:
        raise NotImplementedError("BigQueryConnection does not have transactions")

    def close(self) -> None:
        self._hook.calls.append("connection.close")
        self._db.close()


class BigQueryCursor:
    """Rows are lists; a statement without rows has an empty description; the count of rows is never known."""

    rowcount = -1

    def __init__(self, hook: FakeBigQueryHook, db: sqlite3.Connection) -> None:
        self._hook = hook
        self._cursor = db.cursor()
        self.description: list[tuple[Any, ...]] = []

    def execute(self, operation: str, parameters: dict[str, Any] | None = None) -> None:
        self._hook.statements.append(operation)
        if self._hook.use_legacy_sql and re.search(
            r"`|^\s*(insert|update|create)\b", operation, re.IGNORECASE
        ):
            raise DriverError("400 Encountered a syntax error: this is legacy SQL, set use_legacy_sql=False")
        if '"' in operation:
            raise DriverError("400 Syntax error: double quotes are text in BigQuery, names take backticks")
        sql, values = operation, {}
        if parameters:
            # The driver writes text in quotes and all else as `str()` has it: a time breaks the statement.
            for value in parameters.values():
                if not isinstance(value, str | int | float | Decimal | None):
                    raise DriverError(f"400 Syntax error: unexpected {type(value).__name__} without quotes")
            sql, values = operation % {name: f":{name}" for name in parameters}, dict(parameters)
        _run(self._cursor, sql.replace(" AS STRING)", " AS TEXT)"), values)
        self.description = [
            (column[0], "STRING", None, None, None, None, True) for column in self._cursor.description or ()
        ]

    def executemany(self, operation: str, seq_of_parameters: Iterable[dict[str, Any]]) -> None:
        for parameters in seq_of_parameters:
            self.execute(operation, parameters)

    def fetchone(self) -> list[Any] | None:
        row = self._cursor.fetchone()
        return None if row is None else list(row)

    def fetchmany(self, size: int | None = None) -> list[list[Any]]:
        return [list(row) for row in self._cursor.fetchmany(size or 1)]

    def fetchall(self) -> list[list[Any]]:
        return [list(row) for row in self._cursor.fetchall()]

    def close(self) -> None:
        self._hook.calls.append("cursor.close")


def _bound(command: str, params: Sequence[Any] | Mapping[str, Any]) -> tuple[str, Any]:
    if isinstance(params, Mapping):
        return command % {name: f":{name}" for name in params}, dict(params)
    return command % (("?",) * len(params)), tuple(params)


def _run(cursor: sqlite3.Cursor, sql: str, values: Any) -> None:
    try:
        cursor.execute(sql, values)
    except sqlite3.Error as error:
        raise DriverError(str(error)) from None


def _scaled(value: Any) -> Any:
    """A number as NUMBER(38, 2) has it."""
    if isinstance(value, int | float):
        return Decimal(str(value)).quantize(Decimal("0.01"))
    return value
