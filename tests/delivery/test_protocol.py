"""The promises of the delivery protocol, each with the fault that it is made against."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from airflow_provider_kk.delivery.model import InconclusiveError, ListedOrder
from airflow_provider_kk.delivery.sql import tables
from airflow_provider_kk.delivery.states import State
from tests.delivery.world import AbsencePolicy, Limits, Order, World, counts


def test_an_order_is_sent_once_however_many_runs_select_it(world: World) -> None:
    assert counts(world.sync("A", "B")) == {"created": 2}
    assert counts(world.sync("A", "B")) == {"already_created": 2}
    assert world.kk.posts == ["known", "A", "B"]


def test_a_lost_response_is_adopted_not_resent(world: World) -> None:
    world.kk.meets("A", "lost_answer")
    assert counts(world.sync("A")) == {"adopted": 1}
    assert world.kk.count("A") == 1
    assert world.entry("A").kk_order_ids == (world.kk.orders[-1].id,)


def test_a_lost_request_is_resent_only_after_the_settle_window(world: World) -> None:
    sent_at: list[float] = []
    world.kk.on_post = lambda _key: sent_at.append(world.clock.now)
    world.kk.meets("A", "lost_request")
    assert counts(world.sync("A")) == {"created": 1}
    assert world.kk.count("A") == 1
    assert sent_at[1] - sent_at[0] >= 120 + 30 + 600


def test_reconcile_does_not_take_a_lagging_list_for_absence(world: World) -> None:
    world.kk.list_lag_s = 300
    world.kk.meets("A", "lost_answer")
    assert counts(world.sync("A")) == {"adopted": 1}
    assert world.kk.posts.count("A") == 1


def test_on_absence_hold_holds_instead_of_a_resend(world: World) -> None:
    world.kk.meets("A", "lost_request")
    assert counts(world.sync("A", policy=AbsencePolicy(on_absence="hold"))) == {"held": 1}
    assert counts(world.sync("A")) == {"held": 1}
    assert world.kk.posts.count("A") == 1


def test_an_order_is_not_resent_more_often_than_max_resends(world: World) -> None:
    world.kk.meets("A", "lost_request", "lost_request")
    assert counts(world.sync("A")) == {"held": 1}
    assert world.kk.posts.count("A") == 2


def test_reconcile_needs_a_sentinel_order_to_prove_absence(empty_world: World) -> None:
    world = empty_world
    world.kk.meets("A", "lost_request")
    assert counts(world.sync("A")) == {"in_doubt": 1}
    assert "no order that this ledger sent" in world.messages["A"]
    assert world.kk.posts == ["A"]


def test_reconcile_proves_no_absence_while_an_order_without_number_has_the_same_goods(world: World) -> None:
    world.kk.meets("A", "lost_request")
    world.kk.on_post = lambda _key: world.kk.add(Order("?"), key=None)
    assert counts(world.sync("A")) == {"in_doubt": 1}
    assert world.kk.posts.count("A") == 1


def test_reconcile_decides_nothing_by_an_incomplete_list(world: World) -> None:
    world.kk.meets("A", "lost_request")
    world.sync("A", waits=False)
    world.clock.sleep(800)
    world.kk.list_error = InconclusiveError("pages contradict each other")
    assert counts(world.sync("A")) == {"in_doubt": 1}
    assert world.kk.posts.count("A") == 1


def test_nothing_is_sent_when_recover_cannot_read_the_list(world: World) -> None:
    world.kk.list_error = InconclusiveError("no list today")
    assert counts(world.sync("A", "B", "known")) == {"not_sent": 2, "already_created": 1}
    assert world.kk.posts == ["known"]


def test_reconcile_adopts_all_parts_of_a_split_order(world: World) -> None:
    world.kk.split = True
    world.kk.meets("A", "lost_answer")
    assert counts(world.sync(Order("A", {"S": 1, "T": 2}))) == {"adopted": 1}
    assert len(world.entry("A").kk_order_ids) == 2


def test_half_a_split_order_becomes_a_conflict_after_one_more_settle_window(world: World) -> None:
    order = Order("A", {"S": 1, "T": 2})
    world.kk.meets("A", "lost_request")
    world.kk.on_post = lambda _key: world.kk.add(Order("A", {"S": 1}))
    before = world.clock.now
    assert counts(world.sync(order)) == {"held": 1}
    assert world.clock.now - before >= 750 + 600
    assert world.kk.posts.count("A") == 1


def test_duplicate_orders_under_one_number_are_a_conflict(world: World) -> None:
    world.kk.meets("A", "lost_answer")
    world.kk.on_post = lambda _key: world.kk.add(Order("A"))
    assert counts(world.sync("A")) == {"held": 1}
    assert "more or other goods" in world.entry("A").message


def test_an_order_for_another_country_is_not_adopted(world: World) -> None:
    world.kk.meets("A", "lost_request")
    world.kk.on_post = lambda _key: world.kk.add(Order("A", country="DE"))
    assert counts(world.sync("A")) == {"held": 1}


def test_a_number_that_kk_turned_into_an_integer_is_found(world: World) -> None:
    world.kk.meets("00123", "lost_request")
    world.kk.on_post = lambda _key: world.kk.orders.append(
        ListedOrder("77", "123", True, {"SHIRT_M": 1}, "FR", created_at=world.clock.now)
    )
    assert counts(world.sync("00123")) == {"adopted": 1}
    assert world.kk.posts.count("00123") == 1


def test_recover_adopts_what_the_ledger_lacks_before_anything_is_sent(world: World) -> None:
    world.kk.add(Order("A"))
    assert counts(world.sync("A")) == {"already_created": 1}
    assert "A" not in world.kk.posts


def test_an_order_of_another_tool_with_other_goods_is_changed_not_resent(world: World) -> None:
    world.kk.add(Order("A", {"TROUSERS_L": 3}))
    assert counts(world.sync("A")) == {"changed": 1}
    assert "A" not in world.kk.posts


def test_a_number_reused_for_another_order_is_logged_as_an_error(world: World) -> None:
    world.sync("A")
    assert counts(world.sync(Order("A", {"SHIRT_M": 5}))) == {"changed": 1}
    assert world.kk.posts.count("A") == 1


def test_a_rejected_order_is_retried_after_its_backoff_and_a_reconcile(world: World) -> None:
    world.kk.meets("A", "refused")
    assert counts(world.sync("A")) == {"rejected": 1}
    assert counts(world.sync("A")) == {"rejected": 1}
    assert world.kk.posts.count("A") == 1
    world.clock.sleep(901)
    assert counts(world.sync("A")) == {"created": 1}


def test_a_rejected_order_with_new_content_skips_its_backoff_but_not_reconcile(
    world: World,
) -> None:
    world.kk.meets("A", "refused")
    world.kk.on_post = lambda key: key == "A" and world.kk.add(Order("A", {"SHIRT_M": 2}))
    world.sync("A")
    world.kk.on_post = None
    # KK created it in spite of its refusal, with what now stands in the warehouse.
    assert counts(world.sync(Order("A", {"SHIRT_M": 2}))) == {"held": 1}
    assert world.kk.posts.count("A") == 1


def test_a_rejected_first_order_of_an_account_can_be_corrected(empty_world: World) -> None:
    world = empty_world
    world.kk.meets("A", "refused")
    assert counts(world.sync("A")) == {"rejected": 1}
    assert counts(world.sync(Order("A", {"SHIRT_L": 1}))) == {"created": 1}


def test_an_order_that_was_not_sent_is_sent_by_the_next_run(world: World) -> None:
    world.kk.meets("A", "never_left")
    assert counts(world.sync("A")) == {"not_sent": 1}
    assert counts(world.sync("A")) == {"created": 1}


def test_circuit_breaker_opens_after_ten_rejections_with_one_code(world: World) -> None:
    keys = [f"N{n}" for n in range(15)]
    for key in keys:
        world.kk.meets(key, "refused")
    assert counts(world.sync(*keys)) == {"rejected": 10, "not_sent": 5}


def test_circuit_breaker_opens_after_five_orders_in_doubt_which_are_reconciled(world: World) -> None:
    keys = [f"N{n}" for n in range(8)]
    for key in keys:
        world.kk.meets(key, "lost_answer")
    assert counts(world.sync(*keys)) == {"adopted": 5, "not_sent": 3}
    assert all(world.kk.count(key) <= 1 for key in keys)


def test_orders_above_the_limit_are_postponed(world: World) -> None:
    assert counts(world.sync("A", "B", "C", limits=Limits(1, max_sent=2))) == {"created": 2, "postponed": 1}


def test_nothing_new_is_sent_after_max_seconds(world: World) -> None:
    limits = Limits(1, send_until=world.clock.now + 10)
    world.kk.on_post = lambda _key: world.clock.sleep(6)
    assert counts(world.sync("A", "B", "C", limits=limits)) == {"created": 2, "postponed": 1}


def test_a_retry_counts_what_its_first_try_created(world: World) -> None:
    world.kk.meets("B", "never_left")
    assert counts(world.sync("A", "B", run_id="r")) == {"created": 1, "not_sent": 1}
    assert counts(world.sync("B", run_id="r")) == {"created": 2}
    assert counts(world.sync("A", "B", run_id="r")) == {"already_created": 2}


def test_a_worker_frozen_beyond_its_lease_does_not_send(world: World) -> None:
    make_job = world.job

    def frozen(order: Order) -> object:
        job = make_job(order)
        send = job.send

        def late(before_send: object) -> list[str]:
            world.clock.sleep(100)
            return send(before_send)  # type: ignore[arg-type]

        return replace(job, send=late)

    world.job = frozen  # type: ignore[method-assign,assignment]
    assert counts(world.sync("A")) == {"not_sent": 1}
    assert world.kk.posts == ["known"]


def test_crash_after_the_post_is_reconciled_by_the_next_run(world: World) -> None:
    class Killed(BaseException):
        pass

    def die(_key: str) -> None:
        world.kk.add(Order("A"))
        raise Killed

    world.kk.on_post = die
    with pytest.raises(Killed):
        world.sync("A")
    assert world.entry("A").state is State.SENDING
    world.kk.on_post = None
    assert counts(world.sync("A")) == {"adopted": 1}
    assert world.kk.posts.count("A") == 1


def test_reconcile_adopts_an_order_in_doubt_that_no_run_selects(world: World) -> None:
    world.kk.meets("A", "lost_answer")
    world.sync("A", waits=False)
    world.clock.sleep(800)
    world.sync("B")
    assert world.entry("A").state is State.CREATED


def test_reconcile_holds_an_unselected_absent_order_after_a_day_in_doubt(world: World) -> None:
    world.kk.meets("A", "lost_request")
    world.sync("A", waits=False)
    world.clock.sleep(800)
    world.sync("B")
    assert world.entry("A").state is State.IN_DOUBT
    world.clock.sleep(86_400)
    world.sync("C")
    assert world.entry("A").state is State.HELD


def test_recover_after_a_restored_backup_makes_no_duplicate(tmp_path: Path) -> None:
    world = World.in_folder(tmp_path)
    world.sync("known")
    backup = (tmp_path / "ledger.db").read_bytes()
    world.clock.sleep(60)
    world.sync("A")
    world.kk.meets("B", "lost_answer")
    world.sync("B", waits=False)
    world.clock.sleep(60)
    world.ledger.storage.database.engine.dispose()
    (tmp_path / "ledger.db").write_bytes(backup)
    world.ledger = world.open_ledger()
    assert counts(world.sync("A", "B")) == {"already_created": 2}
    assert (world.kk.count("A"), world.kk.count("B")) == (1, 1)


@pytest.mark.parametrize("skew_s", [-3_600.0, 3_600.0])
def test_reconcile_reads_the_list_by_kks_clock(world: World, skew_s: float) -> None:
    world.kk.clock_skew_s = skew_s
    world.kk.meets("A", "lost_answer")
    world.kk.meets("B", "lost_request")
    assert counts(world.sync("A", "B")) == {"adopted": 1, "created": 1}
    world.kk.add(Order("C"))
    assert counts(world.sync("A", "B", "C")) == {"already_created": 3}
    assert [world.kk.count(key) for key in "ABC"] == [1, 1, 1]


def test_a_response_for_a_lost_row_is_reconciled_by_its_goods(world: World) -> None:
    world.kk.meets("A", "lost_answer")
    world.sync("A", waits=False)
    with world.ledger.storage.database.write() as db:
        db.execute(tables.attempt.delete())
    assert counts(world.sync("A")) == {"adopted": 1}


def test_newly_held_orders_are_counted_apart_from_those_held_before(world: World) -> None:
    world.kk.meets("A", "lost_request")
    world.sync("A", waits=False)
    world.clock.sleep(800)
    world.sync("A", policy=AbsencePolicy(on_absence="hold"))
    assert world.news == {"A"}
    world.sync("A")
    assert world.news == set()


def test_a_late_adopted_order_serves_as_sentinel(empty_world: World) -> None:
    world = empty_world
    world.kk.meets("known", "lost_answer")
    world.kk.meets("A", "refused")
    assert counts(world.sync("known", "A")) == {"adopted": 1, "rejected": 1}
    world.clock.sleep(21_600)
    assert counts(world.sync("A")) == {"created": 1}
