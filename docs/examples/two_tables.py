"""Send orders that are in two tables, made by two_tables.sql: one of orders, one of their lines."""

from datetime import timedelta

import pendulum
from airflow.providers.common.compat.sdk import DAG

from airflow_provider_kk.operators.orders import SyncOrdersOperator

with DAG(
    dag_id="orders_to_kk",
    schedule="*/15 * * * *",
    start_date=pendulum.datetime(2026, 1, 1, tz="UTC"),
    catchup=False,
    max_active_runs=1,
    default_args={"retries": 3, "retry_delay": timedelta(minutes=5)},
):
    SyncOrdersOperator(
        task_id="sync_orders",
        kk_conn_id="kk_default",
        warehouse_conn_id="warehouse",
        sql="""
            SELECT o.order_no AS custom_order_number,
                   o.recipient, o.phone, o.street1, o.city, o.province, o.zip, o.country,
                   l.sku, l.quantity
              FROM shop_order o
              JOIN shop_order_line l ON l.order_no = o.order_no
             WHERE o.kk_order_ids IS NULL
        """,
        write_back={"table": "shop_order", "key": "order_no", "ids": "kk_order_ids", "state": "kk_state"},
    )
