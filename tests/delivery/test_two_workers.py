"""Two workers at the same orders: each hides and doubles nothing of the other's."""

from __future__ import annotations

from typing import Any

import pytest

from airflow_provider_kk.api.errors import KKRateLimitedError
from airflow_provider_kk.delivery.model import AttemptResult, BeforeSend
from airflow_provider_kk.delivery.run_queue import RunStatus
from airflow_provider_kk.delivery.states import Event, State
from airflow_provider_kk.sync.sync_counts import summarise
from tests.delivery.world import ORIGIN, Free, Order, World, counts, stream_over


@pytest.mark.parametrize("meanwhile", ["lost_answer", "fine"])
def test_a_late_429_does_not_resend_what_another_worker_sent_meanwhile(world: World, meanwhile: str) -> None:
    post, is_first = world.kk.post, [True]

    def slow_429(order: Order, before_send: BeforeSend) -> list[str]:
        if not is_first.pop() if is_first else True:
            return post(order, before_send)
        world.clock.sleep(800)
        world.kk.meets("A", meanwhile)
        world.sync("A", waits=False)
        raise KKRateLimitedError("429")

    world.kk.post = slow_429  # type: ignore[method-assign]
    world.sync("A")
    assert world.kk.count("A") == 1


def test_a_late_created_of_old_content_counts_as_changed(world: World) -> None:
    old, new = Order("A", {"S": 1}), Order("A", {"S": 5})
    first = world.ledger.claim(world.job(old), None, origin=ORIGIN, sync_id="s")
    assert first is not None
    second = world.ledger.claim(world.job(new), world.entry("A"), origin=ORIGIN, sync_id="s")
    assert second is not None
    world.ledger.record(second, AttemptResult(Event.NOT_SENT))
    world.kk.add(old)
    world.ledger.record(first, AttemptResult(Event.CREATED, ("1",)))
    assert counts(world.sync(new)) == {"changed": 1}


def test_the_permit_of_an_order_that_another_worker_sends_is_released(world: World) -> None:
    handed_back = []

    class Rivalled(Free):
        def acquire(self, stop: Any = None, *, to_send: bool = False) -> None:
            world.sync("A")

        def release(self, held_s: float) -> None:
            handed_back.append(held_s)

    stream, run_queue, _, _ = stream_over(world, Order("A"), throttle=Rivalled())
    stream.run()
    assert run_queue.counts() == {RunStatus.WAITING: 1}
    stream.reconcile_waiting()
    stream.close()
    assert run_queue.counts() == {RunStatus.ALREADY_CREATED: 1}
    assert handed_back == [0.0]
    assert world.kk.count("A") == 1


def test_a_failing_worker_hides_nothing_of_what_the_others_did(world: World) -> None:
    def make_job(key: str) -> Any:
        if key.startswith("BAD"):
            raise RuntimeError("a bug")
        return world.job(Order(key))

    keys = ["BAD1", "G1", "G2", "BAD2", "G3"]
    stream, run_queue, runs, run = stream_over(
        world, *(Order(key) for key in keys), make_job=make_job, in_flight=8
    )
    with pytest.raises(RuntimeError):
        stream.run()
    stream.close()
    told = {one.key: one.status for one in run_queue.finished()}
    created = [key for key, entry in world.ledger.look_up(keys).items() if entry.state is State.CREATED]
    assert {told[key] for key in created} <= {RunStatus.CREATED}
    assert summarise(run_queue, run, runs).selected == len(keys)
