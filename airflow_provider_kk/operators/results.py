"""What became of a sync's orders, back into the warehouse."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import AirflowException, AirflowFailException

if TYPE_CHECKING:
    from airflow_provider_kk.delivery.board import Finished
    from airflow_provider_kk.delivery.log import Log
    from airflow_provider_kk.operators.run import Delivery
    from airflow_provider_kk.warehouse.write_back import Result, WriteBack


def open_write_back(
    given: str | Mapping[str, str] | None, warehouse: Any, *, is_plan: bool
) -> WriteBack | None:
    """Check and prepare an operator's `write_back`; a plan prepares nothing.

    :raises AirflowFailException: it cannot be understood.
    :raises AirflowException: the warehouse has no place for the results.
    """
    from airflow_provider_kk.warehouse.write_back import WriteBack, WriteBackError

    if given is None:
        return None
    try:
        write_back = WriteBack.parse(given)
    except ValueError as error:
        raise AirflowFailException(str(error)) from error
    if is_plan:
        return write_back
    try:
        write_back.prepare(warehouse)
    except WriteBackError as error:
        raise AirflowException(f"{error}. Nothing is sent before the results have a place") from None
    return write_back


def tell_warehouse(
    delivery: Delivery, warehouse: Any, write_back: WriteBack | None, log: Log
) -> AirflowException | None:
    """Write back what became of the orders; return what the task is to fail with when that does not go."""
    from airflow_provider_kk.warehouse.write_back import WriteBackError

    if write_back is None:
        return None
    try:
        write_back.write(warehouse, _results(delivery), log)
    except WriteBackError as error:
        log.error("%s", error)
        return AirflowException(f"{error}. The orders themselves are safe: a retry writes back")
    return None


def _results(delivery: Delivery) -> Iterator[Result]:
    import pendulum

    from airflow_provider_kk.warehouse.write_back import Result

    at = pendulum.from_timestamp(delivery.ledger.now())
    for one in delivery.board.finished():
        if one.name is not None:
            told = _told(one)
            # Ids tell the warehouse that an order is done with: one that is held or changed is not.
            ids = one.kk_order_ids if told == "created" else ()
            lines = _lines(delivery, one) if told == "created" and one.is_news else None
            yield Result(one.name, told, list(ids), one.message or None, at, lines)


def _lines(delivery: Delivery, finished: Finished) -> int | None:
    import json

    item = delivery.board.item(finished.key or "")
    return len(json.loads(item.payload)["items"]) if item else None


def _told(finished: Finished) -> str:
    """The state that a warehouse is told: one word for an order that is at KK, one for what is in doubt."""
    return _TOLD.get(finished.status.value, finished.status.value)


_TOLD = {"already_created": "created", "adopted": "created", "waiting": "in_doubt"}
