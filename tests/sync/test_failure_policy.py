"""What a failed sync says: why, which orders, and how many more."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from airflow_provider_kk.delivery.model import Content
from airflow_provider_kk.delivery.run_queue import QueuedOrder, RunQueue, RunStatus
from airflow_provider_kk.sync.failure_policy import task_failure
from airflow_provider_kk.sync.sync_counts import count


def said(
    states: list[tuple[RunStatus, bool, str]], *, breaker_reason: str | None = None, elsewhere: Any = ()
) -> str:
    """The text of a sync over orders A-0, A-1, ... of which each is (status, is_news, message)."""
    run_queue = RunQueue()
    run_queue.add(QueuedOrder(n, f"A-{n}", Content(), "") for n in range(len(states)))
    for n, (status, is_new, message) in enumerate(states):
        run_queue.set(n, status, is_new=is_new, message=message)
    summary = count(run_queue)
    summary.newly_held += len(elsewhere)
    delivery: Any = SimpleNamespace(
        run_queue=run_queue,
        breaker_reason=breaker_reason,
        breaker_error=None,
        guard_exceeded="",
        held_elsewhere=list(elsewhere),
        hook=None,
    )
    return str(task_failure(delivery, summary, max_rejected=0, changes_fail=True))


def test_orders_not_sent_are_reported_with_a_reason_when_nothing_stopped_the_sync() -> None:
    lease = "75 s of the lease of 6 s had passed before the first byte"
    text = said([(RunStatus.NOT_SENT, True, lease)] * 8 + [(RunStatus.CREATED, True, "")])
    assert text == (
        f"8 orders not sent (A-0, A-1, A-2, A-3, A-4 and 3 more: {lease}). "
        "A retry, or the next run, continues where this try stopped"
    )


def test_what_stopped_a_sync_is_reported_once() -> None:
    text = said([(RunStatus.NOT_SENT, True, "KK is down")] * 8, breaker_reason="KK is down")
    assert text.startswith("8 orders not sent, because KK is down. ")


def test_held_orders_that_the_sync_did_not_select_are_named_and_counted_too() -> None:
    held = [(RunStatus.HELD, True, "conflict")] * 2 + [(RunStatus.HELD, False, "long ago")]
    text = said(held, elsewhere=["B-1", "B-2", "B-3", "B-4"])
    assert text.startswith("6 orders newly held (A-0, A-1, B-1, B-2, B-3 and 1 more: conflict). See ")


def test_held_orders_of_earlier_runs_are_no_examples_of_new_ones() -> None:
    text = said([(RunStatus.HELD, False, "long ago")], elsewhere=["B-1"])
    assert text.startswith("1 order newly held (B-1). See ")
