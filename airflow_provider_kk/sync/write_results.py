"""Write what became of a sync's orders back into the warehouse."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from airflow_provider_kk.sync.errors import SyncError

if TYPE_CHECKING:
    from airflow_provider_kk.delivery.log import Log
    from airflow_provider_kk.delivery.run_queue import RunResult
    from airflow_provider_kk.sync.delivery import Delivery
    from airflow_provider_kk.warehouse.write_back import Result, WriteBack


def open_write_back(
    given: str | Mapping[str, str] | None, warehouse: Any, log: Log, *, is_plan: bool
) -> WriteBack | None:
    """Check and prepare an operator's `write_back`; a plan prepares nothing.

    :raises SyncError: it cannot be understood; or, which a retry may get over, the warehouse has no table for
        the results.
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
        fault = _describe(error, log)
    else:
        return write_back
    # Outside of the handler, so that no traceback carries a row.
    raise SyncError(f"{fault}. Nothing is sent before the results have a place", is_retryable=True)


def write_results(
    delivery: Delivery, warehouse: Any, write_back: WriteBack | None, log: Log
) -> SyncError | None:
    """Write back what became of the orders; return what the task is to fail with when that does not go.

    No error of a driver, or of this package, may cost the summary: it comes after this.
    """
    if write_back is None:
        return None
    try:
        write_back.write(warehouse, _results(delivery), log)
    except Exception as error:
        fault = _describe(error, log)
        log.error("%s", fault)
        return SyncError(f"{fault}. The orders themselves are safe: a retry writes back", is_retryable=True)
    return None


def _describe(error: Exception, log: Log) -> str:
    """Return a sentence without a row in it, and log where an error that nobody foresaw comes from."""
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
            # Ids tell the warehouse that an order is done with: one that is held or changed is not.
            ids = one.kk_order_ids if state == "created" else ()
            lines = _lines(delivery, one) if state == "created" and one.is_new else None
            yield Result(one.name, state, list(ids), one.message or None, at, lines)


def _lines(delivery: Delivery, finished: RunResult) -> int | None:
    import json

    item = delivery.run_queue.item(finished.key or "")
    return len(json.loads(item.payload)["items"]) if item else None


def _warehouse_state(finished: RunResult) -> str:
    """The state that a warehouse is told: one word for an order that is at KK, one for what is in doubt."""
    return _WAREHOUSE_STATES.get(finished.status.value, finished.status.value)


_WAREHOUSE_STATES = {"already_created": "created", "adopted": "created", "waiting": "in_doubt"}
