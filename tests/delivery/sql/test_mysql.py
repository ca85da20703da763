"""Where MySQL and MariaDB go ways of their own."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.exc import DataError

from airflow_provider_kk.delivery.rows import Answer, Origin
from airflow_provider_kk.delivery.sql import tables
from airflow_provider_kk.delivery.sql.database import pool_arguments
from airflow_provider_kk.delivery.sql.ledger import SqlLedger
from airflow_provider_kk.delivery.states import Event, State
from tests.delivery.conftest import empty_tables
from tests.delivery.world import Order, World

ORIGIN = Origin("dag", "run", "task", -1, 1)


@pytest.fixture
def world(mariadb_url: str) -> Iterator[World]:
    world = World(mariadb_url)
    yield world
    world.ledger.close()
    empty_tables(mariadb_url)


@contextmanager
def server_set(url: str, name: str, value: object) -> Iterator[None]:
    """A setting of the server's that sessions from now on have."""
    engine = sa.create_engine(url)
    with engine.connect() as db:
        before = db.exec_driver_sql(f"SELECT @@global.{name}").scalar_one()
        db.exec_driver_sql(f"SET GLOBAL {name} = %s", (value,))
        yield
        db.exec_driver_sql(f"SET GLOBAL {name} = %s", (before,))
    engine.dispose()


def send(world: World, *keys: str) -> None:
    for key in keys:
        world.ledger.begin(world.job(Order(key)), None, origin=ORIGIN, sync_id="s")


def test_openers_of_a_new_ledger_do_not_wait_for_each_other_in_a_circle(world: World) -> None:
    """Rivals for a key that one of them gives up all get the lock to read it, and none that to write."""
    check = world.ledger.database.require_unique_keys
    with ThreadPoolExecutor(8) as pool:
        for checked in [pool.submit(check) for _ in range(160)]:
            checked.result()


@pytest.mark.parametrize("zone", ["SYSTEM", "+05:45"])
def test_the_servers_clock_is_an_epoch_whatever_its_time_zone(mariadb_url: str, zone: str) -> None:
    with server_set(mariadb_url, "time_zone", zone):
        ledger = SqlLedger(sa.create_engine(mariadb_url, **pool_arguments("mysql", 2)), "kk.test", "clock")
        times = [ledger.now() for _ in range(9)]
        ledger.close()
    assert times == sorted(set(times)), "whole seconds"
    assert abs(times[0] - time.time()) < 60


def test_a_transaction_sees_what_others_commit_meanwhile(world: World) -> None:
    send(world, "A")
    rival = world.open_ledger()
    with world.ledger.write() as tx:
        seen = tx.read("A", 1)
        assert seen is not None
        with rival.write() as other:
            assert other.change(seen, {"claim_token": "another", "message": "moved"})
        now = tx.read("A", 1)
        assert now is not None
        assert now.message == "moved"
        assert tx.change(seen, {"message": "too late"}) is None
    rival.close()


def test_what_the_server_gave_up_for_a_deadlock_is_done_again(world: World) -> None:
    send(world, "A", "B")
    both_hold_one = threading.Barrier(2, timeout=30)
    tries: list[str] = []

    def take(first: str, second: str) -> None:
        def work(tx: Any) -> None:
            is_first_try = first not in tries
            tries.append(first)
            tx.lock(first, 1)
            if is_first_try:
                both_hold_one.wait()
            tx.overwrite(tx.lock(second, 1), {"message": f"{first} was here"})

        world.ledger.persist(work)

    threads = [threading.Thread(target=take, args=keys) for keys in (("A", "B"), ("B", "A"))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(tries) == 3
    assert [world.entry(key).message for key in "AB"] == ["B was here", "A was here"]


def test_a_row_that_somebody_else_holds_for_long_is_waited_for(world: World, mariadb_url: str) -> None:
    send(world, "A")
    with server_set(mariadb_url, "innodb_lock_wait_timeout", 1):
        impatient = world.open_ledger()
        tries = []

        def work(tx: Any) -> None:
            tries.append(time.monotonic())
            if len(tries) == 2:
                held.rollback()
            tx.overwrite(tx.lock("A", 1), {"message": "mine"})

        with world.ledger.database.engine.connect() as holder:
            held = holder.begin()
            holder.exec_driver_sql("SELECT * FROM kk_order FOR UPDATE")
            impatient.persist(work)
        impatient.close()
    assert len(tries) == 2
    assert world.entry("A").message == "mine"


def test_a_lost_connection_is_made_again(world: World) -> None:
    send(world, "A")
    engine = world.ledger.database.engine
    tries = []

    def work(tx: Any) -> None:
        tries.append(tx)
        if len(tries) == 1:
            own = tx._db.exec_driver_sql("SELECT connection_id()").scalar_one()
            with engine.connect() as other:
                other.exec_driver_sql(f"KILL {own}")
        tx.overwrite(tx.lock("A", 1), {"message": "after all"})

    world.ledger.persist(work)

    assert len(tries) == 2
    assert world.entry("A").message == "after all"


def test_what_is_too_long_is_an_error_on_a_lax_server_too(world: World, mariadb_url: str) -> None:
    huge = Order("A", {f"SKU-{n:08d}": 1 for n in range(5_000)})
    with server_set(mariadb_url, "sql_mode", ""):
        ledger = world.open_ledger()
        with pytest.raises(DataError):
            ledger.begin(world.job(huge), None, origin=ORIGIN, sync_id="s")
        ledger.close()
    assert world.ledger.look_up(["A"]) == {}


def test_the_ddl_can_be_run_by_hand(mariadb_url: str) -> None:
    engine = sa.create_engine(mariadb_url)
    tables.METADATA.drop_all(engine)
    with engine.begin() as db:
        for statement in filter(None, tables.ddl("mysql").split(";\n")):
            db.exec_driver_sql(statement)
    engine.dispose()
    world = World(mariadb_url)
    assert world.sync("A").created == 1
    world.ledger.close()
    empty_tables(mariadb_url)


def test_the_same_answer_twice_is_one_answer(world: World) -> None:
    """A row that is found but not changed counts as found."""
    claim = world.ledger.begin(world.job(Order("A")), None, origin=ORIGIN, sync_id="s")
    assert claim is not None
    for _ in range(2):
        assert world.ledger.record(claim, Answer(Event.CREATED, ("1",))).state is State.CREATED
    (attempt,) = world.ledger.attempts(["A"])
    assert (attempt.outcome, world.entry("A").kk_order_ids) == ("created", ("1",))
