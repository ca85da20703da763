"""A human lifts the pause of a rejected order: it is asked for sooner, and as carefully as ever."""

from __future__ import annotations

import pytest

from airflow_provider_kk.delivery.resolution import clear_backoff
from airflow_provider_kk.delivery.states import State
from tests.delivery.world import Order, World, counts


@pytest.fixture
def world(empty_world: World) -> World:
    world = empty_world
    world.sync("Z")
    world.kk.meets("A", "refused")
    assert counts(world.sync("A")) == {"rejected": 1}
    return world


def lift(world: World) -> None:
    assert clear_backoff(world.ledger, world.entry("A"), who="ann", why="restocked") is not None


def test_a_rejected_order_backs_off(world: World) -> None:
    world.clock.sleep(700)
    assert counts(world.sync("A")) == {"rejected": 1}
    assert world.kk.posts == ["Z", "A"]


def test_a_retry_ends_the_backoff(world: World) -> None:
    world.clock.sleep(700)
    lift(world)
    assert counts(world.sync("A")) == {"created": 1}
    assert world.kk.count("A") == 1


def test_the_next_sync_waits_for_the_settle_window_first(world: World) -> None:
    settled = world.entry("A").settle_after
    lift(world)
    assert counts(world.sync("A")) == {"created": 1}
    assert world.clock.wall() >= settled


def test_an_order_that_kk_made_despite_its_rejection_is_not_resent(world: World) -> None:
    world.kk.add(Order("A"))
    world.clock.sleep(700)
    lift(world)
    assert counts(world.sync("A")) == {"adopted": 1}
    assert world.kk.posts == ["Z", "A"]


def test_a_second_rejection_backs_off_longer_than_the_first(world: World) -> None:
    world.clock.sleep(700)
    lift(world)
    world.kk.meets("A", "refused")
    world.sync("A")
    entry = world.entry("A")
    assert entry.retry_after - entry.updated_at == pytest.approx(1_800)


def test_a_row_that_has_moved_is_left_alone(world: World) -> None:
    seen = world.entry("A")
    world.clock.sleep(1_000)
    world.sync("A")
    assert clear_backoff(world.ledger, seen, who="ann", why="restocked") is None
    assert world.entry("A").state is State.CREATED


def test_only_a_rejected_order_has_a_backoff(world: World) -> None:
    with pytest.raises(ValueError, match="cannot follow 'created'"):
        clear_backoff(world.ledger, world.entry("Z"), who="ann", why="restocked")
