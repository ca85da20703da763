"""Which connections may keep the ledger and the status tables, and which of a server's databases they get."""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pytest
import sqlalchemy as sa
from airflow.providers.common.compat.sdk import AirflowFailException

from airflow_provider_kk.operators.orders import CreateOrderOperator
from airflow_provider_kk.operators.status import SyncOrderStatusOperator
from tests.operators.shop import COLUMNS, SELECT, attempt, nonzero, number, order, rows, sync

if TYPE_CHECKING:
    from airflow_provider_kk.sandbox.server import SandboxServer
    from tests.operators.shop import Warehouse

pytestmark = pytest.mark.usefixtures("connect")

UNFIT: list[dict[str, Any]] = [
    {"conn_type": "redshift"},
    {"conn_type": "postgres", "extra": {"redshift": True, "iam": True}},
    {"conn_type": "postgres", "extra": {"redshift-serverless": True}},
    *(
        {"conn_type": name}
        for name in ("snowflake", "gcpbigquery", "duckdb", "jdbc", "odbc", "mssql", "http")
    ),
]


@pytest.fixture(params=UNFIT, ids=json.dumps)
def unfit(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """The connection `unfit`, whose provider need not be installed; returns its type."""
    monkeypatch.setenv("AIRFLOW_CONN_UNFIT", json.dumps({"host": "127.0.0.1", "port": 1, **request.param}))
    conn_type: str = request.param["conn_type"]
    return conn_type


def named(error: BaseException | None, conn_type: str) -> None:
    assert isinstance(error, AirflowFailException)
    for word in ("'unfit'", f"type '{conn_type}'", "PostgreSQL, MySQL or SQLite"):
        assert word in str(error)


def test_status_tables_in_a_warehouse_without_keys_are_refused_by_its_type(
    unfit: str, sandbox: SandboxServer
) -> None:
    done = attempt(SyncOrderStatusOperator(task_id="status", warehouse_conn_id="unfit"))

    named(done.error, unfit)
    assert "warehouse_conn_id" in str(done.error)
    assert sandbox.control.counts()["requests"] == 0


@pytest.mark.parametrize(
    "operator",
    [
        pytest.param(lambda: sync(ledger_conn_id="unfit"), id="sync"),
        pytest.param(lambda: sync(ledger_conn_id="unfit", plan_only=True), id="plan"),
        pytest.param(lambda: sync(warehouse_conn_id="unfit"), id="warehouse"),
        pytest.param(
            lambda: CreateOrderOperator(task_id="create", order=order(1), ledger_conn_id="unfit"), id="create"
        ),
        pytest.param(
            lambda: SyncOrderStatusOperator(
                task_id="status", warehouse_conn_id="warehouse", ledger_conn_id="unfit"
            ),
            id="status",
        ),
    ],
)
def test_a_ledger_in_a_database_without_keys_is_refused_by_its_type(
    unfit: str, operator: Any, warehouse: Warehouse, sandbox: SandboxServer
) -> None:
    warehouse.add(*rows([1]))

    done = attempt(operator())

    named(done.error, unfit)
    assert "ledger_conn_id" in str(done.error)
    assert sandbox.control.counts()["requests"] == 0


@pytest.fixture
def two_databases(postgres_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[str, str]]:
    """The connection `warehouse` to one database of PostgreSQL; returns its name, and another database's."""
    url = sa.engine.make_url(postgres_url)
    names = (f"own_{secrets.token_hex(4)}", f"shop_{secrets.token_hex(4)}")
    place = {"conn_type": "postgres", "host": url.host, "port": url.port, "login": url.username}
    monkeypatch.setenv("AIRFLOW_CONN_WAREHOUSE", json.dumps({**place, "schema": names[0]}))
    server = sa.create_engine(url, isolation_level="AUTOCOMMIT")
    with server.connect() as db:
        for name in names:
            db.execute(sa.text(f"CREATE DATABASE {name}"))
    yield names
    with server.connect() as db:
        for name in names:
            db.execute(sa.text(f"DROP DATABASE {name} WITH (FORCE)"))
    server.dispose()


def tables_in(postgres_url: str, database: str) -> set[str]:
    engine = sa.create_engine(sa.engine.make_url(postgres_url).set(database=database))
    try:
        return set(sa.inspect(engine).get_table_names())
    finally:
        engine.dispose()


def put_orders_into(postgres_url: str, *databases: str) -> None:
    for database in databases:
        engine = sa.create_engine(sa.engine.make_url(postgres_url).set(database=database))
        with engine.begin() as db:
            db.exec_driver_sql(f"CREATE TABLE order_line ({', '.join(f'{name} TEXT' for name in COLUMNS)})")
            lines = [tuple(map(str, line)) for line in rows(range(3))]
            db.exec_driver_sql(f"INSERT INTO order_line VALUES ({', '.join(['%s'] * len(COLUMNS))})", lines)
        engine.dispose()


def test_hook_params_start_no_second_ledger_and_make_no_duplicate(
    two_databases: tuple[str, str], postgres_url: str, sandbox: SandboxServer
) -> None:
    put_orders_into(postgres_url, *two_databases)
    given = {"hook_params": {"database": two_databases[1]}}
    assert nonzero(attempt(sync(sql=SELECT), run_id="first").value) == {"created": 3}

    second = attempt(sync(sql=SELECT, **given), run_id="second")
    named = attempt(sync(sql=SELECT, ledger_conn_id="warehouse", **given), run_id="third")

    assert isinstance(second.error, AirflowFailException)
    assert "set ledger_conn_id to 'warehouse'" in str(second.error)
    assert nonzero(named.value) == {"already_created": 3}
    assert "kk_order" not in tables_in(postgres_url, two_databases[1])


def test_hook_params_lead_to_the_database_of_rows_results_ledger_and_status(
    two_databases: tuple[str, str], postgres_url: str, sandbox: SandboxServer
) -> None:
    own, shop = two_databases
    put_orders_into(postgres_url, shop)
    given = {"hook_params": {"database": shop}}

    first = attempt(sync(sql=SELECT, write_back="outcome", **given), run_id="first")
    plan = attempt(sync(sql=SELECT, plan_only=True, **given), run_id="plan")
    sandbox.control.advance(-20 * 86_400)
    sandbox.control.place({"FWXW00290_WHT_M": 1}, number=number(9))
    sandbox.control.advance(3600)
    status = SyncOrderStatusOperator(task_id="status", warehouse_conn_id="warehouse", **given)
    synced = attempt(status, run_id="status")

    assert (first.error, plan.error, synced.error) == (None, None, None)
    assert nonzero(first.value) == {"created": 3}
    assert nonzero(plan.value) == {"already_created": 3}
    assert {"outcome", "kk_order", "kk_order_status"} <= tables_in(postgres_url, shop)
    assert tables_in(postgres_url, own) == set()


def test_hook_params_are_for_no_ledger_elsewhere(
    two_databases: tuple[str, str], warehouse: Warehouse, postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_LEDGER", json.dumps(warehouse.connection))

    done = attempt(
        SyncOrderStatusOperator(
            task_id="status",
            warehouse_conn_id="warehouse",
            hook_params={"database": two_databases[1]},
            ledger_conn_id="ledger",
        )
    )

    assert done.error is None
    assert warehouse.execute("SELECT count(*) FROM kk_order") == [(0,)]
    assert "kk_order" not in tables_in(postgres_url, two_databases[1])
