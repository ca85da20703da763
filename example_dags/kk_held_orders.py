"""Asks people about held orders, inside Airflow, and resolves the orders by their answers.

Needs Airflow 3.1 with its standard provider, before 3.3 with a triggerer; on earlier ones this file holds
no DAG, and `kk ledger resolve` does the same. Needs the connection `kk_default`, with a ledger: the Airflow
variable `kk_ledger_conn_id` (default: `warehouse`) names the database connection of the
ledger.

An order is held when only a person can decide about it: search its number on KK's site first. The question is
under Required Actions, in the UI and on the run. The ledger keeps who answered, and why. If nobody answers
within the day, a later run asks again.
"""

from __future__ import annotations

from datetime import timedelta
from inspect import signature
from typing import Any

import airflow
import pendulum
from airflow.providers.common.compat.sdk import DAG, Param, task, task_group

from airflow_provider_kk.operators.held import held_orders, resolve_order

LEDGER = "{{ var.value.get('kk_ledger_conn_id', 'warehouse') }}"

CREATED = "KK has it, under these kkOrderIds"
NEVER_CREATED = "KK never made it: send it"
ORDER_AGAIN = "KK has these kkOrderIds, let them stand and order it once more"
LEAVE = "Leave it held"


@task
def held(ledger_conn_id: str) -> list[dict[str, Any]]:
    """Read the held orders; no customer's data is in them."""
    return held_orders(ledger_conn_id=ledger_conn_id)


@task(multiple_outputs=True)
def question(order: dict[str, Any]) -> dict[str, str]:
    """Describe one order, and the decision about it."""
    number = order["custom_order_number"]
    goods = ", ".join(f"{quantity} x {sku}" for sku, quantity in order["goods"].items())
    facts = {
        "Why": order["why"],
        "Held since": order["since"],
        "Ordered": f"{goods} to {order['country']}",
        "kkOrderIds that KK has given or lists": ", ".join(order["kk_order_ids"]) or "none",
        "All of it": f"`kk ledger show {number}`",
    }
    body = "\n".join(f"- {name}: {fact}" for name, fact in facts.items())
    return {"subject": f"What became of order {number}?", "body": body}


@task
def apply(order: dict[str, Any], answer: dict[str, Any], ledger_conn_id: str) -> str:
    """Resolve an order by the answer and by the rules of `kk ledger resolve`: ids are checked at KK."""
    (choice,) = answer["chosen_options"]
    if choice == LEAVE:
        return "left as it is"
    resolutions = {CREATED: "created", NEVER_CREATED: "never_created", ORDER_AGAIN: "order_again"}
    form = answer["params_input"]
    return resolve_order(
        order["custom_order_number"],
        resolution=resolutions[choice],
        who=answer["responded_by_user"]["name"],
        why=form["why"],
        kk_order_ids=form["kk_order_ids"],
        # KK may have other goods, which is why the order is made once more.
        accept_other_goods=choice == ORDER_AGAIN,
        # An answer may be a day old: a colleague or a sync may have been faster.
        generation=order["generation"],
        version=order["version"],
        ledger_conn_id=ledger_conn_id,
    )


def define_dag() -> DAG:
    """Return the DAG; only where Airflow can ask people."""
    from airflow.providers.standard.operators.hitl import HITLOperator

    # The standard provider before 1.12.2, which stock Airflow 3.1 has, knows one timeout only.
    has_response_timeout = "response_timeout" in signature(HITLOperator.__init__).parameters
    timeout = "response_timeout" if has_response_timeout else "execution_timeout"

    with DAG(
        dag_id="kk_held_orders",
        schedule="@hourly",
        start_date=pendulum.datetime(2026, 1, 1, tz="UTC"),
        catchup=False,
        # Nobody is asked twice at once.
        max_active_runs=1,
        default_args={"retries": 3, "retry_delay": timedelta(minutes=2)},
        doc_md=__doc__,
        tags=["kk"],
    ) as dag:

        @task_group
        def decide(order: dict[str, Any]) -> None:
            """Ask about one order and do what was answered, without waiting for the answers on others."""
            asked = question(order)
            answer = HITLOperator(
                task_id="ask",
                subject=asked["subject"],
                body=asked["body"],
                options=[CREATED, NEVER_CREATED, ORDER_AGAIN, LEAVE],
                params={
                    "kk_order_ids": Param("", type="string", description="comma separated"),
                    "why": Param("", type="string", description="what the next one on call should know"),
                },
                defaults=[LEAVE],
                **{timeout: timedelta(days=1)},
            )
            apply(order, answer.output, LEDGER)

        decide.expand(order=held(LEDGER))
    return dag


if tuple(map(int, airflow.__version__.split(".")[:2])) >= (3, 1):
    dag = define_dag()
