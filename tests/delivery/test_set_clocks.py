"""Clocks that are wrong when an order is sent, and are set right before it is settled."""

from __future__ import annotations

from typing import Any

import pytest
import sqlalchemy as sa

from tests.delivery.world import World, counts


@pytest.fixture
def world(empty_world: World) -> World:
    empty_world.sync("known")
    empty_world.clock.sleep(3600)
    return empty_world


def set_workers_clock(world: World, by_s: float) -> None:
    """On SQLite it is the ledger's, too; KK's stays what it is."""
    world.clock.now += by_s
    world.kk.clock_skew_s = (world.kk.clock_skew_s or 0.0) - by_s


def set_databases_clock(world: World, ahead_s: float) -> None:
    database: Any = world.ledger.database
    database.now = lambda: sa.literal(world.clock.wall() + ahead_s, sa.Float(53))
    database.time_here = database.read_now = lambda: world.clock.wall() + ahead_s


def test_a_workers_clock_that_was_ahead_doubles_nothing(world: World) -> None:
    set_workers_clock(world, 3600)
    world.kk.meets("A", "lost_answer")
    world.sync("A", waits=False)
    set_workers_clock(world, -3600)
    world.clock.sleep(3500)
    world.sync("B")
    world.clock.sleep(3000)
    world.sync("A")
    assert world.kk.count("A") == 1


def test_a_databases_clock_that_was_ahead_doubles_nothing(world: World) -> None:
    set_databases_clock(world, 3600)
    world.kk.meets("A", "lost_answer")
    world.sync("A", waits=False)
    set_databases_clock(world, 0)
    world.clock.sleep(3500)
    world.sync("B")
    world.clock.sleep(3000)
    world.sync("A")
    assert world.kk.count("A") == 1


def test_clocks_that_were_behind_double_nothing(world: World) -> None:
    world.kk.list_lag_s = 300.0
    world.sync("B")
    world.clock.sleep(1200)
    set_workers_clock(world, -3600)
    world.kk.meets("A", "lost_answer")
    world.sync("A", waits=False)
    world.clock.sleep(20)
    set_workers_clock(world, 3600)
    world.sync("A")
    assert world.kk.count("A") == 1


def test_kks_clock_that_was_ahead_doubles_nothing(world: World) -> None:
    world.kk.clock_skew_s = 3600.0
    world.kk.meets("A", "lost_answer")
    world.sync("A", waits=False)
    world.kk.clock_skew_s = 0.0
    world.clock.sleep(60)
    world.sync("B")
    world.clock.sleep(1000)
    world.sync("A")
    assert world.kk.count("A") == 1


@pytest.mark.parametrize("ahead_s", [60.0, 240.0, 3600.0])
def test_an_account_goes_on_after_a_clock_that_was_ahead_is_set_right(world: World, ahead_s: float) -> None:
    set_workers_clock(world, ahead_s)
    world.sync("A", "B", "C")
    set_workers_clock(world, -ahead_s)
    for _ in range(3):
        world.clock.sleep(1200)
        world.sync("A")
    results = []
    for _ in range(4):
        results.append(counts(world.sync("D")))
        world.clock.sleep(86_400)
    assert results[-1] == {"already_created": 1}, results


def test_an_account_goes_on_after_the_databases_clock_was_ahead(world: World) -> None:
    set_databases_clock(world, 240)
    world.sync("A", "B", "C")
    set_databases_clock(world, 0)
    for _ in range(3):
        world.clock.sleep(1200)
        world.sync("A")
    assert counts(world.sync("D")) == {"created": 1}
