"""What those who only look are told: counts over time, pages in order, one run's orders."""

from __future__ import annotations

from pathlib import Path

import pytest
import sqlalchemy as sa

from airflow_provider_kk.delivery.model import ListedOrder
from airflow_provider_kk.delivery.recover import adopt_unknown
from airflow_provider_kk.delivery.sql import tables
from airflow_provider_kk.delivery.sql.report import SORTS, Line, Report, RowFilter
from airflow_provider_kk.delivery.sql.storage import refund_ledger, sql_ledger
from airflow_provider_kk.delivery.states import Event, State
from tests.delivery.world import START, Order, World

DAY = (START - 3_600, START + 86_400)


@pytest.fixture
def world(empty_world: World) -> World:
    return empty_world


@pytest.fixture
def report(world: World) -> Report:
    return Report(world.ledger.storage)


def keys(lines: list[Line]) -> list[str]:
    return [line.key for line in lines]


def some_of_each(world: World) -> None:
    world.kk.meets("R", "refused")
    world.sync("C1", "C2", "R")
    world.clock.sleep(7_200)
    world.kk.meets("D", "lost_answer")
    world.sync("C3", "D", waits=False)


def test_each_order_is_counted_in_the_interval_of_its_time(world: World, report: Report) -> None:
    some_of_each(world)
    series = report.over_time(*DAY, 3_600)
    assert sum(series[State.CREATED].values()) == 3
    assert series[State.CREATED] == {1: 2, 3: 1}
    assert series[State.REJECTED] == {1: 1}
    assert sum(series[State.IN_DOUBT].values()) == 1
    assert report.over_time(START + 90_000, START + 180_000, 3_600) == {state: {} for state in State}


def test_open_orders_are_counted_whatever_their_day(world: World, report: Report) -> None:
    some_of_each(world)
    assert report.count([State.IN_DOUBT, State.HELD]) == {State.IN_DOUBT: 1}


@pytest.mark.parametrize("size", [1, 2, 3, 7])
def test_pages_hold_each_order_once_newest_first(world: World, report: Report, size: int) -> None:
    # given orders of two times, many of the same second and of several states
    world.kk.meets("B2", "refused")
    world.kk.meets("b4", "refused")
    world.kk.meets("B5", "lost_answer")
    world.sync(*(f"A{n}" for n in range(5)), waits=False)
    world.clock.sleep(60)
    world.sync(*(f"{'Bb'[n % 2 == 0]}{n}" for n in range(5)), "B2", "b4", "B5", waits=False)

    everything = RowFilter(since=DAY[0], until=DAY[1])
    pages: list[list[Line]] = []
    while lines := report.lines(everything, limit=size, offset=size * len(pages)):
        pages.append(lines)

    found = [line for page in pages for line in page]
    assert all(len(page) == size for page in pages[:-1])
    assert len(found) == len(set(keys(found))) == len(world.ledger.entries())
    assert [line.at for line in found] == sorted((line.at for line in found), reverse=True)
    assert list(report.export(everything)) == found
    assert sum(report.count_selected(everything).values()) == len(found)


@pytest.mark.parametrize("sort", SORTS)
def test_each_sort_order_lists_each_order_once_in_both_directions(
    world: World, report: Report, sort: str
) -> None:
    some_of_each(world)
    down = report.lines(RowFilter(), sort=sort, limit=9)
    assert sorted(keys(down)) == ["C1", "C2", "C3", "D", "R"]
    assert report.lines(RowFilter(), sort=sort, descending=False, limit=9) == down[::-1]
    pages = [report.lines(RowFilter(), sort=sort, limit=2, offset=offset) for offset in (0, 2, 4)]
    assert [line for page in pages for line in page] == down


def test_sorting_by_state_puts_what_waits_for_a_person_first(world: World, report: Report) -> None:
    some_of_each(world)
    world.ledger.hold(world.entry("D"), Event.GIVEN_UP, "not in KK's list")
    lines = report.lines(RowFilter(), sort="state", descending=False, limit=9)
    assert keys(lines) == ["D", "R", "C1", "C2", "C3"]
    codes = report.lines(RowFilter(), sort="code", limit=9)
    assert keys(codes)[0] == "R"


def test_orders_are_filtered_by_dag_country_and_code(world: World, report: Report) -> None:
    some_of_each(world)
    (rejected,) = report.lines(RowFilter(states=(State.REJECTED,)), limit=9)
    assert rejected.goods
    assert (rejected.dag_id, rejected.run_id) == ("dag", "run 1")
    for found, others in (
        (RowFilter(code=rejected.code), RowFilter(code=1)),
        (RowFilter(country=rejected.country), RowFilter(country="ZZ")),
        (RowFilter(dag_id="dag"), RowFilter(dag_id="da")),
    ):
        assert "R" in keys(report.lines(found, limit=9))
        assert report.count_selected(found)[State.REJECTED] == 1
        assert report.over_time(*DAY, 3_600, found)[State.REJECTED] == {1: 1}
        assert report.lines(others, limit=9) == []
        assert report.count_selected(others) == {}
        assert not any(report.over_time(*DAY, 3_600, others).values())


def test_a_pause_is_reported_and_a_ledger_from_before_pauses_has_none(world: World, report: Report) -> None:
    assert report.pause() is None
    world.ledger.storage.add_pause("ann", "wrong query")
    pause = report.pause()
    assert pause is not None
    assert (pause.by, pause.why) == ("ann", "wrong query")
    engine = world.ledger.storage.database.engine
    tables.pause.drop(engine)
    assert report.pause() is None
    tables.pause.create(engine)


def test_dags_are_listed_once_each(world: World, report: Report) -> None:
    assert report.dag_ids() == []
    some_of_each(world)
    assert report.dag_ids() == ["dag"]


def test_search_takes_the_beginning_of_a_number_with_or_without_hash(world: World, report: Report) -> None:
    world.sync("#5007", "5007", "50071", "15007", "A_1", "A%1", "a_1")

    def found(text: str) -> set[str]:
        lines = report.lines(RowFilter(text=text), limit=99)
        assert sum(report.count_selected(RowFilter(text=text)).values()) == len(lines)
        return set(keys(lines))

    assert found("5007") == found("#5007") == {"#5007", "5007", "50071"}
    assert found("A_") == {"A_1"}
    assert found("A%") == {"A%1"}
    assert found("%") == found("5008") == found("-") == set()
    (kk_order_id,) = world.entry("15007").kk_order_ids
    assert found(kk_order_id) == {"15007"}
    assert found(kk_order_id[:-1]) == set()


def test_orders_are_filtered_by_state_and_period(world: World, report: Report) -> None:
    some_of_each(world)
    assert keys(report.lines(RowFilter((State.REJECTED,), *DAY), limit=9)) == ["R"]
    late = RowFilter(since=START + 3_600, until=DAY[1])
    assert set(keys(report.lines(late, limit=9))) == {"C3", "D"}


def test_an_order_is_found_by_its_number_or_by_any_of_its_ids(world: World, report: Report) -> None:
    world.kk.split = True
    world.sync(Order("A_1", {"SHIRT_M": 1, "SHIRT_L": 1}), "B%2", "A01")
    ids = world.entry("A_1").kk_order_ids
    assert len(ids) == 2
    assert keys(report.find("A_1", limit=9)) == ["A_1"]
    assert [keys(report.find(one, limit=9)) for one in ids] == [["A_1"], ["A_1"]]
    for text in ("A-1", "%", ids[0][:-1], '"', "a_1"):
        assert report.find(text, limit=9) == []


def test_a_run_has_what_it_sent_and_what_it_reconciled(world: World, report: Report) -> None:
    world.kk.meets("D", "lost_answer")
    world.sync("C", "D", run_id="one", waits=False)
    world.clock.sleep(3_600)
    world.sync("D", "E", run_id="two")

    one = report.of_run("dag", "one", limit=9)
    assert keys([order.line for order in one]) == ["C", "D"]
    assert [[post.outcome for post in order.attempts] for order in one] == [["created"], ["unknown"]]
    two = report.of_run("dag", "two", limit=9)
    assert [(order.line.key, order.line.state, len(order.attempts)) for order in two] == [
        ("D", State.CREATED, 0),
        ("E", State.CREATED, 1),
    ]
    assert keys([order.line for order in report.of_run("dag", "two", limit=9, offset=1)]) == ["E"]
    assert report.count_run("dag", "two") == {State.CREATED: 2}
    assert keys([order.line for order in report.of_run("dag", "one", limit=1)]) == ["C"]
    assert report.of_run("other", "one", limit=9) == []


def test_a_run_lists_what_waits_for_a_person_first(world: World, report: Report) -> None:
    world.kk.meets("B", "refused")
    world.kk.meets("X", "lost_answer")
    world.sync("A", "B", "X", run_id="one", waits=False)
    world.ledger.hold(world.entry("X"), Event.GIVEN_UP, "not in KK's list")
    assert keys([order.line for order in report.of_run("dag", "one", limit=9)]) == ["X", "B", "A"]
    assert report.count_run("dag", "one") == {State.HELD: 1, State.REJECTED: 1, State.CREATED: 1}
    assert report.count_run("dag", "none") == {}


def test_the_refunds_of_an_order_are_those_of_its_id_alone(world: World) -> None:
    report = Report(world.ledger.storage)
    refunds = refund_ledger(world.ledger)
    for key in ("1009-whole", "1009-0a1b2c3d4e5f6071", "1010-whole", "10090-whole", "999-whole", "x_9-whole"):
        adopt_unknown(refunds, [ListedOrder(id=f"of {key}", key=key, goods={})])
    assert set(keys(report.refunds_of(["1009"]))) == {"1009-whole", "1009-0a1b2c3d4e5f6071"}
    assert keys(report.refunds_of(["999", "x_9", "x%9", "1011"])) == ["999-whole", "x_9-whole"]


def test_refunds_are_listed_like_orders_and_apart_from_them(world: World) -> None:
    some_of_each(world)
    adopt_unknown(refund_ledger(world.ledger), [ListedOrder(id="70", key="1009-whole", goods={})])
    refunds = Report(world.ledger.storage).of_refunds()
    assert keys(refunds.lines(RowFilter(), limit=9)) == ["1009-whole"]
    assert keys(refunds.find("70", limit=9)) == ["1009-whole"]
    assert sum(sum(steps.values()) for steps in refunds.over_time(*DAY, 3_600).values()) == 1
    assert refunds.all_of("1009-whole")[0][0].kk_order_ids == ("70",)
    assert Report(world.ledger.storage).all_of("1009-whole") == ([], [])


def test_the_oldest_time_is_that_of_any_state(world: World, report: Report) -> None:
    assert report.oldest() is None
    some_of_each(world)
    assert report.oldest() == min(line.at for line in report.lines(RowFilter(), limit=99))


def test_another_account_is_not_seen(world: World) -> None:
    some_of_each(world)
    other = Report(sql_ledger(world.ledger.storage.database.engine, "kk.test", "other").storage)
    assert other.lines(RowFilter(), limit=9) == []
    assert other.count_selected(RowFilter()) == {}
    assert other.dag_ids() == []
    assert not any(other.over_time(*DAY, 3_600).values())
    assert other.find("C1", limit=9) == []
    assert other.of_run("dag", "run 1", limit=9) == []


def test_reading_creates_no_tables(tmp_path: Path) -> None:
    engine = sa.create_engine(f"sqlite:///{tmp_path / 'nothing.db'}")
    assert not Report(sql_ledger(engine, "kk.test", "default").storage).is_there()
    assert sa.inspect(engine).get_table_names() == []


def test_a_ledger_of_an_older_version_without_pauses_is_not_paused(tmp_path: Path) -> None:
    storage = sql_ledger(sa.create_engine(f"sqlite:///{tmp_path / 'old.db'}"), "kk.test", "default").storage
    storage.open("kk_default", settle_window_s=600)
    assert storage.add_pause("me", "why")
    assert Report(storage).pause() is not None
    with storage.database.engine.begin() as db:
        tables.pause.drop(db)
    assert Report(storage).pause() is None


def test_pages_are_read_along_an_index(world: World) -> None:
    if world.ledger.storage.database.kind != "sqlite":
        pytest.skip("SQLite tells its plan without figures")
    some_of_each(world)
    seen: list[str] = []
    engine = world.ledger.storage.database.engine

    @sa.event.listens_for(engine, "before_cursor_execute")
    def remember(connection, cursor, statement, parameters, context, executemany):
        if statement.startswith("SELECT"):
            plan = connection.connection.driver_connection.execute(
                "EXPLAIN QUERY PLAN " + statement, parameters
            )
            seen.extend(row[3] for row in plan)

    report = Report(world.ledger.storage)
    period = RowFilter(since=DAY[0], until=DAY[1])
    report.lines(period, limit=50, offset=50)
    report.lines(period, sort="number", limit=50)
    report.count_selected(period)
    report.dag_ids()
    report.over_time(*DAY, 3_600)
    report.count([State.HELD])
    report.of_run("dag", "run 1", limit=50, offset=1)
    report.count_run("dag", "run 1")
    report.all_of("C1")
    report.oldest()
    report.of_refunds().lines(period, limit=50, offset=50)
    report.of_refunds().of_run("dag", "run 1", limit=50)
    report.refunds_of(["1009"])

    assert len(seen) > 10
    assert [step for step in seen if step.startswith("SCAN kk_")] == []
