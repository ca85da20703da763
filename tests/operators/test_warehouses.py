"""Warehouses that cannot keep a ledger, as doubles of Snowflake and BigQuery, with a ledger on PostgreSQL."""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import pytest
from airflow.providers.common.compat.sdk import AirflowFailException

from airflow_provider_kk.operators.orders import SyncOrdersOperator
from tests.operators import shop
from tests.operators.hooks import info_of, known_hooks
from tests.operators.shop import SELECT, Warehouse, attempt, each_is_there_once, ids_at_kk, nonzero, rows
from tests.warehouse import fakes

if TYPE_CHECKING:
    from airflow_provider_kk.sandbox.server import SandboxServer
    from tests.operators.conftest import Printed

pytestmark = pytest.mark.usefixtures("connect")

HOOK_PARAMS: dict[str, dict[str, Any]] = {
    "snowflake": {},
    "gcpbigquery": {"use_legacy_sql": False, "location": "EU"},
}


@pytest.fixture(params=["snowflake", "gcpbigquery"])
def each_far_warehouse(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Warehouse:
    """The connection `far` of this type, and the file behind it."""
    warehouse = Warehouse(tmp_path / "far.db")
    connection = {"conn_type": request.param, "host": str(warehouse.path)}
    monkeypatch.setenv("AIRFLOW_CONN_FAR", json.dumps(connection))
    hook = {"snowflake": fakes.FakeSnowflakeHook, "gcpbigquery": fakes.FakeBigQueryHook}[request.param]
    monkeypatch.setitem(known_hooks(), request.param, info_of(hook))
    return warehouse


@pytest.fixture
def hook_params(each_far_warehouse: Warehouse, request: pytest.FixtureRequest) -> dict[str, Any]:
    return HOOK_PARAMS[request.node.callspec.params["each_far_warehouse"]]


@pytest.fixture
def ledger(postgres_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The connection `ledger`: a database of this test's own on PostgreSQL."""
    import sqlalchemy as sa

    database = f"ledger_{secrets.token_hex(4)}"
    server = urlsplit(postgres_url)
    connection = {
        "conn_type": "postgres",
        "host": server.hostname,
        "port": server.port,
        "login": server.username,
        "schema": database,
    }
    monkeypatch.setenv("AIRFLOW_CONN_LEDGER", json.dumps(connection))
    engine = sa.create_engine(postgres_url, isolation_level="AUTOCOMMIT")
    with engine.connect() as db:
        db.execute(sa.text(f"CREATE DATABASE {database}"))
    yield
    with engine.connect() as db:
        db.execute(sa.text(f"DROP DATABASE {database} WITH (FORCE)"))
    engine.dispose()


def sync(**arguments: Any) -> SyncOrdersOperator:
    return SyncOrdersOperator(
        **{
            "task_id": "sync",
            "sql": SELECT,
            "warehouse_conn_id": "far",
            "ledger_conn_id": "ledger",
            **arguments,
        }
    )


@pytest.mark.usefixtures("ledger")
def test_the_main_job_runs_on_a_warehouse_that_keeps_no_keys(
    sandbox: SandboxServer, each_far_warehouse: Warehouse, hook_params: dict[str, Any]
):
    each_far_warehouse.add(*rows(range(20)))
    each_far_warehouse.execute(
        "CREATE TABLE outcome (custom_order_number TEXT, state TEXT, kk_order_ids TEXT, message TEXT, at)"
    )

    first = attempt(sync(hook_params=hook_params, write_back="outcome"), run_id="first")
    second = attempt(sync(hook_params=hook_params, write_back="outcome"), run_id="second")

    assert (first.error, second.error) == (None, None)
    assert nonzero(first.value) == {"created": 20}
    assert nonzero(second.value) == {"already_created": 20}
    assert sandbox.control.counts()["creates"] == 20
    each_is_there_once(sandbox, range(20))
    written = each_far_warehouse.execute("SELECT custom_order_number, kk_order_ids FROM outcome")
    assert {key: sorted(ids.split(",")) for key, ids in written} == ids_at_kk(sandbox)


@pytest.mark.usefixtures("ledger")
def test_named_parameters_reach_its_statement_and_its_own_rows_are_updated(
    sandbox: SandboxServer, each_far_warehouse: Warehouse, hook_params: dict[str, Any]
):
    each_far_warehouse.add(*rows(range(8)))
    each_far_warehouse.execute(
        "CREATE TABLE head AS SELECT DISTINCT custom_order_number AS no FROM order_line"
    )
    each_far_warehouse.execute("ALTER TABLE head ADD COLUMN ids TEXT")
    each_far_warehouse.execute("ALTER TABLE head ADD COLUMN state TEXT")

    done = attempt(
        sync(
            sql=f"{SELECT} WHERE custom_order_number >= %(least)s",
            parameters={"least": shop.number(5)},
            hook_params=hook_params,
            write_back={"table": "head", "key": "no", "ids": "ids", "state": "state"},
        )
    )

    assert done.error is None
    assert nonzero(done.value) == {"created": 3}
    written = each_far_warehouse.execute("SELECT no, ids FROM head WHERE state = 'created'")
    assert {no: sorted(ids.split(",")) for no, ids in written} == ids_at_kk(sandbox)


def test_without_a_ledger_it_fails_before_the_first_row_with_what_to_set(
    sandbox: SandboxServer,
    each_far_warehouse: Warehouse,
    hook_params: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
):
    each_far_warehouse.add(*rows(range(3)))
    read: list[str] = []
    for cursor in (fakes.SnowflakeCursor, fakes.BigQueryCursor):
        monkeypatch.setattr(cursor, "execute", lambda self, *statement: read.append(statement[0]))

    done = attempt(sync(hook_params=hook_params, ledger_conn_id=None))

    assert isinstance(done.error, AirflowFailException)
    for word in ("'far'", "ledger_conn_id", "'kk_default'", "PostgreSQL"):
        assert word in str(done.error)
    assert read == []
    assert sandbox.control.counts()["requests"] == 0


@pytest.mark.usefixtures("ledger", "warehouse")
def test_a_ledger_that_a_crash_may_empty_is_a_warning_only(
    sandbox: SandboxServer, warehouse: Warehouse, printed: Printed
):
    warehouse.add(*rows(range(3)))

    done = attempt(sync(warehouse_conn_id="warehouse"))

    assert nonzero(done.value) == {"created": 3}
    # The server of these tests is in a hurry.
    assert printed().count("The ledger's PostgreSQL has fsync = off") == 1


@pytest.mark.usefixtures("ledger")
def test_a_plan_reads_a_ledger_in_postgresql(
    sandbox: SandboxServer, each_far_warehouse: Warehouse, hook_params: dict[str, Any]
):
    each_far_warehouse.add(*rows(range(5)))
    assert nonzero(attempt(sync(hook_params=hook_params, limit=3), run_id="first").value)["created"] == 3
    requests = sandbox.control.counts()["requests"]

    planned = attempt(sync(hook_params=hook_params, plan_only=True), run_id="plan")

    assert nonzero(planned.value) == {"already_created": 3, "postponed": 2}
    assert planned.value["requests"] == 3
    assert sandbox.control.counts()["requests"] == requests


@pytest.mark.usefixtures("ledger")
@pytest.mark.parametrize("odd", ["A\0", "A\0\n1", "É-1", "x" * 41])
def test_a_number_that_cannot_be_one_stops_no_other_order(
    sandbox: SandboxServer, warehouse: Warehouse, odd: str
):
    lines = [(odd, *line[1:]) for line in rows([0])] + rows([1, 2])
    warehouse.add(*lines)

    first = attempt(sync(warehouse_conn_id="warehouse"), run_id="first")
    second = attempt(sync(warehouse_conn_id="warehouse"), run_id="second")

    assert nonzero(first.xcoms["return_value"]) == {"created": 2, "invalid": 1}
    assert nonzero(second.xcoms["return_value"]) == {"already_created": 2, "invalid": 1}
    each_is_there_once(sandbox, [1, 2])
