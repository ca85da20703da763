"""Clocks that are wrong while an order is sent or settled, and clocks that are set right in between."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from airflow_provider_kk.api.errors import KKNotSentError
from airflow_provider_kk.delivery.clock import describe_clocks
from airflow_provider_kk.delivery.model import AttemptResult, Timing
from airflow_provider_kk.delivery.resolution import order_again, require_absent
from airflow_provider_kk.delivery.states import Event
from tests.delivery.world import ORIGIN, Order, World, counts


@pytest.mark.parametrize("off_s", [-3600.0, 3600.0])
def test_a_database_clock_an_hour_off_makes_no_duplicate(world: World, off_s: float) -> None:
    database: Any = world.ledger.storage.database
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


def test_a_database_clock_corrected_while_an_order_is_in_doubt_makes_no_duplicate(world: World) -> None:
    database: Any = world.ledger.storage.database
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


def test_a_kk_clock_corrected_before_reconcile_makes_no_duplicate(world: World) -> None:
    world.kk.clock_skew_s = 3600.0
    world.kk.meets("A", "lost_answer")
    world.sync("A", waits=False)
    world.kk.clock_skew_s = 0.0
    world.clock.sleep(7200)
    world.sync("A")
    assert world.kk.count("A") == 1


def test_recover_survives_one_wrong_date_in_the_list(world: World) -> None:
    world.kk.clock_skew_s = 86_400.0
    world.sync("B")
    world.kk.clock_skew_s = 0.0
    world.clock.sleep(3600)
    world.kk.add(Order("A"))
    world.clock.sleep(3600)
    world.sync("A")
    assert "A" not in world.kk.posts


@pytest.mark.parametrize("off_s", [-3600.0, 3600.0])
def test_a_database_clock_an_hour_off_blocks_no_worker(world: World, off_s: float) -> None:
    database: Any = world.ledger.storage.database
    database.time_here = lambda: world.clock.wall() + off_s
    for key in ("B", "C", "D"):
        world.sync(key)
    world.clock.sleep(3 * 3600)
    assert counts(world.sync("E")) == {"created": 1}


def test_responses_recorded_late_block_no_worker(empty_world: World) -> None:
    world = empty_world
    for key in ("A", "B", "C"):
        claim = world.ledger.claim(world.job(Order(key)), None, origin=ORIGIN, sync_id="s")
        assert claim is not None
        ids = world.kk.add(Order(key))
        world.clock.sleep(900)
        world.ledger.record(claim, AttemptResult(Event.CREATED, tuple(ids)))
    world.clock.sleep(3600)
    assert counts(world.sync("D")) == {"created": 1}


# Set right before an order is settled -------------------------------------------------------------


def set_workers_clock(world: World, by_s: float) -> None:
    """On SQLite it is the ledger's, too; KK's stays what it is."""
    world.clock.now += by_s
    world.kk.clock_skew_s = (world.kk.clock_skew_s or 0.0) - by_s


def set_databases_clock(world: World, ahead_s: float) -> None:
    database: Any = world.ledger.storage.database
    database.now = lambda: sa.literal(world.clock.wall() + ahead_s, sa.Float(53))
    database.time_here = database.read_now = lambda: world.clock.wall() + ahead_s


def test_a_workers_clock_that_was_ahead_makes_no_duplicate(world: World) -> None:
    set_workers_clock(world, 3600)
    world.kk.meets("A", "lost_answer")
    world.sync("A", waits=False)
    set_workers_clock(world, -3600)
    world.clock.sleep(3500)
    world.sync("B")
    world.clock.sleep(3000)
    world.sync("A")
    assert world.kk.count("A") == 1


def test_a_databases_clock_that_was_ahead_makes_no_duplicate(world: World) -> None:
    set_databases_clock(world, 3600)
    world.kk.meets("A", "lost_answer")
    world.sync("A", waits=False)
    set_databases_clock(world, 0)
    world.clock.sleep(3500)
    world.sync("B")
    world.clock.sleep(3000)
    world.sync("A")
    assert world.kk.count("A") == 1


def test_clocks_that_were_behind_make_no_duplicate(world: World) -> None:
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


def test_kks_clock_that_was_ahead_makes_no_duplicate(world: World) -> None:
    world.kk.clock_skew_s = 3600.0
    world.kk.meets("A", "lost_answer")
    world.sync("A", waits=False)
    world.kk.clock_skew_s = 0.0
    world.clock.sleep(60)
    world.sync("B")
    world.clock.sleep(1000)
    world.sync("A")
    assert world.kk.count("A") == 1


def test_clocks_set_wrong_during_a_sync_make_no_duplicate(world: World) -> None:
    set_databases_clock(world, 3600)
    world.kk.meets("A", "lost_answer")
    # KK's next answer tells the worker that its own clock is wrong by now, too.
    world.kk.on_post = lambda key: set_workers_clock(world, 3600) if key == "B" else None
    world.sync("B", "A", waits=False)
    set_workers_clock(world, -3600)
    set_databases_clock(world, 0)
    world.clock.sleep(3600)
    world.sync("C", "D", "E", waits=False)
    world.clock.sleep(3600)
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


# Set right while an order waits ----------------------------------------------------------------------


def set_kks_clock(world: World, ahead_s: float) -> None:
    world.kk.clock_skew_s = ahead_s


DAY_S = 86_400.0
CLOCKS = pytest.mark.parametrize(
    "set_clock", [set_workers_clock, set_databases_clock, set_kks_clock], ids=["worker", "database", "KK"]
)


def set_right(world: World, set_clock: Any) -> None:
    set_clock(world, -DAY_S if set_clock is set_workers_clock else 0.0)


@CLOCKS
def test_settle_wait_is_bounded_after_a_clock_that_was_ahead_is_set_right(
    world: World, set_clock: Any, caplog: pytest.LogCaptureFixture
) -> None:
    set_clock(world, DAY_S)
    world.kk.meets("A", "lost_request")
    world.sync("A", waits=False)
    set_right(world, set_clock)
    began = world.clock.now
    assert counts(world.sync("A")) == {"created": 1}
    assert world.clock.now - began <= 750 + 10
    assert world.kk.count("A") == 1
    (logged,) = [text for text in caplog.messages if "later than any settle window" in text]
    assert logged.startswith("The settle time of order A was later than any settle window: a clock was ahead")


@CLOCKS
def test_order_at_kk_is_adopted_and_not_resent_after_a_clock_that_was_ahead_is_set_right(
    world: World, set_clock: Any
) -> None:
    set_clock(world, DAY_S)
    world.kk.list_lag_s = 300.0
    world.kk.meets("A", "lost_answer")
    world.sync("A", waits=False)
    set_right(world, set_clock)
    assert counts(world.sync("A")) == {"adopted": 1}
    assert world.kk.count("A") == 1


def test_wait_notices_within_a_settle_delay_that_a_clock_was_set_right(world: World) -> None:
    set_databases_clock(world, -7_200)
    world.kk.meets("A", "lost_request")
    slept = world.clock.sleep

    def set_right_meanwhile(seconds: float, stop: object = None) -> None:
        slept(seconds)
        set_databases_clock(world, 0)

    world.clock.sleep = set_right_meanwhile  # type: ignore[method-assign]
    began = world.clock.now
    assert counts(world.sync("A")) == {"created": 1}
    assert world.clock.now - began <= 750 + 10


@CLOCKS
def test_backoff_is_bounded_after_a_clock_that_was_ahead_is_set_right(world: World, set_clock: Any) -> None:
    set_clock(world, DAY_S)
    world.kk.meets("A", "refused")
    world.sync("A")
    set_right(world, set_clock)
    assert counts(world.sync("A")) == {"rejected": 1}
    world.clock.sleep(1_100)
    assert counts(world.sync("A")) == {"created": 1}


@CLOCKS
def test_lease_of_a_dead_worker_is_bounded_after_a_clock_that_was_ahead_is_set_right(
    world: World, set_clock: Any
) -> None:
    set_clock(world, DAY_S)
    assert world.ledger.claim(world.job(Order("A")), None, origin=ORIGIN, sync_id="s")
    set_right(world, set_clock)
    world.clock.sleep(200)
    world.sync("B")  # selects another order, and finds this one in doubt
    world.clock.sleep(760)
    world.sync("C")
    began = world.clock.now
    assert counts(world.sync("A")) == {"created": 1}
    assert world.clock.now == began


def test_a_longer_lease_of_another_connection_is_not_cut(world: World) -> None:
    patient = world.open_ledger()
    patient.timing = Timing(30, 600, 600)
    claim = patient.claim(world.job(Order("A")), None, origin=ORIGIN, sync_id="s")
    assert claim is not None
    world.sync("A", waits=False)
    assert world.ledger.look_up(["A"])["A"].settle_after == pytest.approx(world.clock.now + 1_230)
    patient.close()


@CLOCKS
def test_resolve_is_not_blocked_for_as_long_as_a_clock_was_ahead(world: World, set_clock: Any) -> None:
    set_clock(world, DAY_S)
    world.sync("A")
    set_right(world, set_clock)
    ledger = world.open_ledger()  # as a command does
    bounded = ledger.shorten_waits(ledger.look_up(["A"])["A"], world.kk.clock_skew_s)
    assert bounded is not None
    with pytest.raises(ValueError, match=r"KK may still list .* during the next 7\d\d s"):
        order_again(ledger, bounded, who="ann", why="more")
    world.clock.sleep(760)
    assert order_again(ledger, bounded, who="ann", why="more")
    ledger.close()


def in_doubt_while_the_list_lags(folder: Path) -> World:
    """Worker and database on one machine."""
    world = World.in_folder(folder)
    world.sync("B")
    world.clock.sleep(7_200)
    world.kk.list_lag_s = 300.0
    world.kk.meets("A", "lost_answer")
    world.sync("A", waits=False)
    world.clock.sleep(5)
    return world


@pytest.mark.parametrize("is_down", [True, False], ids=["KK is down", "KK's answers have no date"])
def test_a_clock_set_back_while_kks_is_unknown_makes_no_duplicate(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_down: bool
) -> None:
    world = in_doubt_while_the_list_lags(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(world.kk, "clock_skew_s", None)
        patch.setattr(world.kk, "list_error", KKNotSentError("down") if is_down else None)
        world.clock.now -= 7_200
        world.sync("A", waits=False)
    world.clock.now += 7_200
    world.clock.sleep(20)
    world.sync("A")
    assert world.kk.count("A") == 1


def test_a_check_of_a_resolution_shortens_no_settle_window(tmp_path: Path) -> None:
    world = in_doubt_while_the_list_lags(tmp_path)
    before = world.ledger.look_up(["A"])["A"]
    world.clock.now -= 7_200
    with pytest.raises(ValueError, match="KK may still list"):
        require_absent(world.ledger, before)
    assert world.ledger.look_up(["A"])["A"] == before


# Clocks that stay off ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("database_s", "kk_s", "said"),
    [
        (0.0, 0.0, ""),
        (None, None, ""),
        (None, 29.0, ""),
        (-20.0, 9.0, ""),
        (None, 7_200.0, "The clock of KK is 7200 s ahead of the clock of this machine"),
        (None, -7_200.0, "The clock of this machine is 7200 s ahead of the clock of KK"),
        (300.0, None, "The clock of the ledger's database is 300 s ahead of the clock of this machine"),
        (7_200.0, 1.0, "The clock of the ledger's database is 7200 s ahead of the two others"),
        (-7_200.0, 1.0, "The clock of the ledger's database is 7201 s behind the two others"),
        (7_200.0, 7_201.0, "The clock of this machine is 7201 s behind the two others"),
        (-7_200.0, -7_201.0, "The clock of this machine is 7201 s ahead of the two others"),
        (1.0, 90.0, "The clock of KK is 90 s ahead of the two others"),
        (60.0, -60.0, "No two clocks agree: compared to this machine, the ledger's database +60 s, KK -60 s"),
    ],
)
def test_clock_that_is_off_is_named_with_its_error(
    database_s: float | None, kk_s: float | None, said: str
) -> None:
    described = describe_clocks(database_s, kk_s)
    assert described.partition(". ")[0] == said
    assert ("Orders in doubt wait up to" in described) is bool(said)


def test_sync_logs_once_which_clock_is_off(world: World, caplog: pytest.LogCaptureFixture) -> None:
    world.kk.clock_skew_s = 7_200.0
    world.kk.meets("A", "lost_request")
    world.sync("A")
    logged = [text for text in caplog.messages if "clock of" in text]
    assert len(logged) == 1
    others = "the two others" if world.ledger.storage.has_own_clock else "the clock of this machine"
    assert logged[0].startswith(f"The clock of KK is 7200 s ahead of {others}")


def test_sync_logs_that_the_clock_of_the_database_is_off(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    if not world.ledger.storage.has_own_clock:
        pytest.skip("the worker's clock is SQLite's")
    set_databases_clock(world, -7_200.0)
    world.sync("A")
    logged = [text for text in caplog.messages if "clock of" in text]
    assert len(logged) == 1
    assert logged[0].startswith("The clock of the ledger's database is 7200 s behind the two others")
