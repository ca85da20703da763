"""What is asked of KK's stock, and who is served with it."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_kk.api.errors import KKAnswerError, KKAuthError, KKError, KKRejectedError
from airflow_provider_kk.api.models import Stock
from airflow_provider_kk.delivery.model import Content
from airflow_provider_kk.delivery.run_queue import QueuedOrder
from airflow_provider_kk.sync.stock import StockCheck
from tests.delivery.world import World, counts

A, B, C = "SHIRT_M", "SHIRT_L", "HAT"
REFUSED = KKRejectedError("KK refused", code=40001, kk_message="sku does not exist")


def item(position: int, *lines: tuple[str, int]) -> QueuedOrder:
    payload = json.dumps({"items": [{"sku": sku, "quantity": quantity} for sku, quantity in lines]})
    return QueuedOrder(position, f"S-{position}", Content("1:x"), payload)


class FakeStock:
    """Tells the stock of SKUs, rows as KK has them; at most `page_cap` rows at once."""

    def __init__(self, stock: Mapping[str, Any], page_cap: int = 30) -> None:
        self.stock = {sku: [{"qty": has}] if isinstance(has, int) else has for sku, has in stock.items()}
        self.page_cap = page_cap
        self.questions: list[list[str]] = []
        self.errors: list[KKError] = []
        self.refuses: set[str] = set()

    def iter_stock(self, skus: Iterable[str]) -> Iterator[Stock]:
        asked = list(skus)
        self.questions.append(asked)
        if self.errors:
            raise self.errors.pop(0)
        if self.refuses & set(asked):
            raise REFUSED
        rows = [{"sku": sku, "warehouseStockList": self.stock[sku]} for sku in asked if sku in self.stock]
        yield from map(Stock.read, rows[: self.page_cap])


def shortages(kk: FakeStock, items: Sequence[QueuedOrder]) -> list[str]:
    """What is missing of each order, asked as a stream asks."""
    client: Any = kk
    with closing(StockCheck(client)) as check:
        check.expect(items)
        return [check.shortage(one) for one in items]


def test_every_missing_sku_is_named_with_its_position_and_counts():
    kk = FakeStock({A: 1, B: 9, C: 0})

    (told,) = shortages(kk, [item(1, (A, 3), (B, 9), (C, 1), (A, 1), ("NO_SUCH", 2))])

    assert told == (
        "items[0], items[3]: 4 of SHIRT_M ordered, 1 available; "
        "items[2]: 1 of HAT ordered, 0 available; "
        "items[4]: 2 of NO_SUCH ordered, KK does not list this SKU"
    )


def test_what_earlier_orders_take_is_not_there_for_later_ones():
    kk = FakeStock({A: 5, B: 1})
    orders = [item(1, (A, 3)), item(2, (A, 1), (B, 2)), item(3, (A, 3)), item(4, (A, 2))]

    told = shortages(kk, orders)

    # The second cannot be served and takes nothing, so the fourth can.
    assert told == [
        "",
        "items[1]: 2 of SHIRT_L ordered, 1 available",
        "items[0]: 3 of SHIRT_M ordered, 2 available of 5 at KK, "
        "since earlier orders of this run need the others",
        "",
    ]


def test_a_duplicate_order_number_takes_its_goods_once():
    client: Any = FakeStock({A: 3})
    with closing(StockCheck(client)) as check:
        assert [check.shortage(item(1, (A, 2))) for _ in range(3)] == ["", "", ""]
        assert check.shortage(item(2, (A, 1))) == ""
    assert client.questions == [[A]]


def test_all_warehouses_count():
    places = [{"warehouseCode": "C1", "qty": 2}, {"warehouseCode": "U1", "qty": "3"}, {"qty": -4}]
    kk = FakeStock({A: places})

    assert shortages(kk, [item(1, (A, 5))]) == [""]
    assert shortages(kk, [item(1, (A, 6))]) == ["items[0]: 6 of SHIRT_M ordered, 5 available"]


@pytest.mark.parametrize("places", ["many", [{"qty": "many"}], [{}], [{"qty": 1}, {"qty": None}], [7]])
def test_an_order_is_not_sent_while_its_stock_cannot_be_read(places: Any):
    kk = FakeStock({A: places, B: 1})
    told = shortages(kk, [item(1, (A, 2)), item(2, (B, 1))])
    assert told == ["items[0]: 2 of SHIRT_M ordered, KK's stock of it cannot be parsed", ""]


def test_what_can_be_read_serves_an_order_for_which_it_is_enough():
    kk = FakeStock({A: [{"qty": 2}, {"qty": "many"}]})
    assert shortages(kk, [item(1, (A, 2))]) == [""]


@pytest.mark.parametrize("places", [[], None])
def test_a_listed_sku_that_lies_in_no_warehouse_is_sold_out(places: Any):
    assert shortages(FakeStock({A: places}), [item(1, (A, 1))]) == [
        "items[0]: 1 of SHIRT_M ordered, 0 available"
    ]


def test_a_sku_with_a_comma_is_never_taken_for_two():
    kk = FakeStock({A: 1, B: 1})
    told = shortages(kk, [item(1, (f"{A},{B}", 1)), item(2, (A, 1))])
    assert told == ["items[0]: 1 of SHIRT_M,SHIRT_L ordered, KK does not list this SKU", ""]
    assert kk.questions == [[A]]


def test_a_rejection_for_one_sku_delays_no_order_of_others():
    kk = FakeStock({A: 1, B: 1})
    kk.refuses = {"NO_SUCH"}

    told = shortages(kk, [item(1, ("NO_SUCH", 1)), item(2, (A, 1)), item(3, (B, 1))])

    assert told == [
        "items[0]: 1 of NO_SUCH ordered, KK rejects the request for its stock: sku does not exist", "", ""
    ]  # fmt: skip
    assert kk.questions == [["NO_SUCH", A, B], ["NO_SUCH"], [A], [B]]


def test_a_kk_that_rejects_every_query_makes_no_order_invalid():
    kk = FakeStock({A: 1, B: 1})
    kk.refuses = {A, B}
    with pytest.raises(KKRejectedError):
        shortages(kk, [item(1, (A, 1)), item(2, (B, 1))])


def test_a_failed_stock_query_is_retried_once():
    kk = FakeStock({A: 1})
    kk.errors = [KKAnswerError("502")]
    assert shortages(kk, [item(1, (A, 1))]) == [""]

    kk.errors = [KKAnswerError("502"), KKAnswerError("502")]
    with pytest.raises(KKAnswerError):
        shortages(kk, [item(1, (A, 1))])
    kk.errors = [KKAuthError("401")]
    with pytest.raises(KKAuthError):
        shortages(kk, [item(1, (A, 1))])


SKUS = [f"SKU_{number:03d}" for number in range(100)]
ORDERS = st.lists(
    st.lists(st.tuples(st.sampled_from(SKUS), st.integers(1, 4)), min_size=1, max_size=5), max_size=60
)


@given(
    orders=ORDERS,
    stock=st.dictionaries(st.sampled_from(SKUS), st.integers(0, 9)),
    page_cap=st.sampled_from([1, 7, 30]),
)
def test_orders_are_served_in_turn_with_what_is_left_by_full_questions(
    orders: list[list[tuple[str, int]]], stock: dict[str, int], page_cap: int
):
    kk = FakeStock(stock, page_cap)

    told = shortages(kk, [item(place, *lines) for place, lines in enumerate(orders)])

    left = Counter(stock)
    for lines, shortage in zip(orders, told, strict=True):
        wanted = Counter[str]()
        for sku, quantity in lines:
            wanted[sku] += quantity
        missing = {sku for sku, quantity in wanted.items() if quantity > left[sku]}
        assert {sku for sku in wanted if f" {sku} " in shortage} == missing
        if not missing:
            left -= wanted
    assert all(len(question) <= 30 for question in kk.questions)
    if page_cap == 30:
        asked = {sku for lines in orders for sku, _ in lines}
        # What an answer does not name is asked for again, once for each question.
        first_questions = math.ceil(len(asked) / 30)
        assert len(kk.questions) <= first_questions * (2 if asked - set(stock) else 1)


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    found = World.in_folder(tmp_path)
    yield found
    found.ledger.close()


class Shelves:
    """A check that says of some orders what is missing, and notes which it was asked for."""

    def __init__(self, **missing: str) -> None:
        self.missing = missing
        self.asked: list[str] = []

    def expect(self, items: Iterable[QueuedOrder]) -> None:
        self.coming = [one.key for one in items]

    def shortage(self, item: QueuedOrder) -> str:
        self.asked.append(item.key or "")
        return self.missing.get(item.key or "", "")

    def close(self) -> None:
        return


def test_an_order_in_doubt_is_resent_by_the_list_alone(world: World):
    world.sync("known")
    world.kk.meets("S-1", "lost_request")
    shelves = Shelves()

    def sell_out(key: str) -> None:
        shelves.missing[key] = "all gone"

    world.kk.on_post = sell_out
    assert counts(world.sync("S-1", stock=shelves)) == {"created": 1}
    assert (shelves.asked, world.kk.count("S-1")) == (["S-1"], 1)


def test_a_rejected_order_is_retried_without_a_stock_check(world: World):
    world.kk.meets("S-1", "refused")
    shelves = Shelves()
    assert counts(world.sync("S-1", stock=shelves)) == {"rejected": 1}
    world.clock.sleep(86_400)

    shelves.missing["S-1"] = "all gone"
    assert counts(world.sync("S-1", stock=shelves)) == {"created": 1}
    assert shelves.asked == ["S-1"]


def test_created_held_and_rejected_orders_need_no_stock_query(world: World):
    world.kk.meets("refused", "refused")
    world.kk.meets("lost", "lost_request")
    world.sync("created", "refused", "lost", waits=False)
    shelves = Shelves()

    world.sync("created", "refused", "lost", "new", "short", stock=shelves, waits=False)

    assert shelves.coming == shelves.asked == ["new", "short"]


def test_missing_goods_are_reported_once_for_an_order(world: World):
    shelves = Shelves(short="3 wanted, 1 available")
    assert counts(world.sync("short", stock=shelves)) == {"invalid": 1}
    assert world.news == {"short"}

    shelves.missing["short"] = "3 wanted, 0 available"
    assert counts(world.sync("short", stock=shelves)) == {"invalid": 1}
    assert (world.news, world.messages) == (set(), {"short": "3 wanted, 0 available"})
    assert world.kk.posts == []

    del shelves.missing["short"]
    assert counts(world.sync("short", stock=shelves)) == {"created": 1}


def test_an_order_that_was_not_sent_is_checked_anew_by_the_next_run(world: World):
    world.kk.meets("S-1", "never_left")
    assert counts(world.sync("S-1", stock=Shelves())) == {"not_sent": 1}

    shelves = Shelves()
    shelves.missing["S-1"] = "all gone"
    assert counts(world.sync("S-1", stock=shelves)) == {"invalid": 1}
    assert counts(world.sync("S-1", stock=Shelves())) == {"created": 1}
    assert world.kk.count("S-1") == 1
