"""Where MySQL and MariaDB go ways of their own."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import pymysql
import pytest
import sqlalchemy as sa
from sqlalchemy.exc import DataError, OperationalError

from airflow_provider_kk.delivery.model import AttemptResult, ListedOrder, Origin
from airflow_provider_kk.delivery.recover import adopt_unknown, rename
from airflow_provider_kk.delivery.resolution import order_again
from airflow_provider_kk.delivery.sql import tables
from airflow_provider_kk.delivery.sql.bucket import LedgerBucket
from airflow_provider_kk.delivery.sql.database import pool_arguments
from airflow_provider_kk.delivery.sql.storage import sql_ledger
from airflow_provider_kk.delivery.states import Event, State
from airflow_provider_kk.sync.sync_counts import SyncRuns
from tests.delivery.conftest import empty_tables
from tests.delivery.world import Order, World
from tests.mariadb import locked, server_set

ORIGIN = Origin("dag", "run", "task", -1, 1)


@pytest.fixture
def world(mariadb_url: str) -> Iterator[World]:
    world = World(mariadb_url)
    yield world
    world.ledger.close()
    empty_tables(mariadb_url)


def send(world: World, *keys: str) -> None:
    for key in keys:
        world.ledger.claim(world.job(Order(key)), None, origin=ORIGIN, sync_id="s")


def test_openers_of_a_new_ledger_do_not_wait_for_each_other_in_a_circle(world: World) -> None:
    """Rivals for a key that one of them gives up all get the lock to read it, and none that to write."""
    check = world.ledger.storage.database.require_unique_keys
    with ThreadPoolExecutor(8) as pool:
        for checked in [pool.submit(check) for _ in range(160)]:
            checked.result()


def test_a_killed_statement_is_retried(world: World) -> None:
    send(world, "A")
    engine = world.ledger.storage.database.engine
    tries = []

    def kill(number: int) -> None:
        with engine.connect() as other:
            other.exec_driver_sql(f"KILL QUERY {number}")

    def work(tx: Any) -> None:
        tries.append(tx)
        if len(tries) == 1:
            own = tx._db.exec_driver_sql("SELECT connection_id()").scalar_one()
            threading.Timer(0.1, kill, [own]).start()
            tx._db.exec_driver_sql("SELECT sleep(30) FROM kk_order")
        tx.overwrite(tx.lock("A", 1), {"message": "after all"})

    world.ledger.storage.persist(work)

    assert len(tries) == 2
    assert world.entry("A").message == "after all"


def test_an_opener_that_is_cut_off_goes_on_and_leaves_no_index_out(mariadb_url: str) -> None:
    """Each statement that creates something is a transaction of its own."""
    server = sa.create_engine(mariadb_url)
    tables.METADATA.drop_all(server)
    engine = sa.create_engine(mariadb_url, **pool_arguments("mysql", 2))
    cut = ["CREATE TABLE kk_order ", "CREATE TABLE kk_sync_run ", "CREATE TABLE kk_account "]

    @sa.event.listens_for(engine, "after_cursor_execute")
    def cut_off(db: Any, _cursor: Any, statement: str, *_: Any) -> None:
        if cut and statement.lstrip().startswith(cut[0]):
            del cut[0]
            own = db.exec_driver_sql("SELECT connection_id()").scalar_one()
            with server.connect() as other:
                other.exec_driver_sql(f"KILL {own}")

    ledger = sql_ledger(engine, "kk.test", "cut off")
    ledger.storage.open("kk_default", settle_window_s=600)
    ledger.close()

    assert cut == []
    found = sa.inspect(server)
    for table in tables.METADATA.sorted_tables:
        names = {index["name"] for index in found.get_indexes(table.name)}
        assert names == {index.name for index in table.indexes}
    server.dispose()
    empty_tables(mariadb_url)


@pytest.mark.parametrize("zone", ["SYSTEM", "+05:45"])
def test_the_servers_clock_is_an_epoch_whatever_its_time_zone(mariadb_url: str, zone: str) -> None:
    with server_set(mariadb_url, "time_zone", zone):
        ledger = sql_ledger(sa.create_engine(mariadb_url, **pool_arguments("mysql", 2)), "kk.test", "clock")
        times = [ledger.now() for _ in range(9)]
        ledger.close()
    assert times == sorted(set(times)), "whole seconds"
    assert abs(times[0] - time.time()) < 60


def test_a_transaction_sees_what_others_commit_meanwhile(world: World) -> None:
    send(world, "A")
    rival = world.open_ledger()

    def work(tx: Any) -> None:
        seen = tx.read("A", 1)
        assert rival.storage.transact(
            lambda other: other.change(seen, {"version": "another", "message": "moved"})
        )
        assert tx.read("A", 1).message == "moved"
        assert tx.change(seen, {"message": "too late"}) is None

    world.ledger.storage.transact(work)
    rival.close()


def test_a_deadlock_is_retried(world: World) -> None:
    send(world, "A", "B")
    both_hold_one = threading.Barrier(2, timeout=300)
    tries: list[str] = []

    def take(first: str, second: str) -> None:
        def work(tx: Any) -> None:
            is_first_try = first not in tries
            tries.append(first)
            tx.lock(first, 1)
            if is_first_try:
                both_hold_one.wait()
            tx.overwrite(tx.lock(second, 1), {"message": f"{first} was here"})

        world.ledger.storage.persist(work)

    threads = [threading.Thread(target=take, args=keys) for keys in (("A", "B"), ("B", "A"))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(tries) == 3
    assert [world.entry(key).message for key in "AB"] == ["B was here", "A was here"]


def test_a_row_that_is_locked_for_long_is_waited_for(world: World, mariadb_url: str) -> None:
    send(world, "A")
    with server_set(mariadb_url, "innodb_lock_wait_timeout", 1):
        impatient = world.open_ledger()
        tries = []

        def work(tx: Any) -> None:
            tries.append(time.monotonic())
            if len(tries) == 2:
                held.rollback()
            tx.overwrite(tx.lock("A", 1), {"message": "mine"})

        with world.ledger.storage.database.engine.connect() as holder:
            held = holder.begin()
            holder.exec_driver_sql("SELECT * FROM kk_order FOR UPDATE")
            impatient.storage.persist(work)
        impatient.close()
    assert len(tries) == 2
    assert world.entry("A").message == "mine"


def test_a_lost_connection_is_made_again(world: World) -> None:
    send(world, "A")
    engine = world.ledger.storage.database.engine
    tries = []

    def work(tx: Any) -> None:
        tries.append(tx)
        if len(tries) == 1:
            own = tx._db.exec_driver_sql("SELECT connection_id()").scalar_one()
            with engine.connect() as other:
                other.exec_driver_sql(f"KILL {own}")
        tx.overwrite(tx.lock("A", 1), {"message": "after all"})

    world.ledger.storage.persist(work)

    assert len(tries) == 2
    assert world.entry("A").message == "after all"


@pytest.mark.parametrize(
    ("table", "change"),
    [
        ("kk_account", lambda world, ledger: LedgerBucket(ledger, burst=120, per_second=2).acquire()),
        ("kk_account", lambda world, ledger: LedgerBucket(ledger, burst=120, per_second=2).back_off(1)),
        ("kk_account", lambda world, ledger: ledger.storage.set_recovered_until(world.clock.wall())),
        ("kk_sync_run", lambda world, ledger: SyncRuns(ledger).begin(Origin("new", "run", "task", -1, 1))),
        ("kk_sync_run", lambda world, ledger: SyncRuns(ledger).begin(ORIGIN)),
        (
            "kk_order",
            lambda world, ledger: adopt_unknown(ledger, [ListedOrder("1", "B", goods={"SHIRT_M": 1})]),
        ),
        ("kk_order", lambda world, ledger: ledger.hold(world.entry("A"), Event.GIVEN_UP, "why")),
        ("kk_order", lambda world, ledger: rename(ledger, world.entry("A"), "0A")),
        ("kk_order", lambda world, ledger: order_again(ledger, world.entry("C"), who="ann", why="lost")),
    ],
)
def test_no_write_fails_for_the_lock_of_another_session(
    world: World, mariadb_url: str, monkeypatch: pytest.MonkeyPatch, table: str, change: Any
) -> None:
    send(world, "A", "C")
    seen = world.entry("C")
    world.clock.sleep(1_000)
    assert world.ledger.adopt(seen, world.ledger.attempts(["C"])[0], ["7"])
    SyncRuns(world.ledger).begin(ORIGIN)
    with server_set(mariadb_url, "innodb_lock_wait_timeout", 0):
        ledger = world.open_ledger()
        ledger.now()
    with locked(mariadb_url, monkeypatch, table) as pauses:
        change(world, ledger)
    ledger.close()
    assert len(pauses) == 1


@pytest.mark.parametrize(
    "word",
    [
        (2002, "Can't connect to server on '127.0.0.1' (115)"),
        (2003, "Can't connect to MySQL server on 'ledger' (timed out)"),
        (2005, "Unknown server host 'ledger' (-2)"),
    ],
)
def test_an_unreachable_server_is_waited_for_with_every_driver(
    world: World, monkeypatch: pytest.MonkeyPatch, word: tuple[int, str]
) -> None:
    claim = world.ledger.claim(world.job(Order("A")), None, origin=ORIGIN, sync_id="s")
    assert claim is not None
    pauses: list[float] = []
    monkeypatch.setattr(time, "sleep", pauses.append)
    engine = world.ledger.storage.database.engine
    engine.dispose()

    @sa.event.listens_for(engine, "do_connect")
    def refuse(*_: Any) -> None:
        if len(pauses) < 2:
            raise pymysql.err.OperationalError(*word)

    assert world.ledger.record(claim, AttemptResult(Event.CREATED, ("1",))).state is State.CREATED
    assert len(pauses) == 2


@pytest.mark.parametrize("is_new", [True, False])
def test_an_intent_whose_commit_comes_through_late_is_this_workers_own(
    world: World, monkeypatch: pytest.MonkeyPatch, is_new: bool
) -> None:
    """As when a proxy dies while the server waits for its replica: only the server knows, and only later."""
    seen, job, database = None, world.job(Order("A")), world.ledger.storage.database
    if not is_new:
        claim = world.ledger.claim(job, None, origin=ORIGIN, sync_id="s")
        assert claim is not None
        seen = world.ledger.record(claim, AttemptResult(Event.NOT_SENT))
    write = database.write

    @contextmanager
    def write_and_lose_the_connection() -> Iterator[Any]:
        monkeypatch.setattr(database, "write", write)
        db = database.engine.connect()
        transaction = db.begin()
        yield db
        threading.Timer(0.4, lambda: (transaction.commit(), db.close())).start()
        raise OperationalError("COMMIT", {}, pymysql.err.OperationalError(2013, "Lost connection"))

    monkeypatch.setattr(database, "write", write_and_lose_the_connection)
    claim = world.ledger.claim(job, seen, origin=ORIGIN, sync_id="s")

    assert claim is not None
    assert claim.entry == world.entry("A")
    assert len(world.ledger.attempts(["A"])) == (1 if is_new else 2)


def test_what_is_too_long_is_an_error_on_a_lax_server_too(world: World, mariadb_url: str) -> None:
    huge = Order("A", {f"SKU-{n:08d}": 1 for n in range(5_000)})
    with server_set(mariadb_url, "sql_mode", ""):
        ledger = world.open_ledger()
        with pytest.raises(DataError):
            ledger.claim(world.job(huge), None, origin=ORIGIN, sync_id="s")
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
    claim = world.ledger.claim(world.job(Order("A")), None, origin=ORIGIN, sync_id="s")
    assert claim is not None
    for _ in range(2):
        assert world.ledger.record(claim, AttemptResult(Event.CREATED, ("1",))).state is State.CREATED
    (attempt,) = world.ledger.attempts(["A"])
    assert (attempt.outcome, world.entry("A").kk_order_ids) == ("created", ("1",))
