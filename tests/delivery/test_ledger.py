"""The ledger's transitions: who may change a row, and what a late answer does."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from airflow_provider_kk.delivery.model import (
    AttemptResult,
    Claim,
    Job,
    LedgerUnusableError,
    ListedOrder,
    Origin,
    Record,
    Timing,
)
from airflow_provider_kk.delivery.recover import Completion, add_splits
from airflow_provider_kk.delivery.resolution import order_again, resolve
from airflow_provider_kk.delivery.sql import tables
from airflow_provider_kk.delivery.sql.storage import SqlLedger, sql_ledger
from airflow_provider_kk.delivery.states import DOUBTFUL, Event, State
from tests.delivery.world import Order, World

ORIGIN = Origin("dag", "run", "task", -1, 1)


@pytest.fixture
def world(empty_world: World) -> World:
    return empty_world


@pytest.fixture
def ledger(world: World) -> SqlLedger:
    return world.ledger


@pytest.fixture
def job(world: World) -> Job:
    return world.job(Order("A"))


def begin(ledger: SqlLedger, job: Job, seen: Record | None = None) -> Claim:
    claim = ledger.claim(job, seen, origin=ORIGIN, sync_id="s")
    assert claim is not None
    return claim


def entry(ledger: SqlLedger, key: str = "A") -> Record:
    return ledger.look_up([key])[key]


def test_the_intent_is_written_before_anything_is_sent(ledger: SqlLedger, job: Job) -> None:
    begin(ledger, job)
    row = entry(ledger)
    (attempt,) = ledger.attempts(["A"])
    assert row.state is State.SENDING
    assert (row.lease_until, row.settle_after) == (ledger.now() + 120, ledger.now() + 750)
    assert (attempt.outcome, dict(attempt.content.goods), attempt.dag_id) == ("", {"SHIRT_M": 1}, "dag")


def test_only_one_of_many_workers_gets_a_new_order(ledger: SqlLedger, job: Job) -> None:
    with ThreadPoolExecutor(8) as pool:
        claims = list(pool.map(lambda _: ledger.claim(job, None, origin=ORIGIN, sync_id="s"), range(40)))
    assert sum(claim is not None for claim in claims) == 1
    assert len(ledger.attempts(["A"])) == 1


@pytest.mark.parametrize("number", ["locked", "connection timeout"])
def test_a_lost_compare_and_set_is_not_a_transient_error(
    world: World, number: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The database's error quotes the key, whatever words it has."""
    pauses: list[float] = []
    monkeypatch.setattr(time, "sleep", pauses.append)
    job = world.job(Order(number))
    assert world.ledger.claim(job, None, origin=ORIGIN, sync_id="s")
    assert world.ledger.claim(job, None, origin=ORIGIN, sync_id="s") is None
    assert pauses == []


def test_only_one_of_many_workers_takes_over_after_the_lease(ledger: SqlLedger, job: Job) -> None:
    ledger.record(begin(ledger, job), AttemptResult(Event.NOT_SENT))
    seen = entry(ledger)
    with ThreadPoolExecutor(8) as pool:
        claims = list(pool.map(lambda _: ledger.claim(job, seen, origin=ORIGIN, sync_id="s"), range(40)))
    assert sum(claim is not None for claim in claims) == 1


def test_a_row_that_moved_and_came_back_is_not_taken_over(ledger: SqlLedger, job: Job) -> None:
    ledger.record(begin(ledger, job), AttemptResult(Event.NOT_SENT))
    seen = entry(ledger)
    ledger.record(begin(ledger, job, seen), AttemptResult(Event.NOT_SENT))
    assert entry(ledger).state is seen.state
    assert ledger.claim(job, seen, origin=ORIGIN, sync_id="s") is None


@pytest.mark.parametrize("state", [State.CREATED, State.HELD])
def test_what_is_created_or_held_is_never_sent(ledger: SqlLedger, job: Job, state: State) -> None:
    ledger.record(begin(ledger, job), AttemptResult(Event.CREATED, ("1",)))
    if state is State.HELD:
        ledger.hold(entry(ledger), Event.CONFLICT, "conflict")
    with pytest.raises(ValueError, match="intent"):
        ledger.claim(job, entry(ledger), origin=ORIGIN, sync_id="s")


def test_an_order_in_doubt_waits_for_a_whole_settle_window(world: World, ledger: SqlLedger, job: Job) -> None:
    claim = begin(ledger, job)
    world.clock.sleep(500)
    ledger.record(claim, AttemptResult(Event.UNKNOWN, message="reset"))
    assert entry(ledger).state is State.IN_DOUBT
    assert entry(ledger).settle_after == ledger.now() + 600


def test_a_late_created_is_stored_though_the_row_was_taken_over(ledger: SqlLedger, job: Job) -> None:
    first = begin(ledger, job)
    second = begin(ledger, job, entry(ledger))
    ledger.record(second, AttemptResult(Event.NOT_SENT))
    row = ledger.record(first, AttemptResult(Event.CREATED, ("1",)))
    assert (row.state, row.kk_order_ids) == (State.CREATED, ("1",))


def test_duplicate_created_attempts_are_a_conflict_in_either_order(ledger: SqlLedger, job: Job) -> None:
    first = begin(ledger, job)
    second = begin(ledger, job, entry(ledger))
    assert ledger.record(first, AttemptResult(Event.CREATED, ("1",))).state is State.SENDING
    row = ledger.record(second, AttemptResult(Event.CREATED, ("2",)))
    assert (row.state, row.kk_order_ids) == (State.HELD, ("1", "2"))


def test_duplicate_created_attempts_are_a_conflict_when_the_older_one_answers_last(
    ledger: SqlLedger, job: Job
) -> None:
    first = begin(ledger, job)
    second = begin(ledger, job, entry(ledger))
    ledger.record(second, AttemptResult(Event.CREATED, ("2",)))
    row = ledger.record(first, AttemptResult(Event.CREATED, ("1",)))
    assert (row.state, set(row.kk_order_ids)) == (State.HELD, {"1", "2"})


def test_an_attempt_that_failed_leaves_the_older_ones_order_standing(ledger: SqlLedger, job: Job) -> None:
    first = begin(ledger, job)
    second = begin(ledger, job, entry(ledger))
    ledger.record(first, AttemptResult(Event.CREATED, ("1",)))
    row = ledger.record(second, AttemptResult(Event.REJECTED, code=1))
    assert (row.state, row.kk_order_ids) == (State.CREATED, ("1",))


def test_a_late_created_between_reconcile_and_resend_stops_the_resend(ledger: SqlLedger, job: Job) -> None:
    first = begin(ledger, job)
    seen = entry(ledger)
    ledger.record(first, AttemptResult(Event.CREATED, ("1",)))
    assert ledger.claim(job, seen, origin=ORIGIN, sync_id="s") is None


def test_a_conflict_stays_held_when_one_of_its_attempts_answers_once_more(
    ledger: SqlLedger, job: Job
) -> None:
    first = begin(ledger, job)
    second = begin(ledger, job, entry(ledger))
    ledger.record(first, AttemptResult(Event.CREATED, ("1",)))
    ledger.record(second, AttemptResult(Event.CREATED, ("2",)))
    assert ledger.record(first, AttemptResult(Event.CREATED, ("1",))).state is State.HELD


def test_the_answer_of_a_worker_from_before_a_restored_backup_is_stored(ledger: SqlLedger, job: Job) -> None:
    claim = begin(ledger, job)
    forget(ledger)
    row = ledger.record(claim, AttemptResult(Event.CREATED, ("1",)))
    assert (row.state, row.kk_order_ids) == (State.CREATED, ("1",))


def test_a_worker_from_before_a_restored_backup_does_not_answer_for_its_successor(
    ledger: SqlLedger, job: Job
) -> None:
    before = begin(ledger, job)
    forget(ledger)
    after = begin(ledger, job)
    assert before.attempt == after.attempt
    assert ledger.record(before, AttemptResult(Event.REJECTED, code=1)).state is State.SENDING
    assert ledger.record(before, AttemptResult(Event.CREATED, ("1",))).kk_order_ids == ("1",)
    assert ledger.record(after, AttemptResult(Event.CREATED, ("2",))).state is State.HELD


def test_backoff_of_a_rejected_order_grows_from_a_quarter_of_an_hour_to_a_day(
    ledger: SqlLedger, job: Job
) -> None:
    pauses = []
    seen = None
    for _ in range(9):
        row = ledger.record(begin(ledger, job, seen), AttemptResult(Event.REJECTED, code=1))
        pauses.append(row.retry_after - ledger.now())
        seen = entry(ledger)
    assert pauses[:3] == [900, 1800, 3600]
    assert pauses[-1] == 86_400


def test_a_new_generation_needs_a_closed_one_whose_settle_window_is_over(
    world: World, ledger: SqlLedger, job: Job
) -> None:
    claim = begin(ledger, job)
    with pytest.raises(ValueError, match="resolve it first"):
        order_again(ledger, entry(ledger), who="ann", why="customer asked")
    ledger.record(claim, AttemptResult(Event.CREATED, ("1",)))
    with pytest.raises(ValueError, match="may still list"):
        order_again(ledger, entry(ledger), who="ann", why="customer asked")
    world.clock.sleep(751)
    assert order_again(ledger, entry(ledger), who="ann", why="customer asked")
    assert [row.generation for row in ledger.generations("A")] == [1, 2]
    begin(ledger, job, entry(ledger))
    assert entry(ledger).generation == 2


def test_manual_resolution_closes_a_held_order(ledger: SqlLedger, job: Job) -> None:
    ledger.record(begin(ledger, job), AttemptResult(Event.UNKNOWN))
    ledger.hold(entry(ledger), Event.GIVEN_UP, "not in KK's list")
    row = resolve(ledger, entry(ledger), Event.RESOLVED_CREATED, ids=["9"], who="ann", why="seen at KK")
    assert row is not None
    assert (row.state, row.kk_order_ids, row.resolved_by) == (State.CREATED, ("9",), "ann: seen at KK")


def test_two_connections_share_an_account_only_when_they_say_so(world: World) -> None:
    world.ledger.storage.open("kk_default", settle_window_s=600, account_is_explicit=False)
    with pytest.raises(LedgerUnusableError, match=r"'kk_other'.*'kk_default'.*account"):
        world.ledger.storage.open("kk_other", settle_window_s=600, account_is_explicit=False)
    world.ledger.storage.open("kk_other", settle_window_s=600, account_is_explicit=True)


def other_ledger(world: World, host: str, account: str, **given: Any) -> SqlLedger:
    """The same database, as a connection sees it whose host or account has been changed."""
    engine = world.ledger.storage.database.engine
    ledger = sql_ledger(engine, host, account, timing=Timing(30, 120, 600), clock=world.clock, **given)
    database: Any = ledger.storage.database
    database.time_here = world.clock.wall
    return ledger


@pytest.mark.parametrize(("host", "account"), [("kk.test:8443", "default"), ("kk.test", "shop-1")])
def test_a_connection_keeps_its_store_while_kk_may_not_list_what_it_sent(
    world: World, job: Job, host: str, account: str
) -> None:
    claim = begin(world.ledger, job)
    with pytest.raises(LedgerUnusableError, match=r"'kk_default' was account 'default' at kk.test.*1 of the"):
        other_ledger(world, host, account).storage.open("kk_default", settle_window_s=600)

    world.ledger.record(claim, AttemptResult(Event.CREATED, ("9",)))
    world.clock.now += 590
    with pytest.raises(LedgerUnusableError, match="1 of the orders there are in doubt or were created"):
        other_ledger(world, host, account).storage.open("kk_default", settle_window_s=600)
    world.ledger.storage.open("kk_default", settle_window_s=600)

    world.clock.now += 20
    other_ledger(world, host, account).storage.open("kk_default", settle_window_s=600)


def test_another_store_by_its_own_token_or_connection_is_open_at_once(world: World, job: Job) -> None:
    begin(world.ledger, job)

    new_version = {"token_fingerprint": "another"}
    other_ledger(world, "kk.test:8443", "default", **new_version).storage.open(
        "kk_default", settle_window_s=600
    )
    other_ledger(world, "kk.test", "shop-1").storage.open("kk_outlet", settle_window_s=600)


@pytest.mark.parametrize(
    ("host", "other", "is_refused"),
    [
        ("127.0.0.1:8010", "localhost:8010", True),
        ("127.0.0.1:8010", "127.0.0.1:8011", False),
        ("[::1]:8010", "kk.test", False),
    ],
)
def test_each_port_of_this_machine_is_another_sandbox(
    world: World, job: Job, host: str, other: str, is_refused: bool
) -> None:
    ledger = other_ledger(world, host, "default")
    ledger.storage.open("kk_default", settle_window_s=600)
    begin(ledger, job)

    with pytest.raises(LedgerUnusableError) if is_refused else nullcontext():
        other_ledger(world, other, "default").storage.open("kk_default", settle_window_s=600)


def test_a_ledger_of_a_newer_version_is_not_touched(world: World) -> None:
    with world.ledger.storage.database.write() as db:
        db.execute(tables.account.update().values(schema_version=99))
    with pytest.raises(LedgerUnusableError, match="newer version"):
        world.open_ledger()


def test_a_database_that_does_not_enforce_keys_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "loose.db"
    engine = sa.create_engine(f"sqlite:///{path}")
    loose = sa.MetaData()
    for table in tables.METADATA.sorted_tables:
        columns = [sa.Column(column.name, column.type) for column in table.columns]
        sa.Table(table.name, loose, *columns)
    loose.create_all(engine)
    with pytest.raises(LedgerUnusableError, match="same primary key twice"):
        World(f"sqlite:///{path}")


def test_many_openers_at_once_create_the_tables_once(each_ledger_url: str) -> None:
    engine = sa.create_engine(each_ledger_url)
    tables.METADATA.drop_all(engine)
    engine.dispose()
    with ThreadPoolExecutor(6) as pool:
        worlds = list(pool.map(lambda _: World(each_ledger_url), range(6)))
    assert {world.ledger.storage.recovered_until() for world in worlds} == {
        worlds[0].ledger.storage.recovered_until()
    }
    for world in worlds:
        world.ledger.close()


def test_numbers_that_differ_by_case_are_two_orders(world: World) -> None:
    assert world.sync("a-1", "A-1").created == 2
    assert set(world.ledger.look_up(["a-1", "A-1", "A-2"])) == {"a-1", "A-1"}


def test_a_message_comes_back_in_any_script(ledger: SqlLedger, job: Job) -> None:
    ledger.record(begin(ledger, job), AttemptResult(Event.REJECTED, code=1, message="库存不足 🙂"))
    assert entry(ledger).message == "库存不足 🙂"


def test_the_ddl_can_be_run_by_hand(tmp_path: Path) -> None:
    import sqlite3

    with sqlite3.connect(tmp_path / "ledger.db") as db:
        db.executescript(tables.ddl("sqlite"))
    world = World.in_folder(tmp_path)
    assert world.sync("A").created == 1


def test_only_orders_in_doubt_are_reconciled_as_unknown() -> None:
    assert {State.SENDING, State.IN_DOUBT} == DOUBTFUL


def forget(ledger: SqlLedger) -> None:
    """What restoring a backup from before does."""
    with ledger.storage.database.write() as db:
        db.execute(tables.order.delete())
        db.execute(tables.attempt.delete())


def split(kk_id: str, **goods: int) -> ListedOrder:
    return ListedOrder(kk_id, "A", goods=goods)


@pytest.fixture
def created(world: World, ledger: SqlLedger) -> Record:
    """An order of which the answer has named one split."""
    job = world.job(Order("A", {"SHIRT_M": 1, "HAT": 2}))
    return ledger.record(begin(ledger, job), AttemptResult(Event.CREATED, kk_order_ids=("K1",)))


def test_a_split_within_what_was_sent_is_added(ledger: SqlLedger, created: Record) -> None:
    completion = add_splits(ledger, [split("K1", SHIRT_M=1), split("K2", HAT=2)])
    assert [one.kk_order_ids for one in completion.completed] == [("K1", "K2")]
    assert entry(ledger).state is State.CREATED
    assert add_splits(ledger, [split("K1", SHIRT_M=1), split("K2", HAT=2)]) == Completion()


def test_more_or_other_goods_than_were_sent_are_held(ledger: SqlLedger, created: Record) -> None:
    completion = add_splits(ledger, [split("K1", SHIRT_M=1), split("K2", HAT=3)])
    assert [(one.state, one.kk_order_ids) for one in completion.held] == [(State.HELD, ("K1", "K2"))]
    assert add_splits(ledger, [split("K1", SHIRT_M=1), split("K3", HAT=1)]) == Completion()


def test_what_was_cancelled_counts_where_it_fits_and_is_no_surplus(
    ledger: SqlLedger, created: Record
) -> None:
    surplus = ListedOrder("K3", "A", goods={"SHIRT_M": 1, "HAT": 2}, is_cancelled=True)
    assert add_splits(ledger, [split("K1", SHIRT_M=1), surplus]) == Completion()
    completion = add_splits(ledger, [split("K1", SHIRT_M=1), split("K2", HAT=2), surplus])
    assert [one.kk_order_ids for one in completion.completed] == [("K1", "K2")]
    completion = add_splits(ledger, [split("K1", SHIRT_M=1), split("K2", HAT=2), split("K4", HAT=1), surplus])
    assert [one.kk_order_ids for one in completion.held] == [("K1", "K2", "K4")]


def test_what_cannot_be_added_up_decides_nothing(ledger: SqlLedger, created: Record) -> None:
    assert add_splits(ledger, [split("K2", HAT=2)]) == Completion()
    unreadable = ListedOrder("K2", "A", goods=None)
    assert add_splits(ledger, [split("K1", SHIRT_M=1), unreadable]) == Completion()
    assert entry(ledger) == created


def test_a_split_of_an_older_generation_and_a_manual_resolution_stand(
    ledger: SqlLedger, created: Record
) -> None:
    held = add_splits(ledger, [split("K1", SHIRT_M=1), split("K2", HAT=9)]).held[0]
    resolve(ledger, held, Event.RESOLVED_CREATED, ids=["K1"], who="me", why="K2 is another shop's")
    assert add_splits(ledger, [split("K1", SHIRT_M=1), split("K2", HAT=9)]) == Completion()
    assert entry(ledger).kk_order_ids == ("K1",)


def test_a_look_up_takes_any_number_of_keys(world: World) -> None:
    world.sync("A")
    assert list(world.ledger.look_up([f"K{n}" for n in range(100_000)] + ["A"])) == ["A"]
