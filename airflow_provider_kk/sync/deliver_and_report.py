"""Deliver the orders that a sync loaded, and report their results."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from airflow_provider_kk.delivery.log import OrderLog
from airflow_provider_kk.delivery.run_queue import RunStatus
from airflow_provider_kk.sync.deliver import DeferUntil
from airflow_provider_kk.sync.errors import SyncError
from airflow_provider_kk.sync.failure_policy import failing_states, task_failure

if TYPE_CHECKING:
    from airflow_provider_kk.delivery.log import Log
    from airflow_provider_kk.delivery.run_queue import RunResult
    from airflow_provider_kk.sync.deliver import Delivery
    from airflow_provider_kk.sync.sync_counts import Summary
    from airflow_provider_kk.warehouse.write_back import Result, WriteBack


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


def open_write_back(
    given: str | Mapping[str, str] | None, warehouse: Any, log: Log, *, is_plan: bool
) -> WriteBack | None:
    """Check and prepare an operator's `write_back`; a plan prepares nothing.

    :raises SyncError: the argument is wrong, or the warehouse has no usable table for the results. A retry
        helps only if the warehouse cannot be reached.
    """
    from airflow_provider_kk.warehouse.write_back import WriteBack

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


def write_results(
    delivery: Delivery, warehouse: Any, write_back: WriteBack | None, log: Log
) -> SyncError | None:
    """Write back the orders' results; return the error with which the task fails, if there is one.

    It raises nothing, since the summary is published after it.
    """
    if write_back is None:
        return None
    try:
        write_back.write(warehouse, _results(delivery), log)
    except Exception as error:
        fault = _describe(error, log)
        log.error("%s", fault)
        return SyncError(f"{fault}. The orders are safe. A retry writes their results", is_retryable=True)
    return None


def _describe(error: Exception, log: Log) -> str:
    """Return an error as a sentence without any row, and log the source of an unexpected error."""
    import traceback

    from airflow_provider_kk.delivery.sql.driver_errors import redact_db_error
    from airflow_provider_kk.warehouse.write_back import WriteBackError

    if isinstance(error, WriteBackError):
        return str(error)
    # The frames only: the error's own text may hold a row.
    log.error("write_back failed in:\n%s", "".join(traceback.format_tb(error.__traceback__)))
    return f"write_back: {redact_db_error(getattr(error, 'orig', None) or error, '')}"


def _results(delivery: Delivery) -> Iterator[Result]:
    import pendulum

    from airflow_provider_kk.warehouse.write_back import Result

    at = pendulum.from_timestamp(delivery.ledger.now())
    for one in delivery.run_queue.finished():
        if one.name is not None:
            state = _warehouse_state(one)
            # In the warehouse, ids mean that an order is done. One that is held or changed is not.
            ids = one.kk_order_ids if state == "created" else ()
            lines = _lines(delivery, one) if state == "created" and one.is_new else None
            yield Result(one.name, state, list(ids), one.message or None, at, lines)


def _lines(delivery: Delivery, finished: RunResult) -> int | None:
    import json

    item = delivery.run_queue.item(finished.key or "")
    return len(json.loads(item.payload)["items"]) if item else None


def _warehouse_state(finished: RunResult) -> str:
    """Return the state for the warehouse: one for all orders at KK, one for all orders in doubt."""
    return _WAREHOUSE_STATES.get(finished.status.value, finished.status.value)


_WAREHOUSE_STATES = {"already_created": "created", "adopted": "created", "waiting": "in_doubt"}
