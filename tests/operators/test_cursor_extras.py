"""Airflow's own hooks for PostgreSQL and MySQL, whose connections yield rows as their `cursor` extra says."""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Iterator
from contextlib import closing
from typing import TYPE_CHECKING, Any

import pytest
import sqlalchemy as sa
from airflow.providers.common.compat.sdk import BaseHook
from airflow.providers.postgres.hooks import postgres

from airflow_provider_kk.operators.status import SyncOrderStatusOperator
from tests.mysql_hook import mysql_connection
from tests.operators.shop import COLUMNS, attempt, each_is_there_once, ids_at_kk, nonzero, number, rows, sync

if TYPE_CHECKING:
    from airflow_provider_kk.sandbox.server import SandboxServer

pytestmark = pytest.mark.usefixtures("connect")

ORDERS = range(12)
#: The hook takes psycopg 3 where SQLAlchemy knows it, which Airflow 2.11's does not.
PSYCOPG = ["psycopg2", "psycopg"] if getattr(postgres, "USE_PSYCOPG3", False) else ["psycopg2"]
CURSORS = {
    "psycopg": ("dictcursor", "namedtuplecursor"),
    "psycopg2": ("dictcursor", "realdictcursor", "namedtuplecursor"),
    "MySQLdb": ("sscursor", "dictcursor", "ssdictcursor"),
    # MySQL's own connector, which takes no notice of the extra but gets it in SQLAlchemy's URL.
    "mysql": ("dictcursor",),
}


@pytest.fixture(
    params=[
        pytest.param((driver, cursor), id=f"{driver}-{cursor}")
        for driver in (*PSYCOPG, "MySQLdb", "mysql")
        for cursor in CURSORS[driver]
    ]
)
def database(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[sa.engine.Engine]:
    """The connection `warehouse` with a `cursor` extra: orders, and a row of each for what comes back."""
    driver, cursor = request.param
    name = f"extras_{secrets.token_hex(4)}"
    extra = {"cursor": cursor}
    if driver in ("MySQLdb", "mysql"):
        require_mysql_provider()
        extra |= {"client": "mysql-connector-python"} if driver == "mysql" else {}
        url = sa.engine.make_url(request.getfixturevalue("mariadb_url"))
        place = mysql_connection(str(url), name)
    else:
        url = sa.engine.make_url(request.getfixturevalue("postgres_url"))
        place = {"conn_type": "postgres", "host": url.host, "port": url.port, "login": url.username}
        place["schema"] = name
        monkeypatch.setattr(postgres, "USE_PSYCOPG3", driver == "psycopg")
    monkeypatch.setenv("AIRFLOW_CONN_WAREHOUSE", json.dumps({**place, "extra": extra}))
    server = sa.create_engine(url, isolation_level="AUTOCOMMIT")
    with server.connect() as db:
        db.execute(sa.text(f"CREATE DATABASE {name}"))
    engine = sa.create_engine(url.set(database=name))
    fill(engine)
    with closing(BaseHook.get_hook("warehouse").get_conn()) as connection:
        assert type(connection).__module__.partition(".")[0] == driver
        with closing(connection.cursor()) as made:
            kind = f"{type(made).__name__} {getattr(made, 'row_factory', '')}".lower()
            assert driver == "mysql" or cursor.removesuffix("cursor") in kind
    yield engine
    engine.dispose()
    with server.connect() as db:
        db.execute(sa.text(f"DROP DATABASE {name}" + (" WITH (FORCE)" if "psycopg" in driver else "")))
    server.dispose()


def require_mysql_provider() -> None:
    """Skip where MySQL's client could not be compiled; where changes are judged, it must be there."""
    try:
        import airflow.providers.mysql.hooks.mysql  # noqa: F401
    except ImportError:
        (pytest.fail if os.environ.get("CI") else pytest.skip)("Airflow's MySQL provider is not installed")


def fill(engine: sa.engine.Engine) -> None:
    columns = ", ".join(f"{name} VARCHAR(64)" for name in COLUMNS[:-1])
    places = ", ".join(["%s"] * len(COLUMNS))
    with engine.begin() as db:
        db.exec_driver_sql(f"CREATE TABLE order_line ({columns}, quantity INTEGER)")
        db.exec_driver_sql(
            "CREATE TABLE shop_order (no VARCHAR(40) PRIMARY KEY, ids TEXT, state VARCHAR(16))"
        )
        db.exec_driver_sql(f"INSERT INTO order_line VALUES ({places})", rows(ORDERS))
        db.exec_driver_sql("INSERT INTO shop_order (no) VALUES (%s)", [(number(n),) for n in ORDERS])


UPDATE = {"table": "shop_order", "key": "no", "ids": "ids", "state": "state"}


@pytest.mark.parametrize(
    ("write_back", "table", "key", "ids"),
    [
        pytest.param("outcome", "outcome", "custom_order_number", "kk_order_ids", id="append"),
        pytest.param(UPDATE, "shop_order", "no", "ids", id="update"),
    ],
)
def test_the_main_job_runs_twice_whatever_rows_the_connection_yields(
    database: sa.engine.Engine, sandbox: SandboxServer, write_back: Any, table: str, key: str, ids: str
) -> None:
    first = attempt(sync(write_back=write_back), run_id="first")
    second = attempt(sync(write_back=write_back), run_id="second")

    assert (first.error, second.error) == (None, None)
    assert nonzero(first.value) == {"created": len(ORDERS)}
    assert nonzero(second.value) == {"already_created": len(ORDERS)}
    each_is_there_once(sandbox, ORDERS)
    with database.connect() as db:
        written = db.exec_driver_sql(f"SELECT {key}, {ids} FROM {table} WHERE state = 'created'").all()
    assert len(written) == len(ORDERS)
    assert {number: sorted(text.split(",")) for number, text in written} == ids_at_kk(sandbox)


def test_the_status_tables_are_filled_whatever_rows_the_connection_yields(
    database: sa.engine.Engine, sandbox: SandboxServer
) -> None:
    sandbox.control.advance(-20 * 86_400)
    ids = [sandbox.control.place({"FWXW00290_WHT_M": 1}, number=number(n))[0] for n in range(3)]
    sandbox.control.advance(3600)
    status = SyncOrderStatusOperator(task_id="status", warehouse_conn_id="warehouse")

    first, second = attempt(status, run_id="first"), attempt(status, run_id="second")

    assert (first.error, second.error) == (None, None)
    assert (first.value["changed"], second.value["changed"]) == (3, 0)
    with database.connect() as db:
        assert sorted(db.exec_driver_sql("SELECT kk_order_id FROM kk_order_status").scalars()) == sorted(ids)
