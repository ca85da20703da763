"""The audit: exactly the numbers of which KK has more or less than it should are named."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from airflow_provider_kk.delivery.model import InconclusiveError, ListedOrder
from airflow_provider_kk.delivery.reconcile import AbsencePolicy
from airflow_provider_kk.delivery.resolution import order_again, resolve
from airflow_provider_kk.delivery.states import Event
from airflow_provider_kk.sync.audit import Audit, AuditResult, audit, latest_until
from tests.delivery.world import START, Order, World

LOG = logging.getLogger("tests.audit")
DAY_S = 86_400.0
TWO = {"SHIRT_M": 2, "MUG": 1}


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    world = World.in_folder(tmp_path)
    yield world
    world.ledger.close()


def look(world: World, *, since: float | None = None, until: float | None = None) -> Audit:
    """Audit the last day, once all that is listed late is listed."""
    world.clock.sleep(2_000)
    latest = latest_until(world.ledger, world.kk)
    return audit(world.ledger, world.kk, latest - DAY_S if since is None else since, until or latest, LOG)


def verdicts(result: Audit) -> dict[str | None, str]:
    return {one.key: one.verdict.value for one in result.findings}


def forget(world: World, key: str, *, parts: int | None = None) -> None:
    """Let KK lose the orders of a number, or the first `parts` of them."""
    lost = [one for one in world.kk.orders if one.key == key][:parts]
    world.kk.orders = [one for one in world.kk.orders if one not in lost]


def test_what_was_created_once_agrees_split_or_not(empty_world: World) -> None:
    world = empty_world
    world.sync("A")
    world.kk.split = True
    world.sync(Order("B", TWO))
    result = look(world)
    assert result.agrees
    assert (result.findings, result.counts) == ([], {AuditResult.AGREES: 2})


def test_a_duplicate_from_a_replayed_post_is_counted(world: World) -> None:
    world.kk.split = True
    order = Order("A", TWO)
    world.sync(order, "B")
    world.kk.add(order)
    (found,) = look(world).findings
    assert (found.key, found.verdict) == ("A", "more")
    assert found.message == "KK has this order 2 times; the ledger does not have 1004, 1005"
    assert (found.should_have, found.kk_has) == (TWO, {"SHIRT_M": 4, "MUG": 2})
    assert len(found.kk_ids) == 4


def test_a_second_order_of_another_day_is_more(world: World) -> None:
    world.sync("A")
    world.clock.sleep(3 * DAY_S)
    world.kk.add(Order("A"))
    assert verdicts(look(world)) == {"A": "more"}


def test_a_lost_part_is_fewer_and_a_lost_order_is_missing(world: World) -> None:
    world.kk.split = True
    world.sync(Order("A", TWO), Order("B", TWO), Order("C", TWO))
    forget(world, "A", parts=1)
    forget(world, "B")
    result = look(world)
    assert verdicts(result) == {"A": "fewer", "B": "missing"}
    assert not result.agrees


def test_an_unknown_number_is_unclaimed_unless_it_was_cancelled(world: World) -> None:
    world.sync("A")
    world.kk.add(Order("by-hand"))
    world.kk.orders.append(
        ListedOrder("9", "cancelled", goods={"MUG": 1}, created_at=world.kk.now, is_cancelled=True)
    )
    assert verdicts(look(world)) == {"by-hand": "unclaimed"}


def test_what_only_recover_found_is_unclaimed_until_a_sync_selects_it(world: World) -> None:
    world.sync("Z")
    world.kk.add(Order("A"))
    world.sync("Z")
    assert verdicts(look(world)) == {"A": "unclaimed"}
    world.sync("A")
    assert world.kk.posts == ["Z"]
    assert look(world).agrees


def test_a_duplicate_that_was_cancelled_at_kk_is_over(world: World) -> None:
    world.sync("A")
    world.kk.orders.append(
        ListedOrder("9", "A", goods={"SHIRT_M": 1}, created_at=world.kk.now, is_cancelled=True)
    )
    assert look(world).agrees


def test_other_ids_and_other_goods_are_distinguished(world: World) -> None:
    world.sync("A", "B", "C")
    forget(world, "A")
    forget(world, "B")
    world.kk.add(Order("A"))
    world.kk.add(Order("B", {"MUG": 7}))
    assert verdicts(look(world)) == {"A": "other_ids", "B": "other_goods"}


def test_goods_that_cannot_be_read_are_compared_by_their_ids(world: World) -> None:
    world.sync("A", "B")
    world.kk.orders = [ListedOrder(one.id, one.key, created_at=one.created_at) for one in world.kk.orders]
    world.kk.orders.append(ListedOrder("9", "B", created_at=world.kk.now))
    assert verdicts(look(world)) == {"B": "unclear"}


def test_two_generations_are_two_orders_and_a_third_is_one_too_many(world: World) -> None:
    world.sync("A", "Z")
    world.clock.sleep(2_000)
    assert order_again(world.ledger, world.entry("A"), who="ann", why="lost parcel")
    world.sync("A")
    assert world.kk.count("A") == 2
    assert look(world).agrees
    world.kk.add(Order("A"))
    assert verdicts(look(world)) == {"A": "more"}
    forget(world, "A", parts=2)
    assert verdicts(look(world)) == {"A": "fewer"}


def test_generations_of_different_days_do_not_disturb_each_other(world: World) -> None:
    world.sync("A")
    world.clock.sleep(3 * DAY_S)
    assert order_again(world.ledger, world.entry("A"), who="ann", why="lost parcel")
    world.sync("A")
    assert look(world).agrees
    assert look(world, since=START - 60, until=START + 3_600).agrees


def test_an_order_in_doubt_is_listed_but_not_wrong_within_its_settle_window(world: World) -> None:
    world.sync("Z")
    world.kk.meets("A", "lost_answer")
    world.kk.meets("B", "lost_request")
    world.sync("A", "B", waits=False)
    world.clock.sleep(300)
    now = world.clock.wall()
    result = audit(world.ledger, world.kk, now - DAY_S, now, LOG)
    assert verdicts(result) == {"A": "open", "B": "open"}
    assert result.agrees
    assert {one.state for one in result.findings} == {"in_doubt"}


def test_an_order_in_doubt_with_a_duplicate_is_wrong_after_its_settle_window(world: World) -> None:
    world.sync("Z")
    world.kk.meets("A", "lost_answer")
    world.kk.meets("B", "lost_answer")
    world.sync("A", "B", waits=False)
    world.kk.add(Order("A"))
    assert verdicts(look(world)) == {"A": "more", "B": "open"}


def test_what_is_held_is_named_with_its_state(world: World) -> None:
    world.sync("Z")
    world.kk.meets("A", "lost_request")
    world.sync("A", policy=AbsencePolicy(on_absence="hold"))
    (found,) = look(world).findings
    assert (found.verdict, found.state) == ("open", "held")
    assert "not in KK's list" in found.message


def test_half_a_split_of_a_rejected_order_is_more_than_there_should_be(world: World) -> None:
    world.sync("Z")
    world.kk.meets("A", "refused")
    world.sync(Order("A", TWO), waits=False)
    world.kk.add(Order("A", {"MUG": 1}))
    assert verdicts(look(world)) == {"A": "more"}


def test_a_manual_resolution_with_other_goods_is_accepted(world: World) -> None:
    world.sync("Z")
    world.kk.meets("A", "lost_request")
    world.sync("A", waits=False)
    ids = world.kk.add(Order("A", {"MUG": 1}))
    world.clock.sleep(3_600)
    assert resolve(
        world.ledger, world.entry("A"), Event.RESOLVED_CREATED, ids=ids, who="ann", why="support changed it"
    )
    assert look(world).agrees
    world.kk.add(Order("A", {"MUG": 1}))
    assert not look(world).agrees


def test_an_order_resolved_as_created_days_later_is_found_where_it_was_sent(world: World) -> None:
    world.kk.meets("A", "lost_answer")
    world.sync("A", waits=False)
    world.clock.sleep(3 * DAY_S)
    ids = [one.id for one in world.kk.orders if one.key == "A"]
    assert resolve(world.ledger, world.entry("A"), Event.RESOLVED_CREATED, ids=ids, who="ann", why="seen")
    world.sync("Z")
    assert look(world).agrees


@pytest.mark.parametrize("edge_s", [-1.0, 0.0, 1.0, 30.0])
def test_an_order_at_the_edge_of_the_period_is_not_missing(world: World, edge_s: float) -> None:
    world.sync("A", "B")
    # KK's clock says half a minute less or more than the ledger's.
    world.kk.orders = [
        ListedOrder(one.id, one.key, goods=one.goods, created_at=START + shift)
        for one, shift in zip(world.kk.orders, (-30.0, 30.0), strict=True)
    ]
    assert look(world, since=START + edge_s).agrees
    assert look(world, since=START - DAY_S, until=START + edge_s).agrees


def test_orders_without_a_number_are_listed_apart(world: World) -> None:
    world.sync("A")
    world.kk.add(Order("lost its number"), key=None)
    result = look(world)
    assert verdicts(result) == {None: "unnumbered"}
    assert result.agrees


def test_numbers_that_kk_lists_as_integers_are_recognised(world: World) -> None:
    world.sync("00042", "7")
    world.kk.orders = [
        ListedOrder(one.id, str(int(one.key or "")), True, one.goods, created_at=one.created_at)
        for one in world.kk.orders
    ]
    assert look(world).agrees
    world.kk.orders.append(ListedOrder("9", "42", True, {"SHIRT_M": 1}, created_at=world.kk.now))
    assert verdicts(look(world)) == {"00042": "more"}


def test_the_list_of_another_store_is_inconclusive(world: World) -> None:
    world.sync("A", "B")
    forget(world, "A")
    forget(world, "B")
    world.kk.add(Order("theirs"))
    with pytest.raises(InconclusiveError, match="belongs to this store"):
        look(world)


def test_an_incomplete_list_is_inconclusive(world: World) -> None:
    world.sync("A")
    world.kk.list_error = InconclusiveError("its pages contradict each other")
    with pytest.raises(InconclusiveError, match="pages"):
        look(world)


def test_a_lagging_list_makes_nothing_missing(world: World) -> None:
    world.kk.list_lag_s = 300.0
    world.sync("A")
    world.clock.sleep(60)
    world.sync("B", waits=False)
    latest = latest_until(world.ledger, world.kk)
    assert audit(world.ledger, world.kk, latest - DAY_S, latest, LOG).agrees
    assert look(world).agrees


def test_progress_of_a_long_period_is_logged(
    world: World, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    world.sync("A", "B")
    whole = world.kk.find

    def slow(since: float, until: float) -> Iterator[list[ListedOrder]]:
        for parts in whole(since, until):
            for one in parts:
                world.clock.sleep(11)
                yield [one]

    monkeypatch.setattr(world.kk, "find", slow)
    with caplog.at_level(logging.INFO, "tests.audit"):
        assert look(world).agrees
    told = [record.getMessage() for record in caplog.records if record.name == "tests.audit"]
    assert told[:2] == [f"Reading KK's list: {n} orders, up to 2027-01-15 08:00:00 UTC" for n in (1, 2)]


def test_an_account_without_orders_has_nothing_to_compare(world: World) -> None:
    result = look(world)
    assert result.agrees
    assert not result.counts


# Any damage ----------------------------------------------------------------------------------------

GOODS = st.dictionaries(st.sampled_from(["A", "B", "C"]), st.integers(1, 3), min_size=1)
DAMAGE = st.sampled_from(["none", "none", "double", "lost", "part", "unknown", "renamed"])


@settings(max_examples=25)
@given(orders=st.lists(st.tuples(GOODS, st.booleans(), DAMAGE), min_size=1, max_size=8))
def test_exactly_what_was_damaged_is_named(orders: list[tuple[dict[str, int], bool, str]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        world = World.in_folder(Path(folder))
        world.sync("control", *(Order(f"N{place}", goods) for place, (goods, _, _) in enumerate(orders)))
        expected: dict[str, str] = {}
        for place, (goods, is_split, damage) in enumerate(orders):
            order = Order(f"N{place}", goods)
            if is_split:
                split(world, order)
            expected |= do_damage(world, order, damage)

        found = verdicts(look(world))

        world.ledger.close()
        assert found == expected


def split(world: World, order: Order) -> None:
    """Let KK have an order in parts, of which its answer has named the first only."""
    (whole,) = [one for one in world.kk.orders if one.key == order.key]
    parts = [{sku: 1} for sku, quantity in order.goods.items() for _ in range(quantity)]
    world.kk.orders.remove(whole)
    world.kk.orders += [
        replace(whole, id=whole.id if place == 0 else f"{whole.id}-{place}", goods=goods)
        for place, goods in enumerate(parts)
    ]


def do_damage(world: World, order: Order, damage: str) -> dict[str, str]:
    """Spoil an order at KK; what the audit has to say of it."""
    key = order.key
    parts = [one for one in world.kk.orders if one.key == key]
    if damage == "double":
        world.kk.add(order)
        return {key: "more"}
    if damage == "lost":
        forget(world, key)
        return {key: "missing"}
    if damage == "part":
        forget(world, key, parts=1)
        return {key: "fewer" if len(parts) > 1 else "missing"}
    if damage == "unknown":
        world.kk.add(order, key=f"{key}x")
        return {f"{key}x": "unclaimed"}
    if damage == "renamed":
        forget(world, key)
        world.kk.add(order)
        return {key: "other_ids"}
    return {}
