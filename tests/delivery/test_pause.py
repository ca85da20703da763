"""The kill switch and the daily cap: what holds for all workers of an account at once."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import sqlalchemy as sa

from airflow_provider_kk.delivery.model import BeforeSend, SendingPausedError
from airflow_provider_kk.delivery.sql import tables
from airflow_provider_kk.delivery.sql.bucket import LedgerBucket
from airflow_provider_kk.sync.sync_counts import summarise
from tests.delivery.world import Order, World, counts, stream_over


def bucket(world: World, *, burst: int = 100, per_second: float = 100.0) -> LedgerBucket:
    return LedgerBucket(world.ledger, burst=burst, per_second=per_second)


def test_pause_stops_a_sync_before_it_sends(world: World) -> None:
    world.ledger.storage.add_pause("ann", "wrong query")
    assert counts(world.sync("A", "B")) == {"postponed": 2}
    assert world.kk.count("A") == 0
    assert "paused since" in world.messages["A"]
    assert "by ann: wrong query" in world.messages["A"]


def test_pause_stops_a_sync_that_is_sending(world: World) -> None:
    post = world.kk.post

    def pausing(order: Order, before_send: BeforeSend) -> list[str]:
        world.ledger.storage.add_pause("ann", "wrong query")
        return post(order, before_send)

    world.kk.post = pausing  # type: ignore[method-assign]
    stream, run_queue, runs, run = stream_over(world, *map(Order, "ABCD"), throttle=bucket(world))
    stream.run()
    stream.close()
    assert counts(summarise(run_queue, run, runs)) == {"created": 1, "postponed": 3}
    world.ledger.storage.end_pause("ann", "fixed")
    assert counts(world.sync(*"ABCD")) == {"already_created": 1, "created": 3}


def test_pause_leaves_reconcile_and_recover_running(world: World) -> None:
    world.kk.meets("A", "lost_answer")
    world.sync("A", waits=False)
    world.ledger.storage.add_pause("ann", "wrong query")
    world.clock.sleep(3600)
    assert counts(world.sync("A", "B")) == {"adopted": 1, "postponed": 1}


def test_pause_keeps_an_absent_order_from_being_resent(world: World) -> None:
    world.kk.meets("A", "lost_request")
    world.sync("A", waits=False)
    world.ledger.storage.add_pause("ann", "wrong query")
    world.clock.sleep(3600)
    assert counts(world.sync("A")) == {"in_doubt": 1}
    assert world.kk.count("A") == 0
    world.ledger.storage.end_pause("ann", "fixed")
    assert counts(world.sync("A")) == {"created": 1}


def test_pause_reaches_who_waits_for_a_permit(world: World) -> None:
    waiting = bucket(world, burst=3, per_second=0.5)
    waiting.acquire(to_send=True)
    waited = world.clock.sleep

    def pausing(seconds: float, stop: object = None) -> None:
        world.ledger.storage.add_pause("ann", "wrong query")
        waited(seconds, stop)

    world.clock.sleep = pausing  # type: ignore[method-assign]
    with pytest.raises(SendingPausedError):
        waiting.acquire(to_send=True)


def test_pause_lets_reads_through(world: World) -> None:
    world.ledger.storage.add_pause("ann", "wrong query")
    bucket(world).acquire()


def test_pause_and_resume_happen_once_and_stay_in_the_ledger(world: World) -> None:
    storage = world.ledger.storage
    assert not storage.end_pause("ann", "nothing to resume")
    with ThreadPoolExecutor(4) as pool:
        done = list(pool.map(lambda n: storage.add_pause(f"person {n}", "wrong query"), range(4)))
    assert sorted(done) == [False, False, False, True]
    assert storage.end_pause("bea", "query fixed")
    assert storage.pause() is None
    with storage.database.read() as db:
        (row,) = db.execute(sa.select(tables.pause)).all()
    assert (row.resumed_by, row.why_resumed, row.why) == ("bea", "query fixed", "wrong query")
    assert row.paused_at <= row.resumed_at


def test_pause_of_another_account_stops_nothing(world: World) -> None:
    world.ledger.storage.add_pause("ann", "wrong query")
    with world.ledger.storage.database.write() as db:
        db.execute(tables.pause.update().values(account="other"))
    assert counts(world.sync("A")) == {"created": 1}


def test_ledger_of_an_older_version_is_read_as_not_paused(world: World) -> None:
    with world.ledger.storage.database.write() as db:
        tables.pause.drop(db)
    pause = world.ledger.storage.pause()
    with world.ledger.storage.database.write() as db:
        tables.pause.create(db)  # others use the same server
    assert pause is None


# The cap of a day ----------------------------------------------------------------------------------

DAY_S = 86_400.0


@pytest.fixture
def capped(world: World) -> World:
    """A world whose account may send two orders a day, and has sent none in the last one."""
    world.clock.sleep(2 * DAY_S)
    world.ledger.max_orders_per_day = 2
    return world


def test_daily_cap_postpones_what_exceeds_it(capped: World) -> None:
    assert counts(capped.sync(*"ABCD")) == {"created": 2, "postponed": 2}
    assert "max_orders_per_day=2" in capped.messages["C"]
    assert "can be sent after" in capped.messages["C"]
    capped.clock.sleep(DAY_S / 2)
    assert counts(capped.sync(*"ABCD")) == {"already_created": 2, "postponed": 2}
    capped.clock.sleep(DAY_S / 2)
    assert counts(capped.sync(*"ABCD")) == {"already_created": 2, "created": 2}


@pytest.mark.parametrize(("fault", "left"), [("never_left", 2), ("refused", 2), ("lost_answer", 1)])
def test_daily_cap_counts_what_may_be_bought(capped: World, fault: str, left: int) -> None:
    capped.kk.meets("A", fault)
    capped.sync("A", waits=False)
    assert counts(capped.sync(*"BCD", waits=False)).get("created", 0) == left


def test_daily_cap_holds_for_workers_at_once(capped: World) -> None:
    capped.ledger.max_orders_per_day = 5
    start = threading.Barrier(4)

    def send(worker: int) -> None:
        ledger = capped.open_ledger()
        ledger.max_orders_per_day = 5
        stream, *_ = stream_over(
            capped, *[Order(f"{worker}-{n}") for n in range(5)], ledger=ledger, run_id=str(worker)
        )
        start.wait()
        stream.run()
        stream.close()
        ledger.close()

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(send, range(4)))
    assert len(capped.kk.created) == 5 + 1  # and the one that is known from before


def test_daily_cap_leaves_a_resend_in_doubt(capped: World) -> None:
    capped.kk.meets("A", "lost_request")
    capped.sync("A", waits=False)
    capped.sync("B")
    capped.clock.sleep(3600)
    assert counts(capped.sync("A")) == {"in_doubt": 1}
