"""Refunds some lines of an order, by its own number, and waits for KK's decision.

Needs the connection `kk_default`, with a ledger: the Airflow variable `kk_ledger_conn_id` (default:
`warehouse`) names the database connection of the ledger. Trigger it by hand, before the order
is shipped, with the order's number and its lines; the lines must have been ordered.

A retry or a clear never asks KK twice; another run with the same lines is another refund.
"""

from __future__ import annotations

from datetime import timedelta

import pendulum
from airflow.providers.common.compat.sdk import DAG, Param

from airflow_provider_kk.operators.refunds import RefundOrderOperator

with DAG(
    dag_id="kk_refund_lines",
    schedule=None,
    start_date=pendulum.datetime(2026, 1, 1, tz="UTC"),
    catchup=False,
    default_args={"retries": 3, "retry_delay": timedelta(minutes=5)},
    params={
        "custom_order_number": Param("S-1001", type="string", minLength=1),
        "lines": Param([{"sku": "FWXW00290_WHT_M", "quantity": 1}], type="array", minItems=1),
    },
    doc_md=__doc__,
    tags=["kk"],
) as dag:
    RefundOrderOperator(
        task_id="refund_lines",
        custom_order_number="{{ params.custom_order_number }}",
        lines="{{ params.lines | tojson }}",
        remark="The customer wants less",
        wait=True,
        ledger_conn_id="{{ var.value.get('kk_ledger_conn_id', 'warehouse') }}",
    )
