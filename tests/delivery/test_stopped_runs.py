"""Runs that are stopped, limited or cleared."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from airflow_provider_kk.delivery.attempt import Limits
from airflow_provider_kk.delivery.clock import Stop
from airflow_provider_kk.delivery.model import ThrottleStopped
from airflow_provider_kk.delivery.run_queue import RunStatus
from tests.delivery.world import Free, Order, World, counts, stream_over


def test_a_stopped_run_reports_what_the_ledger_knows(world: World) -> None:
    world.kk.meets("A", "lost_answer")
    world.sync("A", waits=False)
    stop = Stop()
    stop.set("SIGTERM")
    stream, run_queue, _, _ = stream_over(world, Order("known"), Order("A"), Order("B"), stop=stop)
    stream.run()
    stream.stop_waiting()
    stream.close()
    assert run_queue.counts() == {RunStatus.ALREADY_CREATED: 1, RunStatus.IN_DOUBT: 1, RunStatus.NOT_SENT: 1}


def test_an_order_in_doubt_whose_resend_was_stopped_stays_in_doubt(world: World) -> None:
    world.kk.meets("A", "lost_request")
    world.sync("A", waits=False)
    world.clock.sleep(800)

    class Stopping(Free):
        def acquire(self, stop: Any = None, *, to_send: bool = False) -> None:
            stop.set("SIGTERM")
            raise ThrottleStopped

    stream, run_queue, _, _ = stream_over(world, Order("A"), throttle=Stopping())
    stream.run()
    stream.close()
    assert run_queue.counts() == {RunStatus.IN_DOUBT: 1}


def test_a_limit_counts_a_resent_order_once(world: World) -> None:
    world.kk.meets("A", "lost_request")
    assert counts(world.sync("A", limits=Limits(1, max_sent=1))) == {"created": 1}


def test_a_cleared_task_retries_what_was_rejected_days_ago(world: World) -> None:
    world.kk.meets("A", "refused")
    world.kk.meets("B", "never_left")
    world.sync("A", "B", run_id="r")
    world.clock.sleep(3 * 86_400)
    assert counts(world.sync("A", "B", run_id="r")) == {"created": 2}


class Down(Exception):
    """As SQLAlchemy's errors, it carries the driver's, and of its own the statement."""

    def __init__(self) -> None:
        super().__init__("UPDATE kk_account ...")
        self.orig = OSError("could not connect to server\nIs it running?")


def test_the_first_failure_is_named_and_the_others_are_counted(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    together = threading.Barrier(4)

    class Failing(Free):
        def acquire(self, stop: Any = None, *, to_send: bool = False) -> None:
            together.wait(300)
            raise Down

    stream, _, _, _ = stream_over(world, *map(Order, "ABCD"), throttle=Failing(), in_flight=4)
    with pytest.raises(Down):
        stream.run()
    stream.close()
    assert caplog.messages == [
        "Nothing more is sent after OSError: could not connect to server",
        "3 orders in flight failed, too: OSError: could not connect to server",
    ]
