"""Cases in which two things go wrong at once, each found by trying to lose or double an order."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest
import sqlalchemy as sa

from airflow_provider_kk.api.errors import KKRateLimitedError
from airflow_provider_kk.api.throttle import ThrottleStopped
from airflow_provider_kk.delivery import tables
from airflow_provider_kk.delivery.board import Board, Item, Status
from airflow_provider_kk.delivery.bucket import LedgerBucket
from airflow_provider_kk.delivery.clock import Stop
from airflow_provider_kk.delivery.job import LastCheck, Sighting
from airflow_provider_kk.delivery.rows import Answer, Origin
from airflow_provider_kk.delivery.runs import SyncRuns, summarise
from airflow_provider_kk.delivery.states import Event, State
from airflow_provider_kk.delivery.stream import Limits, Stream
from tests.delivery.world import LOG, Free, Order, World, counts

ORIGIN = Origin("dag", "run", "task", -1, 1)
TABLES = (tables.account, tables.order, tables.attempt, tables.sync_run)


@pytest.fixture
def world(empty_world: World) -> World:
    empty_world.sync("known")
    empty_world.clock.sleep(3600)
    return empty_world


def backup(world: World) -> list[list[dict[str, Any]]]:
    with world.ledger.database.read() as db:
        return [[dict(row._mapping) for row in db.execute(sa.select(table))] for table in TABLES]


def restore(world: World, rows: list[list[dict[str, Any]]]) -> None:
    with world.ledger.database.write() as db:
        for table, saved in zip(TABLES, rows, strict=True):
            db.execute(table.delete())
            if saved:
                db.execute(table.insert(), saved)


def stream_over(
    world: World,
    *orders: Order,
    stop: Stop | None = None,
    throttle: Any = None,
    make_job: Callable[[str], Any] | None = None,
    in_flight: int = 1,
) -> tuple[Stream, Board, SyncRuns, Any]:
    by_key = {order.key: order for order in orders}
    board, runs = Board(), SyncRuns(world.ledger)
    board.add(Item(n, o.key, o.fingerprint(), o.goods, o.country, "", o.key) for n, o in enumerate(orders))
    run = runs.begin(ORIGIN)
    stream = Stream(
        ledger=world.ledger,
        finder=world.kk,
        throttle=throttle or Free(),
        board=board,
        make_job=make_job or (lambda key: world.job(by_key[key])),
        probe=lambda: None,
        log=LOG,
        origin=ORIGIN,
        sync_id=run.sync_id,
        stop=stop or Stop(),
        limits=Limits(in_flight),
    )
    return stream, board, runs, run


# Two workers ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("meanwhile", ["lost_answer", "fine"])
def test_a_late_429_does_not_resend_what_another_worker_sent_meanwhile(world: World, meanwhile: str) -> None:
    post, is_first = world.kk.post, [True]

    def slow_429(order: Order, last_check: LastCheck) -> list[str]:
        if not is_first.pop() if is_first else True:
            return post(order, last_check)
        world.clock.sleep(800)
        world.kk.meets("A", meanwhile)
        world.sync("A", waits=False)
        raise KKRateLimitedError("429")

    world.kk.post = slow_429  # type: ignore[method-assign]
    world.sync("A")
    assert world.kk.count("A") == 1


def test_ordering_again_and_sending_the_old_generation_exclude_each_other(world: World) -> None:
    world.kk.meets("A", "refused")
    world.sync("A")
    world.clock.sleep(3600)
    seen = world.entry("A")
    assert world.ledger.order_again(seen, who="ann", why="asked")
    assert world.ledger.begin(world.job(Order("A")), seen, origin=ORIGIN, sync_id="s") is None


def test_sending_the_old_generation_and_ordering_again_exclude_each_other(world: World) -> None:
    world.kk.meets("A", "refused")
    world.sync("A")
    world.clock.sleep(3600)
    seen = world.entry("A")
    assert world.ledger.begin(world.job(Order("A")), seen, origin=ORIGIN, sync_id="s")
    assert not world.ledger.order_again(seen, who="ann", why="asked")


def test_nobody_says_never_created_while_kk_may_still_show_it(world: World) -> None:
    world.kk.list_lag_s = 300
    world.kk.meets("A", "lost_answer")
    world.sync("A", waits=False)
    with pytest.raises(ValueError, match="may still turn up"):
        world.ledger.resolve(world.entry("A"), Event.DECLARED_NEVER, who="ann", why="not on the site")


def test_a_late_created_of_old_content_is_told_as_changed(world: World) -> None:
    old, new = Order("A", {"S": 1}), Order("A", {"S": 5})
    first = world.ledger.begin(world.job(old), None, origin=ORIGIN, sync_id="s")
    assert first is not None
    second = world.ledger.begin(world.job(new), world.entry("A"), origin=ORIGIN, sync_id="s")
    assert second is not None
    world.ledger.record(second, Answer(Event.NOT_SENT))
    world.kk.add(old)
    world.ledger.record(first, Answer(Event.CREATED, ("1",)))
    assert counts(world.sync(new)) == {"changed": 1}


# A restored ledger ---------------------------------------------------------------------------------


@pytest.mark.parametrize("fault", ["lost_request", "refused"])
def test_a_resend_that_a_restored_ledger_has_forgotten_is_found(world: World, fault: str) -> None:
    world.kk.meets("A", fault)
    world.sync("A", waits=False)
    saved = backup(world)
    world.clock.sleep(7200)
    world.sync("A")
    world.clock.sleep(600)
    restore(world, saved)
    world.sync("A")
    assert world.kk.count("A") == 1


def test_a_restored_ledger_finds_the_second_generation(world: World) -> None:
    world.sync("A")
    world.clock.sleep(3600)
    world.ledger.order_again(world.entry("A"), who="ann", why="asked")
    saved = backup(world)
    world.sync("A")
    world.clock.sleep(3600)
    restore(world, saved)
    world.sync("A")
    assert world.kk.count("A") == 2


def test_a_row_that_vanishes_while_a_sync_waits_is_not_sent_again(world: World) -> None:
    world.kk.meets("A", "lost_answer")
    sleep = world.clock.sleep

    def sleep_and_lose(seconds: float, stop: object = None) -> None:
        sleep(seconds)
        if seconds > 100:
            with world.ledger.database.write() as db:
                db.execute(tables.order.delete().where(tables.order.c.custom_order_number == "A"))

    world.clock.sleep = sleep_and_lose  # type: ignore[method-assign]
    assert counts(world.sync("A")) == {"in_doubt": 1}
    world.clock.sleep = sleep  # type: ignore[method-assign]
    world.sync("A")
    assert world.kk.count("A") == 1


def test_a_restored_ledger_knows_a_number_that_kk_lists_without_its_zeros(world: World) -> None:
    list_integers(world)
    saved = backup(world)
    world.sync("007")
    world.clock.sleep(3600)
    restore(world, saved)
    assert counts(world.sync("007")) == {"already_created": 1}
    assert world.kk.count("007") == 1


@pytest.mark.parametrize("before", ["not_sent", "invalid"])
def test_a_restored_ledger_finds_what_was_not_sent_before_under_an_integer(world: World, before: str) -> None:
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


def test_a_restored_ledger_tells_of_an_order_under_an_integer_that_was_changed_meanwhile(
    world: World,
) -> None:
    list_integers(world)
    saved = backup(world)
    world.sync("007")
    world.clock.sleep(3600)
    restore(world, saved)
    assert counts(world.sync(Order("007", {"SHIRT_M": 1}, "DE"))) == {"changed": 1}


def test_a_restored_ledger_gets_all_splits_that_two_slices_of_the_list_show(world: World) -> None:
    split = Order("A", {"S": 1, "T": 2})
    world.kk.meets("A", "never_left")
    world.sync(split)
    saved = backup(world)
    world.kk.split = True
    world.sync(split)
    world.clock.sleep(3600)
    restore(world, saved)
    find = world.kk.find

    def one_by_one(since: float, until: float, keys: Any) -> Iterator[list[Sighting]]:
        for part in find(since, until, keys):
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


# Clocks --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("off_s", [-3600.0, 3600.0])
def test_a_database_clock_that_is_an_hour_off_doubles_nothing(world: World, off_s: float) -> None:
    database: Any = world.ledger.database
    database.time_here = lambda: world.clock.wall() + off_s
    world.sync("B")
    world.clock.sleep(3600)
    world.kk.meets("A", "lost_answer")
    world.sync("A", waits=False)
    world.clock.sleep(4000)
    world.sync("C")
    world.clock.sleep(3600)
    world.sync("A")
    assert world.kk.count("A") == 1


def test_a_database_clock_that_is_set_right_while_an_order_is_in_doubt_doubles_nothing(world: World) -> None:
    database: Any = world.ledger.database
    time_here = database.time_here
    database.time_here = lambda: world.clock.wall() - 3600
    world.kk.list_lag_s = 300.0
    world.kk.meets("A", "lost_answer")
    world.sync("A", waits=False)
    database.time_here = time_here
    world.sync("A", waits=False)
    world.clock.sleep(7200)
    world.sync("A")
    assert world.kk.count("A") == 1


def test_a_kk_clock_that_is_corrected_between_sending_and_settling_doubles_nothing(world: World) -> None:
    world.kk.clock_skew_s = 3600.0
    world.kk.meets("A", "lost_answer")
    world.sync("A", waits=False)
    world.kk.clock_skew_s = 0.0
    world.clock.sleep(7200)
    world.sync("A")
    assert world.kk.count("A") == 1


def test_one_wrong_date_does_not_blind_healing(world: World) -> None:
    world.kk.clock_skew_s = 86_400.0
    world.sync("B")
    world.kk.clock_skew_s = 0.0
    world.clock.sleep(3600)
    world.kk.add(Order("A"))
    world.clock.sleep(3600)
    world.sync("A")
    assert "A" not in world.kk.posts


@pytest.mark.parametrize("off_s", [-3600.0, 3600.0])
def test_a_database_clock_that_is_an_hour_off_stops_nobody(world: World, off_s: float) -> None:
    database: Any = world.ledger.database
    database.time_here = lambda: world.clock.wall() + off_s
    for key in ("B", "C", "D"):
        world.sync(key)
    world.clock.sleep(3 * 3600)
    assert counts(world.sync("E")) == {"created": 1}


def test_answers_that_were_recorded_late_stop_nobody(empty_world: World) -> None:
    world = empty_world
    for key in ("A", "B", "C"):
        claim = world.ledger.begin(world.job(Order(key)), None, origin=ORIGIN, sync_id="s")
        assert claim is not None
        ids = world.kk.add(Order(key))
        world.clock.sleep(900)
        world.ledger.record(claim, Answer(Event.CREATED, tuple(ids)))
    world.clock.sleep(3600)
    assert counts(world.sync("D")) == {"created": 1}


# Lists that mislead --------------------------------------------------------------------------------


def test_a_refused_order_is_not_asked_again_over_another_stores_list(world: World) -> None:
    world.kk.meets("A", "refused")
    world.sync("A")
    world.clock.sleep(3600)
    world.ledger.set_healed_until(world.clock.now)
    world.kk.orders = []
    stream, _board, _, _ = stream_over(world, Order("A"))
    stream.heal_max_age_s = 3600.0
    stream.run()
    stream.look_again()
    stream.close()
    assert world.kk.posts.count("A") == 1


def test_an_id_that_kk_has_given_and_does_not_list_is_a_conflict(world: World) -> None:
    job = world.job(Order("A"))
    first = world.ledger.begin(job, None, origin=ORIGIN, sync_id="s")
    world.clock.sleep(800)
    second = world.ledger.begin(job, world.entry("A"), origin=ORIGIN, sync_id="s")
    assert first is not None
    assert second is not None
    world.kk.add(Order("A"))
    world.ledger.record(second, Answer(Event.UNKNOWN))
    world.ledger.record(first, Answer(Event.CREATED, ("9999",)))
    world.clock.sleep(800)
    assert counts(world.sync("A")) == {"held": 1}


def test_an_order_made_by_hand_later_does_not_keep_a_refused_one_for_ever(world: World) -> None:
    world.kk.meets("A", "refused")
    world.sync("A")
    world.clock.sleep(7200)
    world.kk.add(Order("by hand"), key=None)
    world.clock.sleep(90_000)
    assert counts(world.sync("A")) == {"created": 1}


def test_another_stores_list_is_no_control_though_healing_took_it_in(world: World) -> None:
    world.kk.meets("A", "lost_answer")
    world.sync("A", waits=False)
    world.clock.sleep(800)
    world.kk.orders = []
    world.kk.add(Order("theirs"), at=world.clock.now - 100)
    world.sync("A")
    assert world.kk.count("A") == 1


def test_a_list_with_numbers_of_kks_own_is_no_control(world: World) -> None:
    listed = world.kk.find

    def find(since: float, until: float, keys: Any) -> Iterator[list[Sighting]]:
        for part in listed(since, until, keys):
            yield [replace(one, key=f"KK{one.id}") for one in part]

    world.kk.find = find  # type: ignore[method-assign]
    world.kk.meets("A", "lost_answer")
    world.sync("A")
    assert world.kk.count("A") == 1


def test_healing_knows_a_number_that_kk_turned_into_an_integer(world: World) -> None:
    world.kk.orders.append(Sighting("77", "123", True, {"SHIRT_M": 1}, "FR", created_at=world.clock.now))
    assert counts(world.sync("00123")) == {"already_created": 1}
    assert "00123" not in world.kk.posts
    assert world.entry("00123").kk_order_ids == ("77",)


def list_integers(world: World) -> None:
    """Let KK list numbers that look like integers as such."""
    listed = world.kk.find

    def find(since: float, until: float, keys: Any) -> Iterator[list[Sighting]]:
        for part in listed(since, until, keys):
            yield [
                replace(one, key=str(int(one.key)), key_is_integer=True)
                if one.key is not None and one.key.isdigit()
                else one
                for one in part
            ]

    world.kk.find = find  # type: ignore[method-assign]


def test_an_order_with_zeros_before_it_does_not_stand_for_one_without(world: World) -> None:
    list_integers(world)
    world.sync("007")
    world.clock.sleep(60)
    assert counts(world.sync("7", "007")) == {"created": 1, "already_created": 1}


def test_one_integer_for_two_orders_in_doubt_is_left_to_a_human(world: World) -> None:
    list_integers(world)
    world.kk.meets("7", "lost_answer")
    world.kk.meets("007", "lost_request")
    assert counts(world.sync("7", "007")) == {"held": 2}


def test_a_number_that_kk_lists_as_text_stands_for_no_other(world: World) -> None:
    world.kk.add(Order("7"))
    assert counts(world.sync("007")) == {"created": 1}


def test_a_human_says_that_a_listed_order_is_another_ones(world: World) -> None:
    list_integers(world)
    world.kk.meets("7", "lost_answer")
    world.kk.meets("007", "lost_request")
    world.sync("7", "007")
    (listed,) = {one.id for one in world.kk.orders if one.key == "7"}
    seen = world.ledger.hold(world.entry("007"), Event.CONFLICT, "listed as 7", [listed])
    assert seen is not None
    with pytest.raises(ValueError, match=f"KK has {listed}"):
        world.ledger.resolve(seen, Event.DECLARED_NEVER, who="ann", why="that is 7")
    row = world.ledger.resolve(seen, Event.DECLARED_NEVER, ids=[listed], who="ann", why="that is 7")
    assert row is not None
    assert (row.state, row.kk_order_ids) == (State.NOT_SENT, ())


def test_a_list_that_shows_what_is_known_only_later_is_read_again(world: World) -> None:
    listed, answers = world.kk.find, iter([False])

    def find(since: float, until: float, keys: Any) -> Iterator[list[Sighting]]:
        if next(answers, True):
            yield from listed(since, until, keys)
        else:
            yield []

    world.kk.meets("A", "lost_answer")
    world.sync("A", waits=False)
    world.clock.sleep(7200)
    world.kk.find = find  # type: ignore[method-assign]
    world.ledger.set_healed_until(world.clock.now)
    stream, _board, _, _ = stream_over(world, Order("A"))
    stream.heal_max_age_s = 3600.0
    stream.run()
    stream.close()
    assert world.kk.count("A") == 1
    assert world.entry("A").state is State.CREATED


def test_the_rest_of_a_split_is_not_taken_for_the_order_made_again(world: World) -> None:
    world.kk.split = True
    split = Order("A", {"S": 1, "T": 2})
    post = world.kk.post
    world.kk.post = lambda order, check: post(order, check)[:1]  # type: ignore[method-assign]
    world.sync(split)
    world.clock.sleep(3600)
    there = [one.id for one in world.kk.orders if one.key == "A"]
    assert world.ledger.order_again(world.entry("A"), ids=there, who="ann", why="asked")
    assert counts(world.sync(split)) == {"created": 1}
    assert world.kk.count("A") == 2


def test_one_kk_order_is_never_taken_for_two_numbers(world: World) -> None:
    add = world.kk.add

    def add_as_integer(order: Order, **options: Any) -> list[str]:
        ids = add(order, **options)
        last = world.kk.orders[-1]
        if last.key is not None and last.key.isdigit():
            world.kk.orders[-1] = replace(last, key=str(int(last.key)), key_is_integer=True)
        return ids

    world.kk.add = add_as_integer  # type: ignore[method-assign]
    world.kk.meets("007", "lost_request")
    world.sync("7", "007")
    assert not set(world.entry("7").kk_order_ids) & set(world.entry("007").kk_order_ids)
    assert world.entry("007").state is State.HELD


def test_parts_without_a_number_keep_an_order_from_being_resent(world: World) -> None:
    world.kk.split = True
    add = world.kk.add
    world.kk.add = lambda order, **options: add(order, key=None)  # type: ignore[method-assign]
    world.kk.meets("A", "lost_answer")
    world.sync(Order("A", {"S": 1, "T": 2}))
    assert world.kk.count("A") == 1


def test_a_number_like_a_decimal_is_compared_as_text() -> None:
    assert not Sighting("1", "12.5", key_is_integer=True).is_of("125")


# Stopped and failing runs --------------------------------------------------------------------------


def test_a_stopped_run_tells_what_the_ledger_knows(world: World) -> None:
    world.kk.meets("A", "lost_answer")
    world.sync("A", waits=False)
    stop = Stop()
    stop.set("SIGTERM")
    stream, board, _, _ = stream_over(world, Order("known"), Order("A"), Order("B"), stop=stop)
    stream.run()
    stream.give_up_waiting()
    stream.close()
    assert board.counts() == {Status.ALREADY_CREATED: 1, Status.IN_DOUBT: 1, Status.NOT_SENT: 1}


def test_an_order_in_doubt_whose_resend_was_stopped_stays_in_doubt(world: World) -> None:
    world.kk.meets("A", "lost_request")
    world.sync("A", waits=False)
    world.clock.sleep(800)

    class Stopping(Free):
        def acquire(self, stop: Any = None) -> None:
            stop.set("SIGTERM")
            raise ThrottleStopped

    stream, board, _, _ = stream_over(world, Order("A"), throttle=Stopping())
    stream.run()
    stream.close()
    assert board.counts() == {Status.IN_DOUBT: 1}


def test_the_place_of_an_order_that_another_worker_sends_is_handed_back(world: World) -> None:
    handed_back = []

    class Rivalled(Free):
        def acquire(self, stop: Any = None) -> None:
            world.sync("A")

        def hand_back(self, held_s: float) -> None:
            handed_back.append(held_s)

    stream, board, _, _ = stream_over(world, Order("A"), throttle=Rivalled())
    stream.run()
    assert board.counts() == {Status.WAITING: 1}
    stream.look_again()
    stream.close()
    assert board.counts() == {Status.ALREADY_CREATED: 1}
    assert handed_back == [0.0]
    assert world.kk.count("A") == 1


def test_a_failing_worker_hides_nothing_of_what_the_others_did(world: World) -> None:
    def make_job(key: str) -> Any:
        if key.startswith("BAD"):
            raise RuntimeError("a bug")
        return world.job(Order(key))

    keys = ["BAD1", "G1", "G2", "BAD2", "G3"]
    stream, board, runs, run = stream_over(
        world, *(Order(key) for key in keys), make_job=make_job, in_flight=8
    )
    with pytest.raises(RuntimeError):
        stream.run()
    stream.close()
    told = {one.key: one.status for one in board.finished()}
    created = [key for key, entry in world.ledger.look_up(keys).items() if entry.state is State.CREATED]
    assert {told[key] for key in created} <= {Status.CREATED}
    assert summarise(board, run, runs).selected == len(keys)


def test_a_limit_counts_an_order_that_is_sent_again_once(world: World) -> None:
    world.kk.meets("A", "lost_request")
    assert counts(world.sync("A", limits=Limits(1, max_sent=1))) == {"created": 1}


@pytest.mark.parametrize("word", ["retry", "never", "again"])
def test_splits_are_completed_also_after_a_human_has_let_an_order_be_sent(world: World, word: str) -> None:
    split = Order("A", {"S": 1, "T": 2})
    if word == "retry":
        world.kk.meets("A", "refused")
        world.sync(split)
        world.ledger.lift_pause(world.entry("A"), who="ann", why="restocked")
    elif word == "never":
        world.kk.meets("A", "lost_request")
        world.sync(split, waits=False)
        world.clock.sleep(800)
        world.ledger.resolve(world.entry("A"), Event.DECLARED_NEVER, who="ann", why="no")
    else:
        world.sync(split)
        world.clock.sleep(3600)
        ids = world.entry("A").kk_order_ids
        world.ledger.order_again(world.entry("A"), ids=ids, who="ann", why="more")
    world.clock.sleep(1000)
    world.kk.split = True
    post = world.kk.post
    world.kk.post = lambda order, check: post(order, check)[:1]  # type: ignore[method-assign]
    world.sync(split)
    world.ledger.complete([one for one in world.kk.orders if one.key == "A"])
    assert len(world.entry("A").kk_order_ids) == 2


def test_a_cleared_task_asks_again_for_what_was_refused_days_ago(world: World) -> None:
    world.kk.meets("A", "refused")
    world.kk.meets("B", "never_left")
    world.sync("A", "B", run_id="r")
    world.clock.sleep(3 * 86_400)
    assert counts(world.sync("A", "B", run_id="r")) == {"created": 2}


def test_a_human_says_which_ids_of_a_conflict_are_the_orders(world: World) -> None:
    claim = world.ledger.begin(world.job(Order("A")), None, origin=ORIGIN, sync_id="s")
    assert claim is not None
    world.ledger.record(claim, Answer(Event.UNKNOWN))
    world.ledger.hold(world.entry("A"), Event.CONFLICT, "two", ["1", "2"])
    row = world.ledger.resolve(
        world.entry("A"), Event.DECLARED_CREATED, ids=["1"], who="ann", why="2 was cancelled"
    )
    assert row is not None
    assert row.kk_order_ids == ("1",)


def test_a_mad_retry_after_does_not_stop_the_account_for_decades(world: World) -> None:
    bucket = LedgerBucket(world.ledger, burst=120, per_second=2)
    bucket.back_off(999_999_999.0)
    before = world.clock.now
    bucket.acquire()
    assert 1 <= world.clock.now - before <= 600


def test_a_look_up_takes_any_number_of_keys(world: World) -> None:
    assert list(world.ledger.look_up([f"K{n}" for n in range(100_000)] + ["known"])) == ["known"]
