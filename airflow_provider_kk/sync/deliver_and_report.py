"""Deliver the orders that a sync loaded, and report their results."""

from __future__ import annotations

import json
import traceback
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import pendulum

from airflow_provider_kk.delivery.log import OrderLog
from airflow_provider_kk.delivery.run_queue import RunStatus
from airflow_provider_kk.delivery.sql.driver_errors import redact_db_error
from airflow_provider_kk.delivery.sql.report import Report
from airflow_provider_kk.delivery.states import State
from airflow_provider_kk.hooks.metrics import gauge_account
from airflow_provider_kk.sync.deliver import DeferUntil
from airflow_provider_kk.sync.errors import SyncError
from airflow_provider_kk.sync.failure_policy import failing_states, task_failure
from airflow_provider_kk.warehouse.write_back import Result, WriteBack, WriteBackError

if TYPE_CHECKING:
    from airflow_provider_kk.delivery.log import Log
    from airflow_provider_kk.sync.deliver import Delivery
    from airflow_provider_kk.sync.sync_counts import Summary


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
    delivery.before_waiting = lambda: write_results(delivery, warehouse, write_back)
    summary, failure = delivery.deliver()
    log.info("%s", summary.line())
    try:
        not_written = write_results(delivery, warehouse, write_back)
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
        state for state in (State.REJECTED, State.INVALID, State.HELD) if getattr(summary, state.value)
    ]
    # Orders before which the sync stopped are not in the ledger.
    if states and not delivery.guard_exceeded and (found := Report(delivery.ledger.storage).count(states)):
        log.info(
            "To list these orders with their reasons, run `kk ledger list --state %s --kk-conn-id %s "
            "--ledger-conn-id %s`",
            " --state ".join(state.value for state in states if state in found),
            delivery.hook.kk_conn_id,
            ledger_conn_id,
        )
    delivery.end("failed" if failure else "done", summary)
    gauge_account(delivery.ledger, delivery.tags)
    if failure is not None:
        raise failure
    return summary


def open_write_back(
    given: str | Mapping[str, str] | None, warehouse: Any, log: Log, *, is_plan: bool
) -> WriteBack | None:
    """Check and prepare an operator's `write_back`; a plan prepares nothing.

    :raises SyncError: the argument is wrong, or the warehouse has no usable table for the results. A retry
        helps only if the warehouse cannot be reached.
    """
    if given is None:
        return None
    try:
        write_back = WriteBack.parse(given)
    except ValueError as error:
        raise SyncError(str(error), is_retryable=False) from error
    if is_plan:
        return write_back
    try:
        write_back.prepare(warehouse)
    except Exception as error:
        fault, is_retryable = _describe(error, log), getattr(error, "is_retryable", True)
    else:
        return write_back
    # Outside of the handler, so that no traceback carries a row.
    raise SyncError(f"{fault}. Nothing is sent until the results can be written", is_retryable=is_retryable)


def write_results(delivery: Delivery, warehouse: Any, write_back: WriteBack | None) -> SyncError | None:
    """Write back the orders' results; return the error with which the task fails, if there is one.

    It raises nothing, since the summary is published after it.
    """
    if write_back is None:
        return None
    try:
        write_back.write(warehouse, _results(delivery), delivery.log)
    except Exception as error:
        fault = _describe(error, delivery.log)
        delivery.log.error("%s", fault)
        return SyncError(f"{fault}. The orders are safe. A retry writes their results", is_retryable=True)
    return None


def _describe(error: Exception, log: Log) -> str:
    """Return an error as a sentence without any row, and log the source of an unexpected error."""
    if isinstance(error, WriteBackError):
        return str(error)
    # The frames only: the error's own text may hold a row.
    log.error("write_back failed in:\n%s", "".join(traceback.format_tb(error.__traceback__)))
    return f"write_back: {redact_db_error(getattr(error, 'orig', None) or error, '')}"


#: Orders at KK have one state in the warehouse, and orders in doubt, too.
_WAREHOUSE_STATES = {"already_created": "created", "adopted": "created", "waiting": "in_doubt"}


def _results(delivery: Delivery) -> Iterator[Result]:
    at = pendulum.from_timestamp(delivery.ledger.now())
    for one in delivery.run_queue.finished():
        if one.name is not None:
            state = _WAREHOUSE_STATES.get(one.status.value, one.status.value)
            # In the warehouse, ids mean that an order is done. One that is held or changed is not.
            ids = list(one.kk_order_ids) if state == "created" else []
            item = delivery.run_queue.item(one.key or "") if state == "created" and one.is_new else None
            lines = len(json.loads(item.payload)["items"]) if item else None
            yield Result(one.name, state, ids, one.message or None, at, lines)
