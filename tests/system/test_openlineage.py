"""With Airflow's OpenLineage provider, tasks tell what they read and wrote: tables, the account, counts."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
import sqlalchemy as sa

from airflow_provider_kk.operators.orders import CreateOrderOperator, SyncOrdersOperator
from airflow_provider_kk.operators.status import SyncOrderStatusOperator
from tests.operators.conftest import connect
from tests.operators.shop import COLUMNS, SKUS, attempt, order, rows

if TYPE_CHECKING:
    from airflow_provider_kk.sandbox.server import SandboxServer

__all__ = ["connect"]
pytestmark = pytest.mark.system

Told = tuple[str, str, int | None]


@pytest.fixture
def warehouse(postgres_url: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """OpenLineage's name of a PostgreSQL with three orders in it."""
    server = sa.engine.make_url(postgres_url)
    place = {"host": server.host, "port": server.port, "login": server.username, "schema": "lineage"}
    monkeypatch.setenv("AIRFLOW_CONN_WAREHOUSE", json.dumps({"conn_type": "postgres", **place}))
    with sa.create_engine(server, isolation_level="AUTOCOMMIT").connect() as db:
        db.execute(sa.text("CREATE DATABASE lineage"))
    with sa.create_engine(server.set(database="lineage")).begin() as db:
        table = sa.Table("order_line", sa.MetaData(), *(sa.Column(name, sa.Text) for name in COLUMNS))
        table.create(db)
        db.execute(table.insert(), [dict(zip(COLUMNS, map(str, row), strict=True)) for row in rows(range(3))])
    return f"postgres://{server.host}:{server.port}"


def told(operator: Any) -> tuple[list[Told], list[Told]]:
    """What the provider takes of a task that has ended: inputs and outputs with the numbers of their rows."""
    from airflow.providers.openlineage.extractors.manager import ExtractorManager

    found = ExtractorManager()._get_extractor(operator).extract_on_complete(None)
    return [told_of(one) for one in found.inputs], [told_of(one) for one in found.outputs]


def told_of(dataset: Any) -> Told:
    counts = (getattr(dataset, "outputFacets", None) or {}).get("outputStatistics")
    return dataset.namespace, dataset.name, counts and counts.rowCount


def test_openlineage_gets_tables_accounts_and_counts(
    warehouse: str, connect: Any, sandbox: SandboxServer
) -> None:
    # KK shows changes with a delay: an order was placed there by hand some time ago.
    sandbox.control.advance(-7200)
    sandbox.control.place({SKUS[0]: 1})
    sandbox.control.advance(3600)
    sync = SyncOrdersOperator(task_id="sync", sql="SELECT * FROM order_line", warehouse_conn_id="warehouse")
    single = CreateOrderOperator(task_id="single", order=order(7), ledger_conn_id="warehouse")
    status = SyncOrderStatusOperator(task_id="status", warehouse_conn_id="warehouse")
    for operator in (sync, single, status):
        assert attempt(operator).error is None

    account = (f"kk://{sandbox.url.removeprefix('http://')}", "default/orders")
    assert told(sync) == ([(warehouse, "lineage.public.order_line", None)], [(*account, 3)])
    assert told(single) == ([], [(*account, 1)])
    tables = [(warehouse, f"lineage.public.kk_{name}") for name in ("order_status", "order_line", "package")]
    counts = (1, None, None)
    outputs = [(*table, count) for table, count in zip(tables, counts, strict=True)]
    assert told(status) == ([(*account, None)], outputs)
