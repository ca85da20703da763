"""The DAG of the system tests: one table in four partitions, a sync for each, all on one account."""

from __future__ import annotations

import datetime

import pendulum
from airflow.providers.common.compat.sdk import DAG

from airflow_provider_kk.operators.orders import SyncOrdersOperator

with DAG(
    "shop",
    schedule=None,
    start_date=pendulum.datetime(2026, 1, 1),
    catchup=False,
    default_args={"retries": 5, "retry_delay": datetime.timedelta(seconds=1)},
):
    SyncOrdersOperator.partial(
        task_id="sync",
        warehouse_conn_id="warehouse",
        # In one order, a retry would trail behind the orphan that it runs beside, and never send.
        sql="""SELECT * FROM order_line WHERE batch = '{{ dag_run.conf["batch"] }}' AND part = %(part)s
                ORDER BY random()""",
        write_back="outcome",
        max_in_flight=3,
    ).expand(parameters=[{"part": part} for part in range(4)])
