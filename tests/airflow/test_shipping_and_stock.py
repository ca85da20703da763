"""A real DAG run that asks KK for offers and stock before it sends."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.operators.shop import SELECT, SKUS, address, each_is_there_once, nonzero, number, rows

if TYPE_CHECKING:
    from tests.airflow.conftest import Shop

DAG = f"""
import pendulum
from airflow.providers.common.compat.sdk import DAG

from airflow_provider_kk.operators.orders import CreateOrderOperator, SyncOrdersOperator
from airflow_provider_kk.operators.shipping import QuoteShippingOperator

with DAG(
    "before_sending",
    start_date=pendulum.datetime(2026, 1, 1),
    schedule=None,
    catchup=False,
    params={{"order": {{}}}},
):
    quote = QuoteShippingOperator(
        task_id="quote",
        items="{{{{ params.order['items'] | tojson }}}}",
        country="{{{{ params.order.address.country }}}}",
        ledger_conn_id="warehouse",
    )
    create = CreateOrderOperator(
        task_id="create",
        order="{{{{ params.order | tojson }}}}",
        ledger_conn_id="warehouse",
    )
    sync = SyncOrdersOperator(
        task_id="sync", sql={SELECT!r}, warehouse_conn_id="warehouse", check_stock=True, max_rejected=1
    )
    quote >> create >> sync
"""


def test_freight_offers_are_pulled_and_orders_without_stock_are_not_sent(shop: Shop):
    shop.sandbox.control.set(orders_take_stock=True)
    shop.sandbox.control.set_stock(SKUS[1], 8)
    shop.warehouse.add(*rows(range(1, 4)), (number(9), *address(9).values(), SKUS[1], 3))
    items = [{"sku": SKUS[0], "quantity": 1}]
    order = {"custom_order_number": number(0), "address": address(0), "items": items}

    result = shop.run(DAG, conf={"order": order})

    assert result.state == "success", result.log
    offers = result.xcoms["quote"]["return_value"]
    assert [(one["channel_type"], one["estimated_freight"]) for one in offers] == [
        ("Standard", "3.99"), ("Express", "8.99"), ("Expedited", "16.99")
    ]  # fmt: skip
    summary = result.xcoms["sync"]["return_value"]
    assert nonzero(summary) == {"created": 3, "invalid": 1}
    assert summary["rejections"][0]["message"] == (
        f"items[0]: 3 of {SKUS[1]} ordered, 1 available of 8 at KK, "
        "since earlier orders of this run need the others"
    )
    each_is_there_once(shop.sandbox, range(4))
