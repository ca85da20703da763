"""Where links lead, from what a task has pushed and from its own arguments."""

from __future__ import annotations

from typing import Any, NamedTuple

import pytest
from airflow.providers.common.compat.sdk import XCom

from airflow_provider_kk.links.kk import (
    IN_LEDGER,
    RUN_IN_LEDGER,
    OrderAtKKLink,
    OrderInLedgerLink,
    RunInLedgerLink,
)
from airflow_provider_kk.operators.orders import CreateOrderOperator, SyncOrdersOperator
from airflow_provider_kk.operators.refunds import RefundOrderOperator
from airflow_provider_kk.sensors.orders import OrderSensor
from tests.airflow.support import AIRFLOW_VERSION


class Key(NamedTuple):
    """As much of a task instance's key as links need."""

    dag_id: str = "a dag"
    run_id: str = "manual__2026-01-01T00:00:00+00:00"


@pytest.fixture
def pushed(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What the task has pushed, by key."""
    values: dict[str, Any] = {}
    monkeypatch.setattr(XCom, "get_value", lambda *, key, ti_key: values.get(key))
    return values


CREATE = CreateOrderOperator(task_id="create", items=[])


def test_the_order_at_kk_is_linked_when_the_task_knew_its_address(pushed: dict[str, Any]):
    assert OrderAtKKLink().get_link(CREATE, ti_key=Key()) == ""
    pushed["kkOrderUrl"] = "https://kk.example/1"
    assert OrderAtKKLink().get_link(CREATE, ti_key=Key()) == "https://kk.example/1"


@pytest.mark.parametrize(
    ("arguments", "link"),
    [
        ({"custom_order_number": "A&1"}, "/kk/order?number=A%261&kk_conn_id=kk_two"),
        ({"kk_order_id": "1000"}, "/kk/orders?q=1000&kk_conn_id=kk_two"),
    ],
)
@pytest.mark.parametrize("kind", [OrderSensor, RefundOrderOperator])
def test_an_order_that_the_arguments_name_is_linked(
    pushed: dict[str, Any], kind: Any, arguments: dict[str, str], link: str
):
    task = kind(task_id="task", kk_conn_id="kk_two", **arguments)
    assert OrderInLedgerLink().get_link(task, ti_key=Key()) == link


def test_a_derived_order_number_is_linked_as_soon_as_it_is_known(pushed: dict[str, Any]):
    assert OrderInLedgerLink().get_link(CREATE, ti_key=Key()) == ""
    pushed["customOrderNumber"] = "af-1"
    assert OrderInLedgerLink().get_link(CREATE, ti_key=Key()) == "/kk/order?number=af-1&kk_conn_id=kk_default"


def test_a_run_is_linked_whatever_its_name():
    sync = SyncOrdersOperator(task_id="sync", sql="SELECT 1", warehouse_conn_id="warehouse")
    link = "/kk/runs/a%20dag/manual__2026-01-01T00%3A00%3A00%2B00%3A00?kk_conn_id=kk_default"
    assert RunInLedgerLink().get_link(sync, ti_key=Key()) == link


def test_links_to_the_orders_page_are_there_where_airflow_has_the_page():
    has_pages = AIRFLOW_VERSION >= (3, 1)
    assert (len(IN_LEDGER), len(RUN_IN_LEDGER)) == (has_pages, has_pages)
