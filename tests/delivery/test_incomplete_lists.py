"""KK's list of another store, of other numbers, half or late: what it does not prove decides nothing."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import datetime
from typing import Any

import pytest

from airflow_provider_kk.api.models import KKOrder, OrderPage
from airflow_provider_kk.delivery.listing import KKOrderList
from airflow_provider_kk.delivery.model import AttemptResult, InconclusiveError, ListedOrder
from airflow_provider_kk.delivery.resolution import order_again
from airflow_provider_kk.delivery.states import Event, State
from tests.delivery.world import ORIGIN, Order, World, counts, list_integers, stream_over


def test_a_rejected_order_is_not_retried_by_another_stores_list(world: World) -> None:
    world.kk.meets("A", "refused")
    world.sync("A")
    world.clock.sleep(3600)
    world.ledger.storage.set_recovered_until(world.clock.now)
    world.kk.orders = []
    stream, _run_queue, _, _ = stream_over(world, Order("A"))
    stream.recover_max_age_s = 3600.0
    stream.run()
    stream.reconcile_waiting()
    stream.close()
    assert world.kk.posts.count("A") == 1


def test_an_id_that_kk_has_given_and_does_not_list_is_a_conflict(world: World) -> None:
    job = world.job(Order("A"))
    first = world.ledger.claim(job, None, origin=ORIGIN, sync_id="s")
    world.clock.sleep(800)
    second = world.ledger.claim(job, world.entry("A"), origin=ORIGIN, sync_id="s")
    assert first is not None
    assert second is not None
    world.kk.add(Order("A"))
    world.ledger.record(second, AttemptResult(Event.UNKNOWN))
    world.ledger.record(first, AttemptResult(Event.CREATED, ("9999",)))
    world.clock.sleep(800)
    assert counts(world.sync("A")) == {"held": 1}


def test_a_later_manual_order_does_not_block_a_rejected_one_for_ever(world: World) -> None:
    world.kk.meets("A", "refused")
    world.sync("A")
    world.clock.sleep(7200)
    world.kk.add(Order("by hand"), key=None)
    world.clock.sleep(90_000)
    assert counts(world.sync("A")) == {"created": 1}


def test_another_stores_list_has_no_sentinel_though_recover_adopted_it(world: World) -> None:
    world.kk.meets("A", "lost_answer")
    world.sync("A", waits=False)
    world.clock.sleep(800)
    world.kk.orders = []
    world.kk.add(Order("theirs"), at=world.clock.now - 100)
    world.sync("A")
    assert world.kk.count("A") == 1


def test_a_list_with_kks_own_numbers_has_no_sentinel(world: World) -> None:
    listed = world.kk.find

    def find(since: float, until: float) -> Iterator[list[ListedOrder]]:
        for part in listed(since, until):
            yield [replace(one, key=f"KK{one.id}") for one in part]

    world.kk.find = find  # type: ignore[method-assign]
    world.kk.meets("A", "lost_answer")
    world.sync("A")
    assert world.kk.count("A") == 1


def test_recover_matches_a_number_that_kk_turned_into_an_integer(world: World) -> None:
    world.kk.orders.append(ListedOrder("77", "123", True, {"SHIRT_M": 1}, "FR", created_at=world.clock.now))
    assert counts(world.sync("00123")) == {"already_created": 1}
    assert "00123" not in world.kk.posts
    assert world.entry("00123").kk_order_ids == ("77",)


def test_an_order_with_zeros_before_it_does_not_stand_for_one_without(world: World) -> None:
    list_integers(world)
    world.sync("007")
    world.clock.sleep(60)
    assert counts(world.sync("7", "007")) == {"created": 1, "already_created": 1}


def test_one_integer_for_two_orders_in_doubt_is_held(world: World) -> None:
    list_integers(world)
    world.kk.meets("7", "lost_answer")
    world.kk.meets("007", "lost_request")
    assert counts(world.sync("7", "007")) == {"held": 2}


def test_a_number_that_kk_lists_as_text_stands_for_no_other(world: World) -> None:
    world.kk.add(Order("7"))
    assert counts(world.sync("007")) == {"created": 1}


def hide_first(world: World, *, parts: int) -> None:
    """Let KK's list, which is being rebuilt, show nothing in the first parts that are read from now on.

    Half an hour is read at a time, the oldest first.
    """
    listed, hidden = world.kk.find, iter(range(parts))

    def find(since: float, until: float) -> Iterator[list[ListedOrder]]:
        for begin in range(int(since), int(until), 1_800):
            for part in listed(begin, min(begin + 1_800, until)):
                yield [] if next(hidden, None) is not None else part

    world.kk.find = find  # type: ignore[method-assign]


def send_without_healing(world: World, *keys: str) -> None:
    stream, _, _, _ = stream_over(world, *map(Order, keys))
    stream.recover_max_age_s = 86_400.0
    stream.run()
    stream.close()


def settle_without_healing(world: World, key: str) -> None:
    world.ledger.storage.set_recovered_until(world.clock.now)
    send_without_healing(world, key)


@pytest.mark.parametrize("parts", range(1, 10))
@pytest.mark.parametrize("younger", [(), ("B", "C", "D")], ids=["older", "younger"])
def test_recover_rereads_a_list_that_hid_its_sentinel_at_first(
    world: World, younger: Sequence[str], parts: int
) -> None:
    world.kk.meets("A", "lost_answer")
    world.sync("A", waits=False)
    world.clock.sleep(700)
    world.sync(*younger, waits=False)
    world.clock.sleep(6500)
    hide_first(world, parts=parts)
    settle_without_healing(world, "A")
    assert world.kk.count("A") == 1
    assert world.entry("A").state is State.CREATED


@pytest.mark.parametrize("parts", range(1, 10))
def test_recover_rereads_everything_though_its_sentinel_is_younger(world: World, parts: int) -> None:
    world.sync("B")
    world.clock.sleep(1200)
    world.kk.add(Order("A"))
    world.clock.sleep(3000)
    send_without_healing(world, "C", "D", "E")
    world.clock.sleep(3600)
    hide_first(world, parts=parts)
    with suppress(InconclusiveError):
        world.sync("A")
    assert "A" not in world.kk.posts


def test_recover_reads_a_list_once_that_shows_its_sentinel_from_the_start(world: World) -> None:
    for key in ("B", "C", "D", "E", "F", "G"):
        send_without_healing(world, key)
        world.clock.sleep(1800)
    hide_first(world, parts=0)
    reads: list[float] = []
    find = world.kk.find

    def counted(since: float, until: float) -> Iterator[list[ListedOrder]]:
        reads.append(since)
        return find(since, until)

    world.kk.find = counted  # type: ignore[method-assign]
    assert counts(world.sync("J")) == {"created": 1}
    assert len(reads) == 1


def test_the_other_half_of_a_split_is_not_taken_for_a_duplicate(world: World) -> None:
    world.kk.split = True
    split = Order("A", {"S": 1, "T": 2})
    post = world.kk.post
    world.kk.post = lambda order, check: post(order, check)[:1]  # type: ignore[method-assign]
    world.sync(split)
    world.clock.sleep(3600)
    there = [one.id for one in world.kk.orders if one.key == "A"]
    assert order_again(world.ledger, world.entry("A"), ids=there, who="ann", why="asked")
    assert counts(world.sync(split)) == {"created": 1}
    assert world.kk.count("A") == 2


def test_one_kk_order_is_never_adopted_for_two_numbers(world: World) -> None:
    add = world.kk.add

    def add_as_integer(order: Order, **options: Any) -> list[str]:
        ids = add(order, **options)
        last = world.kk.orders[-1]
        if last.key is not None and last.key.isdigit():
            world.kk.orders[-1] = replace(last, key=str(int(last.key)), key_is_integer=True)
        return ids

    world.kk.add = add_as_integer  # type: ignore[method-assign]
    world.kk.meets("007", "lost_request")
    world.sync("7", "007")
    assert not set(world.entry("7").kk_order_ids) & set(world.entry("007").kk_order_ids)
    assert world.entry("007").state is State.HELD


def test_parts_without_a_number_prevent_a_resend(world: World) -> None:
    world.kk.split = True
    add = world.kk.add
    world.kk.add = lambda order, **options: add(order, key=None)  # type: ignore[method-assign]
    world.kk.meets("A", "lost_answer")
    world.sync(Order("A", {"S": 1, "T": 2}))
    assert world.kk.count("A") == 1


def test_a_number_like_a_decimal_is_compared_as_text() -> None:
    assert not ListedOrder("1", "12.5", key_is_integer=True).is_of("125")


class LongList:
    """A client of a KK that has made one order a second."""

    clock_skew_s = None

    def list_orders(
        self, *, created_from: datetime, created_to: datetime, page_number: int, page_size: int
    ) -> OrderPage:
        ids = range(int(created_from.timestamp()), int(created_to.timestamp()) + 1)
        page = ids[(page_number - 1) * page_size : page_number * page_size]
        orders = [
            KKOrder.model_construct(
                id=str(one), custom_order_number=None, items=[], shipping_address=None, created_at=None
            )
            for one in page
        ]
        return OrderPage.model_construct(orders=orders, total=len(ids))


def test_a_long_list_is_read_in_slices_of_at_most_1000_orders_since_rows_shift_between_pages() -> None:
    slices = list(KKOrderList(LongList()).find(100_000, 105_000))  # type: ignore[arg-type]
    assert max(map(len, slices)) <= 1_000
    assert {one.id for part in slices for one in part} >= set(map(str, range(100_000, 105_001)))
