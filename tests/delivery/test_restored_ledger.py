"""A ledger that was restored from a backup has forgotten what was sent: KK's list has not."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import sqlalchemy as sa

from airflow_provider_kk.delivery.model import ListedOrder
from airflow_provider_kk.delivery.resolution import order_again, resolve
from airflow_provider_kk.delivery.sql import tables
from airflow_provider_kk.delivery.states import Event, State
from tests.delivery.world import Order, World, counts, list_integers

TABLES = (tables.account, tables.order, tables.attempt, tables.sync_run)


def backup(world: World) -> list[list[dict[str, Any]]]:
    with world.ledger.storage.database.read() as db:
        return [[dict(row._mapping) for row in db.execute(sa.select(table))] for table in TABLES]


def restore(world: World, rows: list[list[dict[str, Any]]]) -> None:
    with world.ledger.storage.database.write() as db:
        for table, saved in zip(TABLES, rows, strict=True):
            db.execute(table.delete())
            if saved:
                db.execute(table.insert(), saved)


@pytest.mark.parametrize("fault", ["lost_request", "refused"])
def test_recover_finds_a_resend_that_a_restored_ledger_lacks(world: World, fault: str) -> None:
    world.kk.meets("A", fault)
    world.sync("A", waits=False)
    saved = backup(world)
    world.clock.sleep(7200)
    world.sync("A")
    world.clock.sleep(600)
    restore(world, saved)
    world.sync("A")
    assert world.kk.count("A") == 1


def test_recover_finds_the_second_generation(world: World) -> None:
    world.sync("A")
    world.clock.sleep(3600)
    order_again(world.ledger, world.entry("A"), who="ann", why="asked")
    saved = backup(world)
    world.sync("A")
    world.clock.sleep(3600)
    restore(world, saved)
    world.sync("A")
    assert world.kk.count("A") == 2


@pytest.mark.parametrize("before", ["never_left", "refused", "lost_request"])
def test_an_order_in_doubt_whose_intent_a_failover_lost_is_waited_for(world: World, before: str) -> None:
    """The row that is there instead is of an older attempt, and does not know that another one left."""
    world.kk.meets("A", before, "lost_answer")
    world.sync("A", waits=False)
    world.clock.sleep(7200)
    saved = backup(world)
    world.kk.list_lag_s = 300
    world.kk.on_post = lambda _key: restore(world, saved)
    assert counts(world.sync("A", waits=False)) == {"in_doubt": 1}
    world.kk.on_post = None
    assert counts(world.sync("A", "B")) == {"adopted": 1, "created": 1}
    assert world.kk.count("A") == 1


def test_answers_that_a_failover_lost_are_recorded_again_with_the_next_one(world: World) -> None:
    """KK's list does not show these orders yet: without their rows, another sync would send them again."""
    saved = backup(world)
    world.kk.list_lag_s = 300
    world.kk.on_post = lambda key: restore(world, saved) if key == "C" else None
    assert counts(world.sync("A", "B", "C")) == {"created": 3}
    world.kk.on_post = None

    assert counts(world.sync("A", "B", "C")) == {"already_created": 3}
    assert [world.kk.count(key) for key in ("A", "B", "C")] == [1, 1, 1]


def test_a_row_that_vanishes_while_a_sync_waits_is_not_resent(world: World) -> None:
    world.kk.meets("A", "lost_answer")
    sleep = world.clock.sleep

    def sleep_and_lose(seconds: float, stop: object = None) -> None:
        sleep(seconds)
        if seconds > 100:
            with world.ledger.storage.database.write() as db:
                db.execute(tables.order.delete().where(tables.order.c.custom_order_number == "A"))

    world.clock.sleep = sleep_and_lose  # type: ignore[method-assign]
    assert counts(world.sync("A")) == {"in_doubt": 1}
    world.clock.sleep = sleep  # type: ignore[method-assign]
    world.sync("A")
    assert world.kk.count("A") == 1


def test_recover_matches_a_number_that_kk_lists_without_its_zeros(world: World) -> None:
    list_integers(world)
    saved = backup(world)
    world.sync("007")
    world.clock.sleep(3600)
    restore(world, saved)
    assert counts(world.sync("007")) == {"already_created": 1}
    assert world.kk.count("007") == 1


@pytest.mark.parametrize("before", ["not_sent", "invalid"])
def test_recover_finds_a_not_sent_order_under_an_integer(world: World, before: str) -> None:
    list_integers(world)
    if before == "not_sent":
        world.kk.meets("007", "never_left")
        world.sync("007")
    else:
        world.ledger.note_invalid("007", "digest", "no zip", sync_id="s")
    saved = backup(world)
    world.sync("007")
    world.clock.sleep(3600)
    restore(world, saved)
    world.sync("007")
    assert world.kk.count("007") == 1


def test_recover_reports_an_order_under_an_integer_that_was_changed_meanwhile(
    world: World,
) -> None:
    list_integers(world)
    saved = backup(world)
    world.sync("007")
    world.clock.sleep(3600)
    restore(world, saved)
    assert counts(world.sync(Order("007", {"SHIRT_M": 1}, "DE"))) == {"changed": 1}


def test_recover_adopts_all_splits_from_two_slices_of_the_list(world: World) -> None:
    split = Order("A", {"S": 1, "T": 2})
    world.kk.meets("A", "never_left")
    world.sync(split)
    saved = backup(world)
    world.kk.split = True
    world.sync(split)
    world.clock.sleep(3600)
    restore(world, saved)
    find = world.kk.find

    def one_by_one(since: float, until: float) -> Iterator[list[ListedOrder]]:
        for part in find(since, until):
            yield from [[one] for one in part] or [[]]

    world.kk.find = one_by_one  # type: ignore[method-assign]
    assert counts(world.sync(split)) == {"already_created": 1}


def test_an_index_that_is_being_rebuilt_is_no_reason_to_send(world: World) -> None:
    world.sync("B")
    world.clock.sleep(400)
    saved = backup(world)
    world.sync("A")
    world.clock.sleep(3600)
    restore(world, saved)
    world.kk.orders = []
    assert counts(world.sync("A")) == {"not_sent": 1}
    assert world.kk.count("A") == 1


def test_recover_logs_the_first_twenty_adopted_orders(world: World, caplog: pytest.LogCaptureFixture) -> None:
    for n in range(21):
        world.kk.add(Order(f"A-{n}"))
    world.sync("B")
    (text,) = [text for text in caplog.messages if "that the ledger did not have" in text]
    assert "KK has 21 orders" in text
    assert text.endswith("A-18, A-19 and 1 more")

    world.clock.sleep(3600)
    world.kk.add(Order("moved\x1b[2J"))
    world.sync("C")
    assert any(text.endswith(r"adopted and not sent again: moved\x1b[2J") for text in caplog.messages)


@pytest.mark.parametrize("decision", ["never_created", "refused_again"])
def test_a_later_change_of_an_order_that_was_recorded_again_stays(world: World, decision: str) -> None:
    """A second failover under the same worker loses other answers only."""
    lose_during(world, "B", "A")
    assert world.entry("A").state is State.IN_DOUBT

    world.clock.sleep(7200)
    if decision == "never_created":
        resolve(world.ledger, world.entry("A"), Event.RESOLVED_NEVER_CREATED, who="ann", why="called KK")
    else:
        world.kk.meets("A", "refused")
        world.sync("A", ledger=world.open_ledger())
    decided = world.entry("A")

    lose_during(world, "D", "C")
    assert world.entry("C").state is State.IN_DOUBT
    assert world.entry("A") == decided


def test_the_later_resolution_of_an_order_whose_intent_was_lost_stays(world: World) -> None:
    saved = backup(world)
    world.kk.meets("A", "lost_request")
    world.kk.on_post = lambda _key: restore(world, saved)
    assert counts(world.sync("A", waits=False)) == {"in_doubt": 1}

    world.clock.sleep(7200)
    resolve(world.ledger, world.entry("A"), Event.RESOLVED_NEVER_CREATED, who="ann", why="called KK")
    lose_during(world, "D", "C")
    assert world.entry("A").resolved_by == "ann: called KK"
    assert world.entry("A").state is State.NOT_SENT


def lose_during(world: World, key: str, before: str) -> None:
    """Sync two orders; during the second's POST, a failover loses both intents and the first's answer."""
    saved = backup(world)
    world.kk.meets(before, "lost_request")
    world.kk.on_post = lambda posted: restore(world, saved) if posted == key else None
    world.sync(before, key, waits=False)
    world.kk.on_post = None


def test_a_late_answer_whose_intent_was_lost_is_reconciled_from_its_post_on(world: World) -> None:
    """The worker stood still for so long that KK's list has the order far back."""
    saved = backup(world)
    world.kk.meets("A", "lost_request")

    def fail_over(_key: str) -> None:
        world.kk.on_post = None
        world.kk.add(Order("A"))
        restore(world, saved)
        world.clock.sleep(7200)

    world.kk.on_post = fail_over
    assert counts(world.sync("A", "B")) == {"adopted": 1, "created": 1}
    assert world.kk.count("A") == 1
