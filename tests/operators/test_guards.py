"""Guards: a run that would buy too much sends nothing, and an order that is too large is invalid."""

from __future__ import annotations

from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pytest
from airflow.providers.common.compat.sdk import DAG, AirflowException, AirflowFailException

from airflow_provider_kk.operators.orders import CreateOrderOperator, SyncOrdersOperator
from tests.operators import shop
from tests.operators.shop import (
    QUICK,
    SKUS,
    Warehouse,
    address,
    attempt,
    each_is_there_once,
    goods,
    nonzero,
    number,
    posts,
    rows,
    sync,
)

if TYPE_CHECKING:
    from airflow_provider_kk.sandbox.server import SandboxServer
    from tests.operators.conftest import Connect, Printed

pytestmark = pytest.mark.usefixtures("connect")

DRESS, TOP, SHIRT = SKUS


def line(n: int, sku: str, quantity: int) -> tuple[Any, ...]:
    return (number(n), *address(n).values(), sku, quantity)


def questions(sandbox: SandboxServer, path: str = "/product/") -> int:
    return sum(path in one["path"] for one in sandbox.control.requests())


def price(sandbox: SandboxServer, sku: str) -> Decimal:
    (cents,) = [one["price"] for one in sandbox.control.catalogue() if one["sku"] == sku]
    return Decimal(cents) / 100


def value(sandbox: SandboxServer, *orders: int) -> Decimal:
    lines = [line for n in orders for line in goods(n).items()]
    return sum((price(sandbox, sku) * quantity for sku, quantity in lines), Decimal(0))


# How many orders ------------------------------------------------------------------------------------


def test_too_many_new_orders_send_nothing_and_the_message_names_the_change(
    sandbox: SandboxServer, warehouse: Warehouse, printed: Printed
):
    warehouse.add(*rows(range(6)))

    done = attempt(sync(max_new_orders=5))

    assert isinstance(done.error, AirflowFailException)
    for part in ("6 orders (S-0000, S-0001, S-0002 and 3 more)", "max_new_orders=5", "set max_new_orders=6"):
        assert part in str(done.error)
    assert "--max-new-orders 6" in str(done.error)
    assert nonzero(done.summary) == {"not_sent": 6}
    assert posts(sandbox) == 0
    assert "To list these orders" not in printed()


def test_raised_guard_lets_the_next_run_send(sandbox: SandboxServer, warehouse: Warehouse):
    warehouse.add(*rows(range(6)))
    attempt(sync(max_new_orders=5), run_id="first")

    assert nonzero(attempt(sync(max_new_orders=6), run_id="second").value) == {"created": 6}
    each_is_there_once(sandbox, range(6))


def test_orders_that_the_ledger_knows_as_created_do_not_count(sandbox: SandboxServer, warehouse: Warehouse):
    warehouse.add(*rows(range(5)))
    attempt(sync(max_new_orders=5), run_id="first")
    warehouse.add(*rows(range(5, 9)))

    done = attempt(sync(max_new_orders=5), run_id="second")

    assert nonzero(done.value) == {"already_created": 5, "created": 4}


def test_only_what_limit_lets_through_counts(sandbox: SandboxServer, warehouse: Warehouse):
    warehouse.add(*rows(range(9)))

    done = attempt(sync(max_new_orders=5, limit=5))

    assert nonzero(done.value) == {"created": 5, "postponed": 4}


def test_retry_of_a_sync_is_not_blocked_by_what_its_first_try_sent(
    sandbox: SandboxServer, warehouse: Warehouse
):
    warehouse.add(*rows(range(5)))
    sandbox.control.arm("auth", times=1, number=number(3))

    first = attempt(sync(max_new_orders=5), try_number=1)
    second = attempt(sync(max_new_orders=5), try_number=2)

    assert isinstance(first.error, AirflowException)
    assert nonzero(first.summary) == {"created": 4, "not_sent": 1}
    assert nonzero(second.value) == {"created": 5}


def test_retries_of_a_sync_together_send_no_more_than_the_guard_allows(
    sandbox: SandboxServer, warehouse: Warehouse
):
    warehouse.add(*rows(range(5)))
    sandbox.control.arm("auth", times=1, number=number(3))
    attempt(sync(max_new_orders=5), try_number=1)
    warehouse.add(*rows(range(5, 7)))

    done = attempt(sync(max_new_orders=5), try_number=2)

    assert isinstance(done.error, AirflowFailException)
    assert "3 orders (S-0003, S-0005, S-0006) would be sent after the 4 that this sync has" in str(done.error)
    assert "set max_new_orders=7" in str(done.error)
    assert nonzero(done.summary) == {"created": 4, "not_sent": 3}
    assert len({one["number"] for one in sandbox.control.orders()}) == 4
    assert nonzero(attempt(sync(max_new_orders=5), run_id="another").value) == {
        "already_created": 4,
        "created": 3,
    }


def test_orders_in_doubt_of_another_sync_count_for_none(
    sandbox: SandboxServer, warehouse: Warehouse, connect: Connect
):
    connect(**{**QUICK, "settle_window_s": 4})
    warehouse.add(*rows(range(3)))
    sandbox.control.arm("drop_after_commit", times=3)
    attempt(sync(max_new_orders=3, deferrable=True), run_id="first")  # leaves them in doubt
    warehouse.add(*rows(range(3, 6)))
    sandbox.control.arm("auth", times=1, number=number(4))

    first = attempt(sync(max_new_orders=3), run_id="second", try_number=1)
    done = attempt(sync(max_new_orders=3), run_id="second", try_number=2)

    assert nonzero(first.summary) == {"adopted": 3, "created": 2, "not_sent": 1}
    assert nonzero(done.value) == {"adopted": 3, "created": 3}
    each_is_there_once(sandbox, range(6))


def test_rejected_orders_that_are_due_again_count(
    sandbox: SandboxServer, warehouse: Warehouse, connect: Connect
):
    connect(**QUICK)
    warehouse.add(*(line(n, DRESS, 1) for n in range(3)))
    sandbox.control.set_stock(DRESS, 0)
    first = attempt(sync(max_rejected=3), run_id="first")
    sandbox.control.set_stock(DRESS, 1_000)
    warehouse.execute("UPDATE order_line SET quantity = 2")

    over = attempt(sync(max_new_orders=2), run_id="second")
    sent = posts(sandbox)
    enough = attempt(sync(max_new_orders=3), run_id="third")

    assert nonzero(first.value) == {"rejected": 3}
    assert isinstance(over.error, AirflowFailException)
    assert "set max_new_orders=3" in str(over.error)
    assert sent == 3
    assert nonzero(enough.value) == {"created": 3}


def test_no_guard_at_all(sandbox: SandboxServer, warehouse: Warehouse):
    warehouse.add(*rows([0]), line(1, DRESS, 2_000))

    done = attempt(sync(max_new_orders=None, max_order_units=None))

    assert nonzero(done.value) == {"created": 2}


# How many units -------------------------------------------------------------------------------------


def test_order_with_too_many_units_is_invalid_until_the_guard_is_raised(
    sandbox: SandboxServer, warehouse: Warehouse, printed: Printed
):
    warehouse.add(*rows([0]), line(1, DRESS, 60), line(1, TOP, 41))

    first = attempt(sync(), run_id="first")
    second = attempt(sync(), run_id="second")
    raised = attempt(sync(max_order_units=101), run_id="third")

    assert isinstance(first.error, AirflowFailException)
    assert nonzero(first.summary) == {"created": 1, "invalid": 1}
    assert nonzero(second.value) == {"already_created": 1, "invalid": 1}  # no news
    (rejection,) = first.summary["rejections"]
    for part in ("items: 101 units", "max_order_units=100", "set max_order_units=101"):
        assert part in rejection["message"]
    assert "S-0001 is invalid: items: 101 units ordered" in printed()
    assert nonzero(raised.value) == {"already_created": 1, "created": 1}


def test_order_that_was_created_before_is_not_made_invalid(sandbox: SandboxServer, warehouse: Warehouse):
    warehouse.add(line(1, DRESS, 50))
    attempt(sync(), run_id="first")

    assert nonzero(attempt(sync(max_order_units=10), run_id="second").value) == {"already_created": 1}


# What it costs --------------------------------------------------------------------------------------


def test_guards_ask_for_no_price_unless_a_value_is_set(sandbox: SandboxServer, warehouse: Warehouse):
    warehouse.add(*rows(range(4)))

    guarded = attempt(sync(), run_id="guarded")

    assert questions(sandbox) == 0
    assert guarded.value["requests"] == len(sandbox.control.requests())


def test_order_that_costs_too_much_is_invalid(sandbox: SandboxServer, warehouse: Warehouse):
    warehouse.add(*rows(range(4)))
    dearest = max(range(4), key=lambda n: value(sandbox, n))
    cost = value(sandbox, dearest)
    limit = cost - Decimal("0.01")

    first = attempt(sync(max_order_value=limit), run_id="first")
    raised = attempt(sync(max_order_value=str(cost)), run_id="second")

    assert nonzero(first.summary) == {"created": 3, "invalid": 1}
    (rejection,) = first.summary["rejections"]
    assert rejection["custom_order_number"] == number(dearest)
    assert f"more than max_order_value={limit}" in rejection["message"]
    assert f'max_order_value="{cost:.2f}"' in rejection["message"]
    assert nonzero(raised.value) == {"already_created": 3, "created": 1}


def test_run_that_costs_too_much_sends_nothing(sandbox: SandboxServer, warehouse: Warehouse):
    warehouse.add(*rows(range(4)))
    total = value(sandbox, *range(4))

    over = attempt(sync(max_run_value=total - Decimal("0.01")), run_id="over")
    sent = posts(sandbox)
    exact = attempt(sync(max_run_value=total), run_id="exact")

    assert isinstance(over.error, AirflowFailException)
    assert f"cost {total:,.2f} USD" in str(over.error)
    assert f'set max_run_value="{total:.2f}"' in str(over.error)
    assert nonzero(over.summary) == {"not_sent": 4}
    assert sent == 0
    assert nonzero(exact.value) == {"created": 4}


def test_retries_of_a_sync_together_cost_no_more_than_the_guard_allows(
    sandbox: SandboxServer, warehouse: Warehouse
):
    warehouse.add(*rows(range(3)))
    total = value(sandbox, *range(3))
    sandbox.control.arm("auth", times=1, number=number(2))
    first = attempt(sync(max_run_value=total), try_number=1)
    warehouse.add(*rows([3]))

    more = attempt(sync(max_run_value=total), try_number=2)
    enough = attempt(sync(max_run_value=total + value(sandbox, 3)), try_number=3)

    assert nonzero(first.summary) == {"created": 2, "not_sent": 1}
    assert isinstance(more.error, AirflowFailException)
    assert f"{value(sandbox, 0, 1):,.2f} USD of them sent before by this sync" in str(more.error)
    assert nonzero(more.summary) == {"created": 2, "not_sent": 2}
    assert nonzero(enough.value) == {"created": 4}


@pytest.mark.parametrize("listed", [{"price": "N/A"}, {"price": None}], ids=["unreadable", "absent"])
@pytest.mark.parametrize("guard", ["max_order_value", "max_run_value"])
def test_sku_without_a_price_is_a_fault_of_its_order(
    sandbox: SandboxServer, warehouse: Warehouse, listed: dict[str, Any], guard: str
):
    warehouse.add(*rows([0, 3]), line(1, DRESS, 1), line(1, TOP, 1))
    sandbox.control.set_sku_details(TOP, **listed)

    first = attempt(sync(**{guard: 100_000}), run_id="first")

    assert nonzero(first.summary) == {"created": 2, "invalid": 1}
    assert f"items[1].sku: KK has no price for {TOP}" in first.summary["rejections"][0]["message"]
    assert nonzero(attempt(sync(), run_id="second").value) == {"already_created": 2, "created": 1}


def test_each_price_is_asked_for_once_30_skus_a_request(sandbox: SandboxServer, warehouse: Warehouse):
    skus = [one["sku"] for one in sandbox.control.catalogue() if one["stock"]][:40]
    warehouse.add(*(line(n, sku, 1) for n, sku in enumerate([*skus, *skus])))

    done = attempt(sync(max_order_value=100_000, max_run_value=100_000))

    assert nonzero(done.value) == {"created": 80}
    assert questions(sandbox) == 2
    assert done.value["requests"] == len(sandbox.control.requests())


def test_unreadable_prices_send_nothing_and_a_retry_helps(sandbox: SandboxServer, warehouse: Warehouse):
    warehouse.add(*rows(range(3)))
    arm = sandbox.control.arm("status_before_commit", method="GET", path="/product/products")

    first = attempt(sync(max_order_value=100_000), try_number=1)
    sandbox.control.disarm(arm)
    second = attempt(sync(max_order_value=100_000), try_number=2)

    assert isinstance(first.error, AirflowException)
    assert not isinstance(first.error, AirflowFailException)
    assert "KK's prices or stock cannot be read" in str(first.error)
    assert nonzero(first.summary) == {"not_sent": 3}
    assert nonzero(second.value) == {"created": 3}


def test_only_orders_that_stock_and_limit_let_through_cost_something(
    sandbox: SandboxServer, warehouse: Warehouse
):
    warehouse.add(line(1, DRESS, 1), line(2, TOP, 1), line(3, TOP, 1))
    sandbox.control.set_stock(DRESS, 0)

    over = attempt(
        sync(check_stock=True, limit=1, max_run_value=price(sandbox, TOP) - Decimal("0.01")), run_id="over"
    )
    enough = attempt(
        sync(check_stock=True, limit=1, max_run_value=price(sandbox, TOP), max_rejected=1), run_id="enough"
    )

    assert isinstance(over.error, AirflowFailException)
    assert "1 order" in str(over.error)
    assert nonzero(enough.value) == {"created": 1, "invalid": 1, "postponed": 1}


# One order ------------------------------------------------------------------------------------------


def create(**arguments: Any) -> CreateOrderOperator:
    return CreateOrderOperator(task_id="create", ledger_conn_id="warehouse", **arguments)


def test_create_order_with_too_many_units_fails_before_it_is_sent(
    sandbox: SandboxServer, warehouse: Warehouse
):
    order = shop.order(1, items=[{"sku": DRESS, "quantity": 101}])

    first = attempt(create(order=order))
    raised = attempt(create(order=order, max_order_units=101), try_number=2)

    assert isinstance(first.error, AirflowFailException)
    assert "items: 101 units ordered, more than max_order_units=100 allows" in str(first.error)
    assert raised.error is None
    assert posts(sandbox) == 1


def test_create_order_that_costs_too_much_fails_before_it_is_sent(
    sandbox: SandboxServer, warehouse: Warehouse
):
    done = attempt(create(order=shop.order(1), max_order_value="0.01"))

    assert isinstance(done.error, AirflowFailException)
    assert f"the goods cost {value(sandbox, 1):,.2f} USD" in str(done.error)
    assert posts(sandbox) == 0


# Plans ----------------------------------------------------------------------------------------------


def test_plan_reports_what_each_guard_would_do(
    sandbox: SandboxServer, warehouse: Warehouse, printed: Printed
):
    warehouse.add(*rows(range(3)), line(7, DRESS, 101))

    done = attempt(sync(plan_only=True, max_run_value=10_000))

    assert done.error is None
    assert nonzero(done.value) == {"postponed": 3, "invalid": 1}
    total = f"{value(sandbox, *range(3)):,.2f}"
    assert (
        "Guards: max_new_orders=1000: 3 would be sent; max_order_units=100: 1 invalid; "
        f"max_order_value is off; max_run_value=10000: {total} USD would be spent"
    ) in printed()
    assert posts(sandbox) == 0


def test_plan_of_too_many_orders_sends_none(sandbox: SandboxServer, warehouse: Warehouse, printed: Printed):
    warehouse.add(*rows(range(6)))

    done = attempt(sync(plan_only=True, max_new_orders=5))

    assert nonzero(done.value) == {"not_sent": 6}
    assert "A sync would send nothing now: 6 orders" in printed()
    assert "set max_new_orders=6" in printed()


# Arguments ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("limit", [0, -1, True, 1.5, "10", float("nan")])
@pytest.mark.parametrize("name", ["max_new_orders", "max_order_units"])
def test_guard_that_is_no_count_is_an_error_of_the_dag(name: str, limit: Any):
    with pytest.raises(ValueError, match=f"{name} must be a whole number from 1, or None"):
        sync(**{name: limit})


@pytest.mark.parametrize("limit", [0, -1, True, "abc", "", float("nan"), "NaN", "inf", Decimal("-0.01"), []])
@pytest.mark.parametrize("name", ["max_order_value", "max_run_value"])
def test_guard_that_is_no_amount_is_an_error_of_the_dag(name: str, limit: Any):
    with pytest.raises(ValueError, match=f"{name} must be an amount in US dollars above 0"):
        sync(**{name: limit})


@pytest.mark.parametrize("limit", [100, 99.9, "99.90", Decimal("99.9"), " 1e2 "])
def test_amounts_are_decimals(limit: Any):
    assert sync(max_run_value=limit).guards.max_run_value in (Decimal(100), Decimal("99.9"))


def test_guards_of_a_mapped_task_are_checked_when_the_dag_is_parsed():
    with DAG("mapped", schedule=None):
        with pytest.raises(ValueError, match="max_order_units"):
            CreateOrderOperator.partial(task_id="bad", max_order_units=0)
        with pytest.raises(ValueError, match="max_new_orders"):
            SyncOrdersOperator.partial(task_id="bad", max_new_orders=0)
        create = CreateOrderOperator.partial(task_id="create", max_order_units=7, max_order_value="9.50")
        create.expand(order=[shop.order(1)])
