"""Reading what has changed at KK: nothing is missed while rows move, and no more is asked than needed."""

from __future__ import annotations

import random
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import cache
from math import ceil
from typing import Any

import pytest

from airflow_provider_kk.api.models import KKOrder, OrderPage
from airflow_provider_kk.delivery.model import InconclusiveError
from airflow_provider_kk.sync.sync_statuses import LAG_S, UpdatedOrders
from tests.delivery.world import START, VirtualClock

SINCE = START - 7200


@cache
def order(kk_id: int) -> KKOrder:
    return KKOrder.model_construct(id=str(kk_id), odd_fields=[])


class ListOfChanges:
    """KK's list, as ids with the time of their last change; `between` runs before each page."""

    def __init__(self, changed_at: dict[int, float], *, sort: str = "created", cap: int = 250) -> None:
        self.changed_at = changed_at
        self.sort = sort
        self.cap = cap
        self.is_total_missing = False
        self.repeat_every = 0
        self.between: Callable[[], Any] = lambda: None
        self.clock_skew_s: float | None = None
        self.requests = 0

    def list_orders(self, *, updated_from: datetime, updated_to: datetime, page_number: int) -> OrderPage:
        self.between()
        self.requests += 1
        window = updated_from.timestamp(), updated_to.timestamp()
        rows = [kk_id for kk_id, at in self.changed_at.items() if window[0] <= at <= window[1]]
        rows.sort(
            key=(lambda kk_id: -self.changed_at[kk_id]) if self.sort == "updated" else lambda kk_id: -kk_id
        )
        page = rows[(page_number - 1) * self.cap : page_number * self.cap]
        if self.repeat_every:
            page = [one for n, one in enumerate(page) for _ in range(1 + (n % self.repeat_every == 0))]
        total = None if self.is_total_missing else len(rows)
        return OrderPage.model_construct(orders=[order(kk_id) for kk_id in page], total=total)

    def move(self, rng: random.Random, count: int) -> None:
        """Let some orders change now: they leave every period that has ended."""
        for kk_id in rng.sample(sorted(self.changed_at), min(count, len(self.changed_at))):
            self.changed_at[kk_id] = START


def changes(rng: random.Random, count: int) -> dict[int, float]:
    return {kk_id: rng.uniform(SINCE, START - LAG_S - 2) for kk_id in range(1, count + 1)}


def read(kk: ListOfChanges) -> set[int]:
    found = UpdatedOrders(kk, VirtualClock()).read(SINCE)  # type: ignore[arg-type]
    return {int(order.id) for slice_ in found for order in slice_.orders}


def budget(changed: int) -> float:
    return 1.2 * (ceil(changed / 250) + 1)


@pytest.mark.parametrize("sort", ["created", "updated"])
@pytest.mark.parametrize("count", [0, 1, 250, 251, 4_000])
def test_a_quiet_list_is_read_with_a_request_for_each_page(sort: str, count: int):
    kk = ListOfChanges(changes(random.Random(1), count), sort=sort)

    assert len(read(kk)) == count
    assert kk.requests == max(1, ceil(count / 250))


@pytest.mark.parametrize("sort", ["created", "updated"])
@pytest.mark.parametrize("moves", [1, 3, 40])
def test_no_order_that_stays_is_missed_while_others_leave_the_list(sort: str, moves: int):
    for seed in range(20):
        rng = random.Random(seed)
        count = rng.randint(1, 3_000)
        kk = ListOfChanges(changes(rng, count), sort=sort)
        kk.between = lambda kk=kk, rng=rng: kk.move(rng, moves)

        found = read(kk)

        stayed = {kk_id for kk_id, at in kk.changed_at.items() if at < START}
        assert stayed <= found
        assert kk.requests <= budget(count)


def test_rows_listed_twice_cost_no_row_and_hardly_a_request():
    kk = ListOfChanges(changes(random.Random(2), 3_000))
    kk.repeat_every = 7

    assert len(read(kk)) == 3_000
    assert kk.requests <= budget(3_000)


def test_orders_that_turn_up_late_make_the_period_narrower():
    rng = random.Random(3)
    kk = ListOfChanges(changes(rng, 1_500))
    late = iter(range(10_000, 10_006))

    def turn_up() -> None:
        kk_id = next(late, None)
        if kk_id is not None:
            kk.changed_at[kk_id] = rng.uniform(SINCE, START - LAG_S - 2)

    kk.between = turn_up
    known = set(kk.changed_at)
    found = read(kk)

    assert known <= found
    assert kk.requests > ceil(1_500 / 250)


def test_without_a_total_each_page_is_read_forth_and_back():
    rng = random.Random(4)
    kk = ListOfChanges(changes(rng, 1_000))
    kk.is_total_missing = True
    assert len(read(kk)) == 1_000
    assert kk.requests == 2 * 4 + 1

    kk.between = lambda: kk.move(rng, 5)
    found = read(kk)
    assert {kk_id for kk_id, at in kk.changed_at.items() if at < START} <= found


def test_smaller_pages_than_asked_for_are_no_end():
    kk = ListOfChanges(changes(random.Random(5), 730), cap=100)
    assert len(read(kk)) == 730
    assert kk.requests == 8


def test_very_many_orders_are_read_in_slices_each_complete_up_to_its_end(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("airflow_provider_kk.sync.sync_statuses._MAX_ROWS_AT_ONCE", 2_000)
    kk = ListOfChanges(changes(random.Random(6), 7_000))
    slices = list(UpdatedOrders(kk, VirtualClock()).read(SINCE))  # type: ignore[arg-type]

    assert [one.until for one in slices] == sorted(one.until for one in slices)
    assert slices[-1].until == START - LAG_S
    assert all(len(one.orders) <= 2_000 for one in slices)
    assert len({order.id for one in slices for order in one.orders}) == 7_000
    assert kk.requests <= 7 + 8 * 8


def test_the_period_ends_ten_minutes_ago_by_the_clock_that_is_behind():
    kk = ListOfChanges({1: START - LAG_S - 1, 2: START - LAG_S - 3000, 3: START - LAG_S - 4000})
    kk.clock_skew_s = -3600

    slices = list(UpdatedOrders(kk, VirtualClock()).read(SINCE))  # type: ignore[arg-type]
    assert [(one.until, [order.id for order in one.orders]) for one in slices] == [
        (START - LAG_S - 3600, ["3"])
    ]

    kk.clock_skew_s = 3600
    assert read(kk) == {1, 2, 3}


def test_a_period_that_has_not_begun_is_not_requested():
    kk = ListOfChanges({})
    assert list(UpdatedOrders(kk, VirtualClock()).read(START - LAG_S)) == []  # type: ignore[arg-type]
    assert kk.requests == 0


@pytest.mark.parametrize("total", [7, None])
def test_a_list_that_never_adds_up_decides_nothing_and_ends(total: int | None):
    class SamePage(ListOfChanges):
        def list_orders(self, **_: Any) -> OrderPage:
            self.requests += 1
            return OrderPage.read({"list": [{"id": 1}, {"id": 2}], "total": total})

    kk = SamePage({})
    if total is None:
        assert read(kk) == {1, 2}
    else:
        with pytest.raises(InconclusiveError):
            read(kk)
    assert kk.requests < 100


def test_an_order_without_a_readable_id_counts_as_a_row():
    class Unnamed(ListOfChanges):
        def list_orders(self, **_: Any) -> OrderPage:
            return OrderPage.read({"list": [{"id": 1}, {"status": "shipped"}], "total": 2})

    (only,) = UpdatedOrders(Unnamed({}), VirtualClock()).read(START - 3600)  # type: ignore[arg-type]
    assert [order.id for order in only.orders] == ["1", ""]


def test_the_bounds_overlap_by_a_second_since_kk_documents_no_inclusion():
    kk = ListOfChanges({})
    seen: list[Any] = []
    kk.list_orders = lambda **given: seen.append(given) or OrderPage.read({"list": []})  # type: ignore[method-assign]
    read(kk)
    assert seen[0]["updated_from"] == datetime.fromtimestamp(SINCE, UTC) - timedelta(seconds=1)
