"""Every 15 minutes, sends the shop's new orders to KK, and writes the results back.

Needs two connections: `kk_default` to KK and one to the warehouse, named by the Airflow variable
`kk_warehouse_conn_id` (default: `warehouse`). The tables are made by the statements in `warehouse.sql`.

The query selects orders without a kkOrderId. It ignores the data interval: on Airflow 3 that of a cron
schedule is empty. An order that is selected twice is still sent once.
"""

from __future__ import annotations

from datetime import timedelta

import pendulum
from airflow.providers.common.compat.sdk import DAG, Param

from airflow_provider_kk.operators.orders import SyncOrdersOperator

with DAG(
    dag_id="kk_sync_orders",
    schedule="*/15 * * * *",
    start_date=pendulum.datetime(2026, 1, 1, tz="UTC"),
    catchup=False,
    max_active_runs=1,
    params={
        "ordered_since": Param("2026-01-01", type="string", description="Leave older orders alone"),
    },
    default_args={"retries": 2, "retry_delay": timedelta(minutes=2)},
    doc_md=__doc__,
    tags=["kk"],
) as dag:
    SyncOrdersOperator(
        task_id="sync_orders",
        warehouse_conn_id="{{ var.value.get('kk_warehouse_conn_id', 'warehouse') }}",
        sql="""
            SELECT o.order_no AS custom_order_number,
                   o.country, o.recipient, o.phone, o.province, o.city, o.street1, o.street2, o.zip,
                   l.sku, l.quantity
              FROM shop_order o
              JOIN shop_order_line l ON l.order_no = o.order_no
             WHERE o.kk_order_ids IS NULL
               AND o.ordered_at >= '{{ params.ordered_since }}'
             ORDER BY o.ordered_at, o.order_no, l.line
        """,
        write_back={
            "table": "shop_order",
            "key": "order_no",
            "ids": "kk_order_ids",
            "state": "kk_state",
        },
        # A few bad orders do not fail the task; they are in the log, the summary and the table.
        max_rejected=0.5,
    )
