"""The kill switch and the daily cap, as tasks meet them."""

from __future__ import annotations

from contextlib import closing, contextmanager
from typing import TYPE_CHECKING

import pytest
from airflow.providers.common.compat.sdk import AirflowException, AirflowFailException

from airflow_provider_kk.operators.orders import CreateOrderOperator
from airflow_provider_kk.operators.refunds import RefundOrderOperator
from tests.operators.shop import Warehouse, attempt, nonzero, order, rows, sync

if TYPE_CHECKING:
    from collections.abc import Iterator

    from airflow_provider_kk.delivery.sql.storage import SqlLedger
    from airflow_provider_kk.sandbox.server import SandboxServer
    from tests.operators.conftest import Connect, Printed

pytestmark = pytest.mark.usefixtures("connect")


@contextmanager
def ledger() -> Iterator[SqlLedger]:
    from airflow_provider_kk.hooks.kk import KKHook
    from airflow_provider_kk.hooks.ledger_connection import open_ledger

    with closing(open_ledger(KKHook(), "warehouse", threads=1)) as opened:
        yield opened


def create(n: int) -> CreateOrderOperator:
    return CreateOrderOperator(task_id="create", order=order(n), ledger_conn_id="warehouse", deferrable=False)


@pytest.fixture
def paused(connect: Connect, warehouse: Warehouse) -> None:
    with ledger() as opened:
        opened.storage.add_pause("ann", "wrong query")


@pytest.mark.usefixtures("paused")
def test_paused_sync_succeeds_and_postpones(
    sandbox: SandboxServer, warehouse: Warehouse, printed: Printed
) -> None:
    warehouse.add(*rows(range(3)))
    done = attempt(sync(), run_id="sync")
    assert done.error is None
    assert nonzero(done.summary) == {"postponed": 3}
    assert "by ann: wrong query" in printed()
    assert sandbox.control.orders() == []
    with ledger() as opened:
        opened.storage.end_pause("ann", "fixed")
    assert nonzero(attempt(sync(), run_id="next").summary) == {"created": 3}


@pytest.mark.usefixtures("paused")
def test_paused_create_and_refund_fail_until_a_retry(sandbox: SandboxServer) -> None:
    tried = attempt(create(1))
    assert type(tried.error) is AirflowException
    assert "by ann: wrong query" in str(tried.error)
    with ledger() as opened:
        opened.storage.end_pause("ann", "fixed")
    created = attempt(create(1), try_number=2)
    assert created.error is None
    with ledger() as opened:
        opened.storage.add_pause("ann", "wrong query")
    refund = RefundOrderOperator(
        task_id="refund", kk_order_id=created.value, ledger_conn_id="warehouse", deferrable=False
    )
    refused = attempt(refund)
    assert type(refused.error) is AirflowException
    assert "by ann: wrong query" in str(refused.error)
    assert not [one for one in sandbox.control.requests() if one["path"].endswith("/refund")]


@pytest.mark.usefixtures("paused")
def test_plan_reports_the_pause(warehouse: Warehouse, printed: Printed) -> None:
    warehouse.add(*rows(range(2)))
    attempt(sync(plan_only=True), run_id="plan")
    assert "A sync would send nothing now: sending is paused" in printed()


def test_daily_cap_of_the_connection_holds_over_tasks(
    sandbox: SandboxServer, warehouse: Warehouse, connect: Connect, printed: Printed
) -> None:
    connect(max_orders_per_day=3)
    warehouse.add(*rows(range(5)))
    assert attempt(create(100)).error is None
    summary = attempt(sync(max_in_flight=4), run_id="sync").summary
    assert nonzero(summary) == {"created": 2, "postponed": 3}
    assert "max_orders_per_day=3" in printed()
    assert len({one["number"] for one in sandbox.control.orders()}) == 3
    tried = attempt(create(101))
    assert type(tried.error) is AirflowException
    assert "can be sent after" in str(tried.error)


def test_daily_cap_needs_a_ledger(connect: Connect) -> None:
    connect(max_orders_per_day=3)
    tried = attempt(CreateOrderOperator(task_id="create", order=order(1), deferrable=False))
    assert type(tried.error) is AirflowFailException
    assert "max_orders_per_day" in str(tried.error)
