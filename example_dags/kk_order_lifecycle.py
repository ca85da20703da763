"""One order's life: create it, wait until its parcels are shipped, and report them; else refund it.

Needs the connection `kk_default`, with a ledger: the Airflow variable `kk_ledger_conn_id` (default:
`warehouse`) names the database connection of the ledger. Trigger it by hand. On `kk sandbox`
orders move by a timetable, which its control page changes.

The wait takes no worker's slot. It is skipped, which begins the refund, when the order is not shipped in
time, and at once when it never will be: it is cancelled, or KK calls it abnormal. If KK rejects the refund,
for example of an order that was shipped in the last moment, the run fails with KK's reason.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pendulum
from airflow.providers.common.compat.sdk import DAG, Param, task

from airflow_provider_kk.operators.orders import CreateOrderOperator
from airflow_provider_kk.operators.refunds import RefundOrderOperator
from airflow_provider_kk.sensors.orders import OrderSensor

LEDGER = "{{ var.value.get('kk_ledger_conn_id', 'warehouse') }}"
ORDER_NUMBER = "{{ ti.xcom_pull(task_ids='create_order', key='customOrderNumber') }}"
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
    dag_id="kk_order_lifecycle",
    schedule=None,
    start_date=pendulum.datetime(2026, 1, 1, tz="UTC"),
    catchup=False,
    default_args={"retries": 3, "retry_delay": timedelta(minutes=5)},
    params={
        "sku": Param("FWXW00290_WHT_M", type="string"),
        "quantity": Param(1, type="integer", minimum=1),
        "address": Param(ADDRESS, type="object"),
    },
    doc_md=__doc__,
    tags=["kk"],
) as dag:
    create = CreateOrderOperator(
        task_id="create_order",
        address="{{ params.address | tojson }}",
        items=[{"sku": "{{ params.sku }}", "quantity": "{{ params.quantity }}"}],
        ledger_conn_id=LEDGER,
    )

    shipped = OrderSensor(
        task_id="wait_until_shipped",
        custom_order_number=ORDER_NUMBER,
        until="shipped",
        timeout=timedelta(days=5),
        soft_fail=True,
        deferrable=True,
        ledger_conn_id=LEDGER,
    )

    @task
    def notify(orders: list[dict[str, Any]]) -> None:
        """Report the parcels; replace it by your own."""
        for order in orders:
            for package in order["packages"]:
                print(
                    f"Order {order['custom_order_number']}: {package['carrier']} {package['tracking_code']}"
                )

    refund = RefundOrderOperator(
        task_id="refund_order",
        custom_order_number=ORDER_NUMBER,
        remark="Not shipped in time",
        wait=True,
        deferrable=True,
        ledger_conn_id=LEDGER,
        trigger_rule="all_skipped",
    )

    create >> shipped >> refund
    notify(shipped.output)
