"""The main job on Airflow's real hooks of Snowflake, Redshift and JDBC; `make test-warehouses` runs these.

fakesnow stands in for Snowflake, PostgreSQL behind a proxy for Redshift.
"""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from airflow_provider_kk.warehouse.query_rows import read_rows
from tests.operators.main_job import MainJob, make_connections
from tests.warehouses.redshift_proxy import redshift_proxy

if TYPE_CHECKING:
    from airflow_provider_kk.sandbox.server import SandboxServer

pytestmark = pytest.mark.warehouses

JARS = ("/usr/share/java/h2.jar", "/usr/share/java/postgresql.jar")


@pytest.fixture(scope="session")
def snowflake_server() -> Iterator[dict[str, Any]]:
    """What a Snowflake connection to fakesnow needs."""
    fakesnow = pytest.importorskip("fakesnow")
    with fakesnow.server() as arguments:
        yield arguments


@pytest.fixture
def snowflake(snowflake_server: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    from snowflake.connector import connect, connection

    # The hook has no setting for it.
    monkeypatch.setitem(connection.DEFAULT_CONFIGURATION, "protocol", ("http", str))
    database = f"shop_{secrets.token_hex(4)}"
    with connect(**snowflake_server) as administrator:
        administrator.cursor().execute(f"CREATE DATABASE {database}")
        administrator.cursor().execute(f"CREATE SCHEMA {database}.sales")
    keys = ("account", "host", "port", "session_parameters")
    return {
        "conn_type": "snowflake",
        "login": snowflake_server["user"],
        "password": snowflake_server["password"],
        "schema": "sales",
        "extra": {"database": database, **{key: snowflake_server[key] for key in keys}},
    }


@pytest.fixture
def postgres_database(postgres_url: str) -> Iterator[tuple[int, str]]:
    """A database of this test's own: its server's port and its name."""
    import sqlalchemy as sa

    name = f"shop_{secrets.token_hex(4)}"
    engine = sa.create_engine(postgres_url, isolation_level="AUTOCOMMIT")
    with engine.connect() as db:
        db.exec_driver_sql(f"CREATE DATABASE {name}")
    assert engine.url.port
    yield engine.url.port, name
    with engine.connect() as db:
        db.exec_driver_sql(f"DROP DATABASE {name} WITH (FORCE)")
    engine.dispose()


@pytest.fixture
def redshift(postgres_database: tuple[int, str]) -> Iterator[dict[str, Any]]:
    server, database = postgres_database
    with redshift_proxy(server) as port:
        yield {
            "conn_type": "redshift",
            "host": "127.0.0.1",
            "port": port,
            "login": "postgres",
            "password": "any",
            "schema": database,
            "extra": {"ssl": False},
        }


@pytest.fixture
def jdbc(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What all JDBC connections have; a process loads all drivers at once."""
    missing = [jar for jar in JARS if not Path(jar).exists()]
    if missing:
        (pytest.fail if os.environ.get("CI") else pytest.skip)(
            f"JDBC drivers are not installed: {', '.join(missing)}"
        )
    for setting in ("PATH", "CLASS"):
        monkeypatch.setenv(f"AIRFLOW__PROVIDERS_JDBC__ALLOW_DRIVER_{setting}_IN_EXTRA", "True")
    return {"conn_type": "jdbc", "password": "", "extra": {"driver_path": ",".join(JARS)}}


@pytest.fixture
def jdbc_h2(jdbc: dict[str, Any], tmp_path: Path) -> dict[str, Any]:
    extra = {**jdbc["extra"], "driver_class": "org.h2.Driver"}
    return {**jdbc, "host": f"jdbc:h2:{tmp_path}/shop", "login": "sa", "extra": extra}


@pytest.fixture
def jdbc_postgres(jdbc: dict[str, Any], postgres_database: tuple[int, str]) -> dict[str, Any]:
    port, database = postgres_database
    extra = {**jdbc["extra"], "driver_class": "org.postgresql.Driver"}
    url = f"jdbc:postgresql://127.0.0.1:{port}/{database}"
    return {**jdbc, "host": url, "login": "postgres", "extra": extra}


def test_rows_by_jdbc_stay_on_the_server(
    jdbc_postgres: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    from airflow.providers.jdbc.hooks.jdbc import JdbcHook

    monkeypatch.setenv("AIRFLOW_CONN_JDBC_DEFAULT", json.dumps(jdbc_postgres))

    # A portal of the statement's own, rather than the unnamed one.
    with read_rows(JdbcHook(), "SELECT name FROM pg_cursors WHERE name <> ''") as spool:
        assert spool.rows == 1


@pytest.fixture(params=["snowflake", "redshift", "jdbc_h2", "jdbc_postgres"])
def job(
    request: pytest.FixtureRequest,
    sandbox: SandboxServer,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> MainJob:
    make_connections(sandbox, request.getfixturevalue(request.param), tmp_path, monkeypatch)
    return MainJob(sandbox)


def test_the_main_job_updates_the_orders_rows(job: MainJob) -> None:
    job.run_with_update()


def test_the_main_job_appends_its_results(job: MainJob) -> None:
    job.run_with_append()
