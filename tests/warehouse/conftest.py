"""Warehouses to read from and write to: real SQLite and PostgreSQL, and doubles of Snowflake and BigQuery."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest


class Warehouse:
    """A hook, and a way around it to prepare and to look."""

    def __init__(self, hook: Any) -> None:
        self.hook = hook

    def execute(self, sql: str, *rows: tuple[Any, ...]) -> None:
        from airflow_provider_kk.warehouse.sql import Statement, style_of

        with closing(self.hook.get_conn()) as connection, closing(connection.cursor()) as cursor:
            style = style_of(self.hook, connection)
            for row in rows or [()]:
                statement = Statement(style)
                text = sql.replace("VALUES ?", f"VALUES {statement.values(row)}") if row else sql
                cursor.execute(*((text, statement.parameters) if row else (text,)))
            connection.commit()

    def rows(self, sql: str) -> list[tuple[Any, ...]]:
        with closing(self.hook.get_conn()) as connection, closing(connection.cursor()) as cursor:
            cursor.execute(sql)
            return [tuple(row) for row in cursor.fetchall()]


@pytest.fixture
def sqlite_warehouse(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Warehouse:
    from airflow.providers.sqlite.hooks.sqlite import SqliteHook

    connection = {"conn_type": "sqlite", "host": str(tmp_path / "warehouse.db")}
    monkeypatch.setenv("AIRFLOW_CONN_SQLITE_WAREHOUSE", json.dumps(connection))
    return Warehouse(SqliteHook("sqlite_warehouse"))


@pytest.fixture
def snowflake_warehouse(tmp_path: Path) -> Warehouse:
    from tests.warehouse.fakes import FakeSnowflakeHook

    return Warehouse(FakeSnowflakeHook(path=tmp_path / "snowflake.db"))


@pytest.fixture
def bigquery_warehouse(tmp_path: Path) -> Warehouse:
    from tests.warehouse.fakes import FakeBigQueryHook

    return Warehouse(FakeBigQueryHook(path=tmp_path / "bigquery.db", use_legacy_sql=False))


@pytest.fixture
def postgres_warehouse(postgres_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Warehouse]:
    from airflow.providers.postgres.hooks.postgres import PostgresHook

    server = urlsplit(postgres_url)
    connection = {
        "conn_type": "postgres",
        "host": server.hostname,
        "port": server.port,
        "login": server.username,
        "schema": server.path.strip("/"),
        "extra": {"options": "-c search_path=warehouse"},
    }
    monkeypatch.setenv("AIRFLOW_CONN_POSTGRES_WAREHOUSE", json.dumps(connection))
    warehouse = Warehouse(PostgresHook("postgres_warehouse"))
    warehouse.execute("CREATE SCHEMA warehouse")
    yield warehouse
    warehouse.execute("DROP SCHEMA warehouse CASCADE")


@pytest.fixture
def mysql_warehouse(mariadb_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Warehouse]:
    from tests.mysql_hook import PyMySqlHook, mysql_connection

    connection = mysql_connection(mariadb_url)
    monkeypatch.setenv("AIRFLOW_CONN_MYSQL_WAREHOUSE", json.dumps(connection))
    server = Warehouse(PyMySqlHook("mysql_warehouse"))
    server.execute("CREATE DATABASE warehouse")
    monkeypatch.setenv("AIRFLOW_CONN_MYSQL_WAREHOUSE", json.dumps(connection | {"schema": "warehouse"}))
    yield Warehouse(PyMySqlHook("mysql_warehouse"))
    server.execute("DROP DATABASE warehouse")


@pytest.fixture(params=["sqlite", "postgres", "mysql", "snowflake", "bigquery"])
def each_warehouse(request: pytest.FixtureRequest) -> Warehouse:
    """Every kind of warehouse in turn."""
    found = request.getfixturevalue(f"{request.param}_warehouse")
    assert isinstance(found, Warehouse)
    return found
