"""Deliver the orders that a sync loaded, and report their results."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from airflow_provider_kk.delivery.log import OrderLog
from airflow_provider_kk.delivery.run_queue import RunStatus
from airflow_provider_kk.sync.deliver import DeferUntil
from airflow_provider_kk.sync.failure_policy import failing_states, task_failure
from airflow_provider_kk.sync.write_results import write_results

if TYPE_CHECKING:
    from airflow_provider_kk.sync.deliver import Delivery
    from airflow_provider_kk.sync.sync_counts import Summary
    from airflow_provider_kk.warehouse.write_back import WriteBack


def deliver_orders(
    delivery: Delivery,
    warehouse: Any,
    write_back: WriteBack | None,
    *,
    publish: Callable[[dict[str, Any]], None],
    max_rejected: float,
    changes_fail: bool,
    ledger_conn_id: str,
) -> Summary:
    """Deliver, then report to the warehouse, `publish` and the ledger, in this order, also after an error.

    :param publish: gets the summary; if it raises, the next try continues this sync.
    :raises DeferUntil: the task has to wait, then call this again with the same orders.
    :raises SyncError: the sync fails; see `task_failure`.
    """
    log = delivery.log
    delivery.before_waiting = lambda: write_results(delivery, warehouse, write_back, log)
    summary, failure = delivery.deliver_and_summarise()
    log.info("%s", summary.line())
    try:
        not_written = write_results(delivery, warehouse, write_back, log)
        # If the task is deferred, a failed write-back is repeated when it resumes.
        failure = failure or not_written
    except BaseException as error:  # the task's timeout, or a signal
        failure = error
    if isinstance(failure, DeferUntil):
        delivery.end("waiting", summary)
        raise failure
    publish(summary.as_dict())
    if changes_fail:
        order_log = OrderLog(log)
        for one in delivery.run_queue.finished(RunStatus.CHANGED):
            one.warn(order_log)
        order_log.flush()
    failure = failure or task_failure(delivery, summary, max_rejected=max_rejected, changes_fail=changes_fail)
    # If the task fails because of some orders, list those; else all that have problems.
    states = failing_states(summary, max_rejected=max_rejected) or [
        state for state in ("rejected", "invalid", "held") if getattr(summary, state)
    ]
    # Orders before which the sync stopped are not in the ledger.
    if states and not delivery.guard_exceeded and (states := delivery.in_ledger(states)):
        log.info(
            "To list these orders with their reasons, run `kk ledger list --state %s --kk-conn-id %s "
            "--ledger-conn-id %s`",
            " --state ".join(states),
            delivery.hook.kk_conn_id,
            ledger_conn_id,
        )
    delivery.end("failed" if failure else "done", summary)
    delivery.gauge_account()
    if failure is not None:
        raise failure
    return summary
