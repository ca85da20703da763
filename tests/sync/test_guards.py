"""The guards' arithmetic: whatever they let through is within each limit, and counted exactly."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from decimal import Decimal
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_kk.api.errors import Fault, KKRejectedError
from airflow_provider_kk.api.models import Order
from airflow_provider_kk.delivery.run_queue import QueuedOrder, RunQueue, RunStatus
from airflow_provider_kk.sync.deliver import item_of
from airflow_provider_kk.sync.guards import GuardCheck, GuardReport, Guards, Prices

ADDRESS = {"country": "FR", "phone": "1", "recipient": "R", "province": "P"}
Goods = dict[str, int]


class Shop:
    """Answers questions for prices, at most 30 SKUs each; rejects those about an unknown SKU."""

    def __init__(self, prices: dict[str, Decimal | None], unknown: Sequence[str] = ()) -> None:
        self.prices = prices
        self.unknown = set(unknown)
        self.questions: list[list[str]] = []

    def iter_products(self, skus: Sequence[str]) -> Iterator[Any]:
        self.questions.append(list(skus))
        assert len(skus) <= 30
        if self.unknown & set(skus):
            raise KKRejectedError("unknown SKU", code=40_004)
        for sku in skus:
            yield SimpleNamespace(skus=[SimpleNamespace(sku=sku.lower(), price=self.prices.get(sku))])


def check(
    orders: Sequence[Goods], guards: Guards, shop: Shop, limit: int | None = None
) -> tuple[GuardReport, list[int]]:
    """The report, and the positions of the orders that are not invalid."""
    run_queue = RunQueue()
    for n, goods in enumerate(orders):
        items = [{"sku": sku, "quantity": quantity} for sku, quantity in goods.items()]
        order = Order.parse({"custom_order_number": f"A-{n}", "address": ADDRESS, "items": items})
        run_queue.add([item_of(n, order)])

    def mark(item: QueuedOrder, fault: Fault) -> None:
        run_queue.set(item.position, RunStatus.INVALID, message=str(fault))

    client: Any = shop
    report = GuardCheck(guards, run_queue, None, mark, client, max_sent=limit).run()
    return report, [item.position for batch in run_queue.batches(RunStatus.PENDING) for item in batch]


SKUS = ["A", "B", "C", "D"]
GOODS = st.dictionaries(st.sampled_from(SKUS), st.integers(1, 60), min_size=1)
MONEY = st.decimals(0, 500, places=2)
GUARDS = st.builds(
    Guards,
    st.none() | st.integers(1, 8),
    st.none() | st.integers(1, 120),
    st.none() | st.decimals(1, 20_000, places=2),
    st.none() | st.decimals(1, 60_000, places=2),
)


@given(
    st.lists(GOODS, max_size=12),
    st.dictionaries(st.sampled_from(SKUS), MONEY),
    GUARDS,
    st.none() | st.integers(0, 12),
)
def test_what_guards_let_through_is_within_each_limit(
    orders: list[Goods], prices: dict[str, Decimal], guards: Guards, limit: int | None
) -> None:
    report, valid = check(orders, guards, Shop(dict(prices)), limit)

    if report.exceeded:
        return
    sent = [orders[n] for n in valid[:limit]]
    assert guards.max_new_orders is None or len(sent) <= guards.max_new_orders
    assert all(sum(goods.values()) <= (guards.max_order_units or 10**9) for goods in sent)
    if guards.need_prices:
        values = [sum(prices[sku] * number for sku, number in goods.items()) for goods in sent]
        assert all(value <= (guards.max_order_value or 10**9) for value in values)
        assert sum(values) <= (guards.max_run_value or 10**9)
        if sent:
            assert (report.new_orders, report.value) == (len(sent), sum(values))


def test_prices_are_exact() -> None:
    report, _valid = check(
        [{"A": 3}] * 100, Guards(max_run_value=Decimal("30.00")), Shop({"A": Decimal("0.10")})
    )

    assert (report.value, report.exceeded) == (Decimal("30.00"), "")


def test_sku_that_kk_rejects_hides_no_other_price() -> None:
    shop = Shop(dict.fromkeys("AB", Decimal(1)), unknown=["NO"])

    report, valid = check([{"A": 1}, {"NO": 1}, {"B": 1}], Guards(max_run_value=Decimal(2)), shop)

    assert (report.exceeded, report.value, report.unpriced, valid) == ("", Decimal(2), 1, [0, 2])


def test_rejection_of_every_question_is_no_fault_of_the_orders() -> None:
    with pytest.raises(KKRejectedError):
        check([{"A": 1}, {"B": 1}], Guards(max_run_value=Decimal(2)), Shop({}, unknown=["A", "B"]))


def test_each_sku_is_asked_for_once() -> None:
    shop = Shop({f"S{n}": Decimal(1) for n in range(70)})
    prices = Prices()
    client: Any = shop

    prices.fetch(client, [f"s{n}" for n in range(70)])
    prices.fetch(client, [f"S{n}" for n in range(70)])
    prices.fetch(client, ["A,B"])  # would be two SKUs in a question

    assert [len(question) for question in shop.questions] == [30, 30, 10]
    assert prices.of("A,B") is None


def test_only_orders_within_the_limit_are_priced() -> None:
    shop = Shop({f"S{n}": Decimal(1) for n in range(70)})

    report, _valid = check([{f"S{n}": 1} for n in range(70)], Guards(max_run_value=Decimal(9)), shop, limit=5)

    assert (report.new_orders, report.value, len(shop.questions)) == (5, Decimal(5), 1)
    assert len(shop.questions[0]) == 5
