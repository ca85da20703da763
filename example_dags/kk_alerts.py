"""A sync that sends an alert when orders need a person, and when a run is late.

Needs what `kk_sync_orders` needs. Run it instead of that one, or copy what is between the lines into yours.

`alert` runs after the task has succeeded and after its last retry has failed. It reads the summary that the
task has pushed. There, newly means by this run: an order that KK rejected yesterday is not counted. The alert
has counts only, no order and no customer.

The deadline needs Airflow 3.3, where it may call a function of a DAG file. For 3.1 and 3.2 see
docs/howto-alerts.md.
"""

from __future__ import annotations

import logging
from datetime import timedelta
from typing import Any

import airflow
import pendulum
from airflow.providers.common.compat.sdk import DAG

from airflow_provider_kk.operators.orders import SyncOrdersOperator

log = logging.getLogger(__name__)

# ---------------------------------------------------------------------------------------------------
#: A run that is not over so long after it was queued is late.
LATE_AFTER = timedelta(hours=1)
#: The counts of the summary that a person has to see.
ALERTS = {
    "newly_held": "held: see `kk ledger list --state held`",
    "newly_rejected": "rejected by KK",
    "newly_invalid": "invalid",
    "changed": "changed after creation",
    "in_doubt": "in doubt",
    "not_sent": "not sent",
}


def send(text: str) -> None:
    """Put your notifier here, such as `SlackWebhookNotifier(text=text)({})` or `SmtpNotifier(...)`."""
    log.warning("ALERT: %s", text)


def alert(context: Any) -> None:
    """Send the counts of orders that need a person."""
    ti = context["ti"]
    where = f"{ti.dag_id} {ti.run_id}"
    summary = ti.xcom_pull(task_ids=ti.task_id)
    if summary is None:
        send(f"{where}: failed before it could count anything. See its log")
    elif found := [f"{summary[count]} {words}" for count, words in ALERTS.items() if summary[count]]:
        send(f"{where}: of {summary['selected']} orders {', '.join(found)}")


def late(context: Any) -> None:
    """Send an alert for a run that is not over in time."""
    send(f"{context['dag_run']['dag_id']} {context['dag_run']['dag_run_id']}: not over after {LATE_AFTER}")


def deadline() -> dict[str, Any]:
    """Return the DAG's deadline, or nothing where Airflow has none to offer."""
    if tuple(map(int, airflow.__version__.split(".")[:2])) < (3, 3):
        return {}
    from airflow.sdk import DeadlineAlert, DeadlineReference, SyncCallback

    alert = DeadlineAlert(
        reference=DeadlineReference.DAGRUN_QUEUED_AT,
        interval=LATE_AFTER,
        callback=SyncCallback(late),
    )
    return {"deadline": alert}


# ---------------------------------------------------------------------------------------------------

with DAG(
    dag_id="kk_alerts",
    schedule="*/15 * * * *",
    start_date=pendulum.datetime(2026, 1, 1, tz="UTC"),
    catchup=False,
    max_active_runs=1,
    default_args={"retries": 2, "retry_delay": timedelta(minutes=2)},
    doc_md=__doc__,
    tags=["kk"],
    **deadline(),
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
        """,
        write_back={"table": "shop_order", "key": "order_no", "ids": "kk_order_ids", "state": "kk_state"},
        max_rejected=0.5,
        on_success_callback=alert,
        on_failure_callback=alert,
    )
