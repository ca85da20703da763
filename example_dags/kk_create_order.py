"""Send single orders to KK in three ways: from parameters, from an upstream task, and mapped over a list.

Needs the connection `kk_default`, with a ledger: the Airflow variable `kk_ledger_conn_id` (default:
`warehouse`) names the database connection of the ledger. Trigger it by hand.
"""

from __future__ import annotations

from typing import Any
from uuid import NAMESPACE_URL, uuid5

import pendulum
from airflow.providers.common.compat.sdk import DAG, Param, task

from airflow_provider_kk.operators.orders import CreateOrderOperator

LEDGER = "{{ var.value.get('kk_ledger_conn_id', 'warehouse') }}"
ADDRESS = {
    "country": "FR",
    "recipient": "Sample Customer",
    "phone": "+33 1 00 00 00 00",
    "province": "Ile-de-France",
    "city": "Paris",
    "street1": "1 Example Street",
    "zip": "75001",
}

with DAG(
    dag_id="kk_create_order",
    schedule=None,
    start_date=pendulum.datetime(2026, 1, 1, tz="UTC"),
    catchup=False,
    params={
        "sku": Param("FWXW00290_WHT_M", type="string"),
        "quantity": Param(1, type="integer", minimum=1),
        "remark": Param("sample order", type="string"),
        "address": Param(ADDRESS, type="object"),
    },
    doc_md=__doc__,
    tags=["kk"],
) as dag:
    # Without a custom_order_number one is derived from dag, run and task: a retry never orders twice.
    CreateOrderOperator(
        task_id="from_params",
        address="{{ params.address | tojson }}",
        items=[{"sku": "{{ params.sku }}", "quantity": "{{ params.quantity }}"}],
        remark="{{ params.remark }}",
        ledger_conn_id=LEDGER,
    )

    # An order is about a customer: its text belongs in no log.
    @task(show_return_value_in_logs=False)
    def build_order(params: dict[str, Any] | None = None, run_id: str | None = None) -> dict[str, Any]:
        """Build an order as plain data, under a number of our own: the same in each try of this run."""
        params = params or {}
        return {
            "custom_order_number": f"SAMPLE-{uuid5(NAMESPACE_URL, str(run_id)).hex[:20]}",
            "address": params["address"],
            "items": [{"sku": params["sku"], "quantity": 2}],
        }

    CreateOrderOperator(task_id="from_xcom", order=build_order(), ledger_conn_id=LEDGER)

    # An order is about a customer: its text belongs in no log.
    @task(show_return_value_in_logs=False)
    def build_orders(params: dict[str, Any] | None = None) -> list[dict[str, Any]]:
        """Build a few orders; each mapped task derives a number of its own."""
        params = params or {}
        return [
            {"address": params["address"], "items": [{"sku": params["sku"], "quantity": quantity}]}
            for quantity in (1, 2, 3)
        ]

    CreateOrderOperator.partial(task_id="mapped", ledger_conn_id=LEDGER).expand(order=build_orders())
