"""Plan a sync, ask people to approve a large one, and send exactly the approved orders.

Needs Airflow 3.1 with its standard provider, before 3.3 with a triggerer; on earlier ones this file holds
no DAG. Needs the connections and tables of `kk_sync_orders`.

The plan sends nothing. A small one goes straight to the sync. For a larger one, the question stands under
Required Actions, in the UI and on the run. The sync is bound to the plan: it sends the orders that were
planned, with the content that was planned, and leaves all others to the next run. A rejection skips it. If
nobody answers in time, the run fails. Neither sends anything.
"""

from __future__ import annotations

from datetime import timedelta
from decimal import Decimal
from inspect import signature
from typing import Any

import airflow
import pendulum
from airflow.providers.common.compat.sdk import DAG, task

from airflow_provider_kk.operators.orders import SyncOrdersOperator

#: People are asked when a plan exceeds one of these. The value is in US dollars, without freight.
ASK_ABOVE_ORDERS = 50
ASK_ABOVE_UNITS = 200
ASK_ABOVE_VALUE = Decimal(2_000)
#: The plan and the sync select the same orders under the same guards.
SELECTION: dict[str, Any] = {
    "warehouse_conn_id": "{{ var.value.get('kk_warehouse_conn_id', 'warehouse') }}",
    "sql": """
        SELECT o.order_no AS custom_order_number,
               o.country, o.recipient, o.phone, o.province, o.city, o.street1, o.street2, o.zip,
               l.sku, l.quantity
          FROM shop_order o
          JOIN shop_order_line l ON l.order_no = o.order_no
         WHERE o.kk_order_ids IS NULL
         ORDER BY o.ordered_at, o.order_no, l.line
    """,
    # A guard on the value, so that KK is asked for prices and the plan knows what its goods cost.
    "max_run_value": 100_000,
}
#: Counts of a plan that people should know of.
PROBLEMS = ("invalid", "rejected", "changed", "held", "in_doubt", "not_sent")


@task.branch
def choose(plan: dict[str, Any]) -> str:
    """Ask people when the plan is large."""
    is_large = (
        plan["new_orders"] > ASK_ABOVE_ORDERS
        or plan["units"] > ASK_ABOVE_UNITS
        or Decimal(plan["value"] or 0) > ASK_ABOVE_VALUE
    )
    return "question" if is_large else "sync_orders"


@task(multiple_outputs=True)
def question(plan: dict[str, Any]) -> dict[str, str]:
    """Describe the plan in Markdown; no customer's data is in it."""
    value = f"{Decimal(plan['value']):,.2f} USD" if plan["value"] else "not known"
    problems = ", ".join(f"{plan[name]} {name.replace('_', ' ')}" for name in PROBLEMS if plan[name])
    facts = {
        "Orders to send": f"{plan['new_orders']} of {plan['selected']} selected",
        "Units": plan["units"],
        "Value without freight": value,
        "Not sent": problems or "none",
        "Warnings in the plan's log": plan["warnings"],
        "Plan": f"`{plan['plan_digest']}`",
    }
    lines = [f"- {name}: {fact}" for name, fact in facts.items()]
    body = "\n\n".join(
        [
            "\n".join(lines),
            table("SKU", "Units", plan["top_skus"]),
            table("Country", "Orders", plan["countries"]),
        ]
    )
    return {"subject": f"Send {plan['new_orders']} orders to KK?", "body": body}


def table(name: str, number: str, counts: dict[str, int]) -> str:
    """Return counts as a table in Markdown."""
    rows = [f"| `{one}` | {count} |" for one, count in counts.items()]
    return "\n".join([f"| {name} | {number} |", "| --- | ---: |", *rows])


def define_dag() -> DAG:
    """Return the DAG; only where Airflow can ask people."""
    from airflow.providers.standard.operators.hitl import ApprovalOperator, HITLOperator

    # The standard provider before 1.12.2, which stock Airflow 3.1 has, knows one timeout only.
    has_response_timeout = "response_timeout" in signature(HITLOperator.__init__).parameters
    timeout = "response_timeout" if has_response_timeout else "execution_timeout"

    with DAG(
        dag_id="kk_approval",
        schedule="@daily",
        start_date=pendulum.datetime(2026, 1, 1, tz="UTC"),
        catchup=False,
        # One plan waits for an answer at a time.
        max_active_runs=1,
        default_args={"retries": 2, "retry_delay": timedelta(minutes=2)},
        doc_md=__doc__,
        tags=["kk"],
    ) as dag:
        plan = SyncOrdersOperator(task_id="plan", plan_only=True, **SELECTION)
        asked = question(plan.output)
        approve = ApprovalOperator(
            task_id="approve",
            subject=asked["subject"],
            body=asked["body"],
            # A question without an answer is not asked again in this run.
            retries=0,
            **{timeout: timedelta(hours=12)},
        )
        sync = SyncOrdersOperator(
            task_id="sync_orders",
            approved_plan=plan.output,
            write_back={
                "table": "shop_order",
                "key": "order_no",
                "ids": "kk_order_ids",
                "state": "kk_state",
            },
            max_rejected=0.5,
            # Runs after the approval, and without one when the plan is small.
            trigger_rule="none_failed_min_one_success",
            **SELECTION,
        )
        choose(plan.output) >> [asked, sync]
        approve >> sync
    return dag


if tuple(map(int, airflow.__version__.split(".")[:2])) >= (3, 1):
    dag = define_dag()
