"""The account's bucket in the ledger's database: never more than KK takes, whoever asks; little is wasted."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from airflow_provider_kk.delivery.clock import Stop
from airflow_provider_kk.delivery.model import ThrottleStopped
from airflow_provider_kk.delivery.sql import tables
from airflow_provider_kk.delivery.sql.bucket import HEADROOM, LedgerBucket
from airflow_provider_kk.delivery.sql.database import pool_arguments
from airflow_provider_kk.delivery.sql.storage import SqlLedger, sql_ledger
from airflow_provider_kk.sandbox.kk import LeakyBucket
from tests.delivery.world import World


@pytest.fixture
def ledger(each_ledger_url: str) -> Iterator[SqlLedger]:
    engine = sa.create_engine(
        each_ledger_url, **pool_arguments(sa.engine.make_url(each_ledger_url).get_backend_name(), 10)
    )
    ledger = sql_ledger(engine, "kk.test", "default")
    ledger.storage.open("kk_default", settle_window_s=600)
    yield ledger
    ledger.close()


def tat(ledger: SqlLedger) -> float:
    with ledger.storage.database.read() as db:
        is_mine = tables.account.c.account == ledger.account
        return float(db.execute(sa.select(tables.account.c.bucket_tat).where(is_mine)).scalar_one())


def test_rate_limit_of_two_syncs_is_one_bucket_that_never_overflows(ledger: SqlLedger) -> None:
    # So slow that a busy machine delays no thread by more than the headroom.
    buckets = [LedgerBucket(ledger, burst=20 + HEADROOM, per_second=5) for _ in range(2)]
    times: list[float] = []

    def ask(bucket: LedgerBucket) -> None:
        for _ in range(4):
            bucket.acquire()
            times.append(time.monotonic())

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(ask, buckets * 4))

    kk = LeakyBucket()
    assert len(times) == 32
    assert all(kk.take(at, 20 + HEADROOM, 5) for at in sorted(times))
    # 12 of them did not fit in at once, and came at the rate, whatever the machine does besides.
    assert max(times) - min(times) >= (32 - 20) / 5 - 0.1


def test_rate_limit_books_permits_of_waiting_threads_together(ledger: SqlLedger) -> None:
    bucket: Any = LedgerBucket(ledger, burst=100, per_second=10)
    booked: list[int] = []
    book, may_book = bucket._book, threading.Event()

    def slowly(number: int) -> list[float]:
        may_book.wait(300)
        booked.append(number)
        return book(number)  # type: ignore[no-any-return]

    bucket._book = slowly
    with ThreadPoolExecutor(8) as pool:
        asked = [pool.submit(bucket.acquire) for _ in range(8)]
        while bucket._waiting < 7:
            time.sleep(0.01)
        may_book.set()
        for one in asked:
            one.result()

    assert sum(booked) == 8
    assert len(booked) <= 3


def test_a_lost_database_is_waited_for_once_by_all_threads(tmp_path: Path) -> None:
    bucket: Any = LedgerBucket(World.in_folder(tmp_path).ledger, burst=100, per_second=10)
    stop, tries = Stop(), []

    def fail(number: int) -> list[float]:
        tries.append(number)
        while bucket._waiting < 3 and len(tries) == 1:
            time.sleep(0.01)
        stop.set("as a stream does when the first has failed")
        raise RuntimeError("the database is gone")

    bucket._book = fail
    with ThreadPoolExecutor(4) as pool:
        failures = [one.exception() for one in [pool.submit(bucket.acquire, stop) for _ in range(4)]]

    assert len(tries) == 1
    assert sorted(type(one).__name__ for one in failures) == ["RuntimeError"] + ["ThrottleStopped"] * 3


def test_an_unused_permit_of_a_stopped_worker_is_released(tmp_path: Path) -> None:
    world = World.in_folder(tmp_path)
    bucket = LedgerBucket(world.ledger, burst=1 + HEADROOM, per_second=1)
    bucket.acquire()
    before = tat(world.ledger)
    stop = Stop()

    def stop_asleep(seconds: float, _stop: object = None) -> None:
        stop.set()

    world.clock.sleep = stop_asleep  # type: ignore[method-assign]
    with pytest.raises(ThrottleStopped):
        bucket.acquire(stop)

    assert tat(world.ledger) == before


def test_the_permit_of_an_order_that_another_worker_claimed_is_released(tmp_path: Path) -> None:
    world = World.in_folder(tmp_path)
    bucket = LedgerBucket(world.ledger, burst=1 + HEADROOM, per_second=1)
    bucket.acquire()
    bucket.release(held_s=0.1)
    bucket.acquire()
    assert bucket.waited_s == 0.0

    # By now it has leaked out, so that giving it back would make room for two.
    world.clock.sleep(1.5)
    bucket.acquire()
    bucket.release(held_s=1.5)
    bucket.acquire()
    assert bucket.waited_s > 0.0


def test_seconds_waited_and_429s_are_counted(tmp_path: Path) -> None:
    world = World.in_folder(tmp_path)
    bucket = LedgerBucket(world.ledger, burst=1 + HEADROOM, per_second=1)
    began = world.clock.now
    bucket.acquire()
    assert (bucket.waited_s, bucket.rate_limited) == (0.0, 0)

    bucket.acquire()
    bucket.back_off(5.0)
    bucket.acquire()

    assert bucket.waited_s == pytest.approx(world.clock.now - began) == pytest.approx(1 + 5, abs=1.1)
    assert bucket.rate_limited == 1


def test_a_crashed_worker_delays_others_by_its_permits_only(tmp_path: Path) -> None:
    world = World.in_folder(tmp_path)
    dying: Any = LedgerBucket(world.ledger, burst=8 + HEADROOM, per_second=2)
    dying._book(8)  # eight threads were about to send
    other = LedgerBucket(world.ledger, burst=8 + HEADROOM, per_second=2)

    began = world.clock.now
    other.acquire()

    assert world.clock.now - began == pytest.approx(0.5, abs=0.01)


def test_an_absurd_retry_after_does_not_stop_the_account_for_decades(world: World) -> None:
    bucket = LedgerBucket(world.ledger, burst=120, per_second=2)
    bucket.back_off(999_999_999.0)
    before = world.clock.now
    bucket.acquire()
    assert 1 <= world.clock.now - before <= 600


def test_a_rate_limit_pause_is_logged_once_with_its_seconds(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    world = World.in_folder(tmp_path)
    bucket = LedgerBucket(world.ledger, burst=120, per_second=2)
    for _thread in range(8):
        bucket.back_off(7.0)
    bucket.acquire()
    bucket.back_off(3.0)
    assert [text for text in caplog.messages if "429" in text] == [
        f"KK's rate limit is reached (HTTP 429): all workers of the account pause for {seconds} s"
        for seconds in (7, 3)
    ]


# Clocks that were ahead -----------------------------------------------------------------------------


def put_ahead(ledger: SqlLedger, *, tat_s: float = 0.0, pause_s: float = 0.0) -> None:
    """Let a clock that was ahead have written the account's row."""
    now = ledger.now()
    ahead = tables.account.update().values(bucket_tat=now + tat_s, paused_until=now + pause_s)
    ledger.storage.database.persist(lambda db: db.execute(ahead))


@pytest.mark.parametrize(
    "times", [{"tat_s": 86_400.0}, {"pause_s": 86_400.0}, {"tat_s": 9e4, "pause_s": 9e4}]
)
def test_rate_limit_of_a_clock_that_was_ahead_is_bounded_and_logged_once(
    ledger: SqlLedger, times: dict[str, float], caplog: pytest.LogCaptureFixture
) -> None:
    put_ahead(ledger, **times)
    buckets = [LedgerBucket(ledger, burst=20 + HEADROOM, per_second=50) for _ in range(2)]
    assert buckets[0].min_duration_s(10) <= 1.0

    sent = []
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda place: sent.append(buckets[place % 2].acquire()), range(30)))

    assert len(sent) == 30
    assert tat(ledger) - ledger.now() < 20 / 50 + 30 / 50 + 1
    assert len([text for text in caplog.messages if "A clock was ahead" in text]) == 1


def test_pause_that_a_clock_which_is_set_back_makes_longer_is_bounded(world: World) -> None:
    bucket = LedgerBucket(world.ledger, burst=120, per_second=2)
    bucket.back_off(200.0)
    slept = world.clock.sleep

    def set_back(seconds: float, stop: object = None) -> None:
        slept(seconds)
        world.clock.now -= 86_400.0
        world.clock.sleep = slept  # type: ignore[method-assign]

    world.clock.sleep = set_back  # type: ignore[method-assign]
    before_s = world.clock.slept_s
    bucket.acquire()
    assert world.clock.slept_s - before_s <= 210


def test_pause_and_queue_within_their_rules_are_kept(world: World, caplog: pytest.LogCaptureFixture) -> None:
    bucket = LedgerBucket(world.ledger, burst=120, per_second=2)
    bucket.back_off(300.0)
    LedgerBucket(world.ledger, burst=120, per_second=2)._book(250)
    before = world.clock.now
    bucket.acquire()
    assert world.clock.now - before >= 300
    assert not [text for text in caplog.messages if "A clock was ahead" in text]


def test_long_wait_for_the_rate_limit_is_logged_with_its_reason(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    world = World.in_folder(tmp_path)
    LedgerBucket(world.ledger, burst=8 + HEADROOM, per_second=2)._book(28)
    bucket = LedgerBucket(world.ledger, burst=8 + HEADROOM, per_second=2)
    bucket.acquire()
    bucket.acquire()
    waits = [text for text in caplog.messages if "for KK's rate limit" in text]
    assert len(waits) == 1
    assert waits[0].startswith("Waiting 10 s for KK's rate limit: other requests come first")
