"""Single orders in a real Airflow: from an upstream task, mapped over orders, cleared and run again."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from tests.operators.shop import PRIVATE, each_is_there_once, ids_at_kk, number, order

if TYPE_CHECKING:
    from tests.airflow.conftest import Shop

DAG = """
    import pendulum
    from airflow.providers.common.compat.sdk import DAG, task

    from airflow_provider_kk.api.models import Order
    from airflow_provider_kk.operators.orders import CreateOrderOperator

    with DAG("orders", start_date=pendulum.datetime(2026, 1, 1), schedule=None, catchup=False):

        @task
        def build(params=None):
            return {upstream!r}

        @task
        def told(ids):
            return ids

        built = CreateOrderOperator(task_id="built", order=build(), ledger_conn_id="warehouse")
        told(built.output["kkOrderIds"])

        @task
        def build_more():
            return {more!r}

        def read(context, jinja_env):
            return {read!r}

        literals = [Order.parse(order) for order in {literals!r}]
        mapped = CreateOrderOperator.partial(task_id="mapped", ledger_conn_id="warehouse", retries=0)
        mapped.expand(order=literals)
        CreateOrderOperator.partial(task_id="more", ledger_conn_id="warehouse").expand(order=build_more())
        called = CreateOrderOperator.partial(task_id="called", ledger_conn_id="warehouse", order=read)
        called.expand(custom_order_number=[{number!r}])
"""


def test_orders_of_an_upstream_task_and_mapped_literals_also_when_the_run_is_cleared(shop: Shop):
    shop.sandbox.control.arm("code_in_envelope", number=number(3))
    dag = DAG.format(
        upstream=order(1),
        literals=[order(n) for n in (2, 3, 4)],
        more=[order(n) for n in (5, 6)],
        read=order(7),
        number=number(7),
    )
    once = "2026-05-01T00:00:00+00:00"

    first = shop.run(dag, logical_date=once)
    sent = shop.sandbox.control.counts()["creates"]
    shop.sandbox.control.disarm()
    cleared = shop.run(dag, logical_date=once)

    assert first.tasks["mapped[1]"] == "failed", first.log
    assert cleared.run_id == first.run_id
    each_is_there_once(shop.sandbox, [1, 2, 4, 5, 6, 7])
    # One of the mapped orders was refused, which did not stop the others; so soon it is not asked for again.
    assert sent == 7
    assert shop.sandbox.control.counts()["creates"] == sent
    ids = ids_at_kk(shop.sandbox)
    for run in (first, cleared):
        states = {name: state for name, state in run.tasks.items() if name != "mapped[1]"}
        assert set(states.values()) == {"success"}, run.log
        assert sorted(run.xcoms["built"]["kkOrderIds"]) == ids[number(1)]
        assert run.xcoms["built"]["return_value"] == run.xcoms["built"]["kkOrderId"]
        assert run.xcoms["told"]["return_value"] == run.xcoms["built"]["kkOrderIds"]
        assert run.xcoms["mapped[0]"]["kkOrderIds"] == ids[number(2)]
        assert run.xcoms["mapped[2]"]["kkOrderIds"] == ids[number(4)]
    fields = shop.home.rendered_fields()
    assert {f"{name}[0]" for name in ("mapped", "more", "called")} | {"built"} <= set(fields)
    assert [word for word in PRIVATE if word in json.dumps(fields)] == []
    for name, shown in (("built", 1), ("mapped[0]", 2), ("more[1]", 6), ("called[0]", 7)):
        assert json.loads(fields[name]["order"])["items"] == order(shown)["items"]
