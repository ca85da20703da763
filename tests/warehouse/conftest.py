"""Warehouses to read from and write to: real SQLite and PostgreSQL, and doubles of Snowflake and BigQuery."""

from __future__ import annotations

import getpass
import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

_POSTGRES_BIN = Path("/usr/lib/postgresql/15/bin")


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
def postgres_warehouse(postgres_socket: Path, monkeypatch: pytest.MonkeyPatch) -> Warehouse:
    from airflow.providers.postgres.hooks.postgres import PostgresHook

    connection = {
        "conn_type": "postgres",
        "host": str(postgres_socket),
        "login": "postgres",
        "schema": "postgres",
    }
    monkeypatch.setenv("AIRFLOW_CONN_POSTGRES_WAREHOUSE", json.dumps(connection))
    warehouse = Warehouse(PostgresHook("postgres_warehouse"))
    warehouse.execute("DROP SCHEMA public CASCADE")
    warehouse.execute("CREATE SCHEMA public")
    return warehouse


@pytest.fixture(params=["sqlite", "postgres", "snowflake", "bigquery"])
def warehouse(request: pytest.FixtureRequest) -> Warehouse:
    """Every kind of warehouse in turn."""
    found = request.getfixturevalue(f"{request.param}_warehouse")
    assert isinstance(found, Warehouse)
    return found


@pytest.fixture(scope="session")
def postgres_socket() -> Iterator[Path]:
    """A throwaway PostgreSQL that listens on nothing but a socket in its own directory."""
    if not (_POSTGRES_BIN / "initdb").exists():
        pytest.skip("PostgreSQL 15 is not installed")
    home = Path(tempfile.mkdtemp(prefix="kk-postgres-"))
    user = "postgres" if getpass.getuser() == "root" else None
    if user:
        shutil.chown(home, user)

    def run(*command: str) -> None:
        environment = {**os.environ, "PGUSER": "postgres", "LC_ALL": "C.UTF-8"}
        subprocess.run(
            [str(_POSTGRES_BIN / command[0]), *command[1:]],
            check=True, user=user, cwd=home, env=environment, stdout=subprocess.DEVNULL,
        )  # fmt: skip

    data = str(home / "data")
    run("initdb", "-D", data, "-U", "postgres", "-A", "trust", "-N")
    options = f"-c listen_addresses= -c unix_socket_directories={home} -c fsync=off"
    run("pg_ctl", "-D", data, "-w", "-l", str(home / "log"), "-o", options, "start")
    try:
        yield home
    finally:
        run("pg_ctl", "-D", data, "-m", "immediate", "stop")
        shutil.rmtree(home, ignore_errors=True)
