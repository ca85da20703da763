"""The same try of a task, delivered more than once to Airflows that do not know of each other."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.operators.shop import QUICK, ids_at_kk, ids_in_ledger, nonzero, number, order, rows

if TYPE_CHECKING:
    from tests.airflow.conftest import Shop

pytestmark = pytest.mark.timeout(1_800)

TIMES = QUICK | {"timeout_s": 2, "lease_s": 4}
#: After the sync, an order whose number is derived from where its task stands.
CREATE = """
    from airflow_provider_kk.operators.orders import CreateOrderOperator

    task >> CreateOrderOperator(
        task_id="create", ledger_conn_id="warehouse", order={order!r}, pre_execute=wait_at_gate
    )
"""


def creates(shop: Shop) -> int:
    return int(shop.sandbox.control.counts()["creates"])


def sync_and_create(shop: Shop, **arguments: object) -> str:
    content = {name: value for name, value in order(100).items() if name != "custom_order_number"}
    return shop.dag(**arguments) + CREATE.format(order=content)


def test_a_redelivered_try_creates_each_order_once(shop: Shop):
    shop.connect(**TIMES)
    shop.warehouse.add(*rows(range(12)))
    shop.sandbox.control.set(latency_s=0.3)
    shop.sandbox.control.arm("drop_after_commit", number=number(2), times=1)
    shop.sandbox.control.arm("drop_before_commit", number=number(5), times=1)
    dag, when = sync_and_create(shop, max_in_flight=2), "2026-05-01T00:00:00+00:00"

    two = [shop.start(dag, logical_date=when) for _ in range(2)]
    for task_id in ("sync", "create"):
        for one in two:
            one.wait_until_there(task_id)
        for one in two:
            one.open(task_id)
    results = [one.run.wait() for one in two]
    sent_by_two = creates(shop)
    # An Airflow that has never run anything.
    results.append(shop.run(dag, logical_date=when))

    assert [result.state for result in results] == ["success"] * 3, "\n".join(r.log for r in results)
    assert len({result.run_id for result in results}) == 1
    assert shop.warehouse.execute("SELECT DISTINCT try_number FROM kk_order_attempt") == [(1,)]
    # Of the thirteen one request was lost, and is sent again.
    assert (sent_by_two, creates(shop)) == (14, 14)
    assert shop.sandbox.control.duplicates() == []
    found = ids_at_kk(shop.sandbox)
    assert ids_in_ledger(shop.warehouse.path) == found
    derived = found.keys() - {number(n) for n in range(12)}
    assert len(found) == 13
    assert {result.xcoms["create"]["kkOrderId"] for result in results} == {found[derived.pop()][0]}
    told = [nonzero(result.xcoms["sync"]["return_value"]) for result in results]
    print(told)
    assert [sum(counts.values()) for counts in told] == [12] * 3
    assert told[2] == {"already_created": 12}
