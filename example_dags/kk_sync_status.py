"""Every 20 minutes, writes the orders at KK into the warehouse: statuses, lines and parcels.

Needs two connections: `kk_default` to KK and one to the warehouse (SQLite, PostgreSQL or MySQL), named by the
Airflow variable `kk_warehouse_conn_id` (default: `warehouse`). The tables `kk_order_status`, `kk_order_line`
and `kk_package` are made at the first run.

Each run reads the changes since the last one, up to 10 minutes before now. So it does not matter when it
runs, or whether one is left out.
"""

from __future__ import annotations

from datetime import timedelta

import pendulum
from airflow.providers.common.compat.sdk import DAG

from airflow_provider_kk.operators.status import SyncOrderStatusOperator

with DAG(
    dag_id="kk_sync_status",
    schedule="*/20 * * * *",
    start_date=pendulum.datetime(2026, 1, 1, tz="UTC"),
    catchup=False,
    max_active_runs=1,
    default_args={"retries": 2, "retry_delay": timedelta(minutes=2)},
    doc_md=__doc__,
    tags=["kk"],
) as dag:
    SyncOrderStatusOperator(
        task_id="sync_status",
        warehouse_conn_id="{{ var.value.get('kk_warehouse_conn_id', 'warehouse') }}",
    )
