"""Write the results of a sync's orders back into the warehouse."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from airflow_provider_kk.sync.errors import SyncError

if TYPE_CHECKING:
    from airflow_provider_kk.delivery.log import Log
    from airflow_provider_kk.delivery.run_queue import RunResult
    from airflow_provider_kk.sync.deliver import Delivery
    from airflow_provider_kk.warehouse.write_back import Result, WriteBack


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
