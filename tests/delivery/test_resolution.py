"""What a human says of an order, against what KK and other workers do meanwhile."""

from __future__ import annotations

import pytest

from airflow_provider_kk.delivery.model import AttemptResult
from airflow_provider_kk.delivery.recover import add_splits
from airflow_provider_kk.delivery.resolution import clear_backoff, order_again, resolve
from airflow_provider_kk.delivery.states import Event, State
from tests.delivery.world import ORIGIN, Order, World, list_integers


def test_order_again_and_resend_of_the_old_generation_exclude_each_other(world: World) -> None:
    world.kk.meets("A", "refused")
    world.sync("A")
    world.clock.sleep(3600)
    seen = world.entry("A")
    assert order_again(world.ledger, seen, who="ann", why="asked")
    assert world.ledger.claim(world.job(Order("A")), seen, origin=ORIGIN, sync_id="s") is None


def test_resend_of_the_old_generation_and_order_again_exclude_each_other(world: World) -> None:
    world.kk.meets("A", "refused")
    world.sync("A")
    world.clock.sleep(3600)
    seen = world.entry("A")
    assert world.ledger.claim(world.job(Order("A")), seen, origin=ORIGIN, sync_id="s")
    assert not order_again(world.ledger, seen, who="ann", why="asked")


def test_never_created_is_not_accepted_within_the_settle_window(world: World) -> None:
    world.kk.list_lag_s = 300
    world.kk.meets("A", "lost_answer")
    world.sync("A", waits=False)
    with pytest.raises(ValueError, match="may still list"):
        resolve(
            world.ledger, world.entry("A"), Event.RESOLVED_NEVER_CREATED, who="ann", why="not on the site"
        )


def test_manual_resolution_can_disown_a_listed_order(world: World) -> None:
    list_integers(world)
    world.kk.meets("7", "lost_answer")
    world.kk.meets("007", "lost_request")
    world.sync("7", "007")
    (listed,) = {one.id for one in world.kk.orders if one.key == "7"}
    seen = world.ledger.hold(world.entry("007"), Event.CONFLICT, "listed as 7", [listed])
    assert seen is not None
    with pytest.raises(ValueError, match=f"KK has {listed}"):
        resolve(world.ledger, seen, Event.RESOLVED_NEVER_CREATED, who="ann", why="that is 7")
    row = resolve(world.ledger, seen, Event.RESOLVED_NEVER_CREATED, ids=[listed], who="ann", why="that is 7")
    assert row is not None
    assert (row.state, row.kk_order_ids) == (State.NOT_SENT, ())


def test_manual_resolution_chooses_the_ids_of_a_conflict(world: World) -> None:
    claim = world.ledger.claim(world.job(Order("A")), None, origin=ORIGIN, sync_id="s")
    assert claim is not None
    world.ledger.record(claim, AttemptResult(Event.UNKNOWN))
    world.ledger.hold(world.entry("A"), Event.CONFLICT, "two", ["1", "2"])
    row = resolve(
        world.ledger, world.entry("A"), Event.RESOLVED_CREATED, ids=["1"], who="ann", why="2 was cancelled"
    )
    assert row is not None
    assert row.kk_order_ids == ("1",)


@pytest.mark.parametrize("word", ["retry", "never", "again"])
def test_splits_are_added_after_a_manual_resolution_allowed_a_resend(world: World, word: str) -> None:
    split = Order("A", {"S": 1, "T": 2})
    if word == "retry":
        world.kk.meets("A", "refused")
        world.sync(split)
        clear_backoff(world.ledger, world.entry("A"), who="ann", why="restocked")
    elif word == "never":
        world.kk.meets("A", "lost_request")
        world.sync(split, waits=False)
        world.clock.sleep(800)
        resolve(world.ledger, world.entry("A"), Event.RESOLVED_NEVER_CREATED, who="ann", why="no")
    else:
        world.sync(split)
        world.clock.sleep(3600)
        ids = world.entry("A").kk_order_ids
        order_again(world.ledger, world.entry("A"), ids=ids, who="ann", why="more")
    world.clock.sleep(1000)
    world.kk.split = True
    post = world.kk.post
    world.kk.post = lambda order, check: post(order, check)[:1]  # type: ignore[method-assign]
    world.sync(split)
    add_splits(world.ledger, [one for one in world.kk.orders if one.key == "A"])
    assert len(world.entry("A").kk_order_ids) == 2
