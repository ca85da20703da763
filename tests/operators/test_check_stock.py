"""check_stock: what KK cannot serve is not sent, and whatever is sent was asked for before."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from airflow.providers.common.compat.sdk import AirflowException, AirflowFailException

from airflow_provider_kk.operators.orders import SyncOrdersOperator
from airflow_provider_kk.sync.stock import StockCheck
from tests.operators import shop
from tests.operators.shop import (
    SELECT,
    SKUS,
    Warehouse,
    address,
    attempt,
    each_is_there_once,
    nonzero,
    number,
    posts,
    rows,
)

if TYPE_CHECKING:
    from airflow_provider_kk.sandbox.server import SandboxServer
    from tests.operators.conftest import Connect, Printed

pytestmark = pytest.mark.usefixtures("connect")

DRESS, TOP, SHIRT = SKUS


def sync(**arguments: Any) -> SyncOrdersOperator:
    return shop.sync(**{"check_stock": True, **arguments})


def line(n: int, sku: str, quantity: int) -> tuple[Any, ...]:
    return (number(n), *address(n).values(), sku, quantity)


def requests(sandbox: SandboxServer, method: str, path: str) -> list[dict[str, Any]]:
    return [
        one for one in sandbox.control.requests() if one["method"] == method and one["path"].endswith(path)
    ]


def questions(sandbox: SandboxServer) -> int:
    return len(requests(sandbox, "GET", "/product/stocks"))


@pytest.mark.parametrize("version", ["v1", "v1-orders", "v2"])
def test_what_kk_cannot_serve_is_invalid_until_it_can(
    sandbox: SandboxServer, warehouse: Warehouse, connect: Connect, printed: Printed, version: str
):
    connect(api_version=version)
    warehouse.add(*rows([0, 3, 6]), line(1, DRESS, 2), line(1, TOP, 5), line(1, "NO_SUCH", 1))
    sandbox.control.set_stock(TOP, 4)

    first = attempt(sync(write_back="outcome"), run_id="first")

    missing = (
        f"items[1]: 5 of {TOP} ordered, 4 available; "
        "items[2]: 1 of NO_SUCH ordered, KK does not list this SKU"
    )
    assert isinstance(first.error, AirflowFailException)
    assert nonzero(first.summary) == {"created": 3, "invalid": 1}
    assert first.summary["rejections"] == [
        {"custom_order_number": number(1), "state": "invalid", "code": None, "message": missing}
    ]
    assert f"KK lacks goods of order {number(1)}: {missing}" in printed()
    told = "SELECT state, message FROM"
    assert warehouse.execute(f"{told} outcome WHERE custom_order_number = '{number(1)}'") == [
        ("invalid", missing)
    ]
    assert warehouse.execute(f"{told} kk_order WHERE custom_order_number = '{number(1)}'") == [
        ("invalid", missing)
    ]
    assert posts(sandbox) == 3

    again = attempt(sync(), run_id="again")
    assert (again.error, nonzero(again.summary)) == (None, {"already_created": 3, "invalid": 1})

    warehouse.execute("DELETE FROM order_line WHERE sku = 'NO_SUCH'")
    sandbox.control.set_stock(TOP, 5)
    later = attempt(sync(), run_id="later")
    assert (later.error, nonzero(later.summary)) == (None, {"already_created": 3, "created": 1})
    assert posts(sandbox) == 4


def test_orders_of_one_run_share_the_stock_and_kk_rejects_none(sandbox: SandboxServer, warehouse: Warehouse):
    sandbox.control.set(orders_take_stock=True)
    sandbox.control.set_stock(DRESS, 7)
    warehouse.add(*[line(n, DRESS, 2) for n in range(20)], line(20, DRESS, 1))

    done = attempt(sync(max_rejected=0.99))

    # Without the check ten refusals in a row would have stopped the sync.
    assert (done.error, nonzero(done.summary)) == (None, {"created": 4, "invalid": 17})
    assert {one["number"] for one in sandbox.control.orders()} == {number(n) for n in (0, 1, 2, 20)}
    assert [one["outcome"] for one in requests(sandbox, "POST", "/order/order")] == ["created"] * 4
    assert questions(sandbox) == 1
    assert done.summary["requests"] == sandbox.control.counts()["requests"]


def test_stock_is_queried_30_skus_at_a_time_once_each_for_orders_that_are_sent(
    sandbox: SandboxServer, warehouse: Warehouse
):
    skus = [one["sku"] for one in sandbox.control.catalogue() if one["stock"]][:100]
    warehouse.add(*[line(n, skus[n % 100], 1) for n in range(1_200)])

    # 1,200 orders are more than a batch of the board.
    plan = attempt(sync(plan_only=True, max_new_orders=None), run_id="plan")
    assert nonzero(plan.value) == {"postponed": 1_200}
    # The sync will ask for the stock again, and KK's list once.
    assert (questions(sandbox), plan.value["requests"]) == (4, 1_200 + 1 + 4)

    some = attempt(sync(limit=40), run_id="some")
    assert nonzero(some.summary) == {"created": 40, "postponed": 1_160}
    assert questions(sandbox) == 4 + 2

    known = f"{SELECT} WHERE custom_order_number < '{number(40)}'"
    assert nonzero(attempt(sync(sql=known), run_id="known").summary) == {"already_created": 40}
    assert questions(sandbox) == 4 + 2


def test_orders_without_stock_do_not_count_for_the_limit(sandbox: SandboxServer, warehouse: Warehouse):
    sandbox.control.set_stock(TOP, 0)
    warehouse.add(*[line(n, TOP, 1) for n in range(5)], *[line(n, DRESS, 1) for n in range(5, 10)])

    done = attempt(sync(limit=2, max_rejected=5))

    assert (done.error, nonzero(done.summary)) == (None, {"created": 2, "invalid": 5, "postponed": 3})


def test_what_another_worker_sent_meanwhile_is_not_reported_as_invalid(
    sandbox: SandboxServer, warehouse: Warehouse, monkeypatch: pytest.MonkeyPatch
):
    warehouse.add(line(1, TOP, 1))
    look = StockCheck.shortage
    others: list[Any] = []

    def shortage(check: StockCheck, item: Any) -> str:
        if not others:
            # Its last pieces go to this very order, sent by somebody else after the ledger was looked at.
            others.append(attempt(sync(check_stock=False), run_id="other"))
            sandbox.control.set_stock(TOP, 0)
        return look(check, item)

    monkeypatch.setattr(StockCheck, "shortage", shortage)
    done = attempt(sync(), run_id="this")

    assert nonzero(others[0].summary) == {"created": 1}
    assert (done.error, nonzero(done.summary)) == (None, {"already_created": 1})
    assert done.summary["newly_invalid"] == 0


def test_a_plan_reports_missing_stock_and_stores_nothing(sandbox: SandboxServer, warehouse: Warehouse):
    sandbox.control.set_stock(TOP, 0)
    warehouse.add(line(1, TOP, 1), line(2, DRESS, 1))

    plan = attempt(sync(plan_only=True), run_id="plan")

    assert (plan.error, nonzero(plan.value)) == (None, {"invalid": 1, "postponed": 1})
    assert plan.value["rejections"][0]["message"] == f"items[0]: 1 of {TOP} ordered, 0 available"
    assert posts(sandbox) == 0
    assert warehouse.execute("SELECT name FROM sqlite_master") == [("order_line",)]
    # So it is still news to the sync itself.
    assert isinstance(attempt(sync(), run_id="sync").error, AirflowFailException)


@pytest.mark.parametrize("fault", ["status_before_commit", "drop_before_commit", "code_in_envelope", "auth"])
def test_without_kks_stock_nothing_is_sent_and_a_retry_goes_on(
    sandbox: SandboxServer, warehouse: Warehouse, fault: str
):
    warehouse.add(*rows(range(5)))
    sandbox.control.arm(fault, method="GET", path="/product/stocks")

    blind = attempt(sync(), try_number=1)
    assert isinstance(blind.error, AirflowException)
    assert not isinstance(blind.error, AirflowFailException)
    assert "KK's stock cannot be read, and without it nothing is sent" in str(blind.error)
    assert nonzero(blind.summary) == {"not_sent": 5}
    assert posts(sandbox) == 0
    plan = attempt(sync(task_id="plan", plan_only=True))
    assert "No plan, because KK's stock cannot be read" in str(plan.error)

    sandbox.control.disarm()
    retry = attempt(sync(), try_number=2)
    assert (retry.error, nonzero(retry.summary)) == (None, {"created": 5})
    each_is_there_once(sandbox, range(5))


@pytest.mark.parametrize("fault", ["status_before_commit", "code_in_envelope"])
def test_one_failed_stock_query_stops_no_order(sandbox: SandboxServer, warehouse: Warehouse, fault: str):
    warehouse.add(*rows(range(5)))
    sandbox.control.arm(fault, method="GET", path="/product/stocks", times=1)

    assert nonzero(attempt(sync()).summary) == {"created": 5}
    each_is_there_once(sandbox, range(5))


def test_stock_that_runs_out_after_the_check_is_a_rejection(sandbox: SandboxServer, warehouse: Warehouse):
    warehouse.add(line(1, DRESS, 1), line(2, DRESS, 1))
    sandbox.control.arm("code_in_envelope", number=number(1), code=40002, message="sold out")

    done = attempt(sync())

    assert isinstance(done.error, AirflowFailException)
    assert nonzero(done.summary) == {"created": 1, "rejected": 1}
    assert "sold out" in json.dumps(done.summary["rejections"])
