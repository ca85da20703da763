"""Create one order for a task: check the order, deliver it, and decide whether the task succeeds.

Without a ledger connection, a temporary ledger serves one try, and KK's list replaces a lasting one.
"""

from __future__ import annotations

import tempfile
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from airflow_provider_kk.api.api_versions import API_VERSIONS
from airflow_provider_kk.api.errors import Fault, InvalidOrderError
from airflow_provider_kk.api.models import Order
from airflow_provider_kk.api.validators import OrderNumber, RequestModel
from airflow_provider_kk.delivery.run_queue import RunStatus
from airflow_provider_kk.sync.deliver import DeferUntil, item_of
from airflow_provider_kk.sync.errors import SyncError
from airflow_provider_kk.sync.failure_policy import order_failure

if TYPE_CHECKING:
    from airflow_provider_kk.delivery.clock import Stop
    from airflow_provider_kk.delivery.log import Log
    from airflow_provider_kk.delivery.model import Origin
    from airflow_provider_kk.delivery.run_queue import RunResult
    from airflow_provider_kk.delivery.sql.storage import SqlLedger
    from airflow_provider_kk.hooks.connection import ConnectionSettings
    from airflow_provider_kk.hooks.kk import KKHook
    from airflow_provider_kk.sync.deliver import Delivery
    from airflow_provider_kk.sync.sync_counts import Summary

#: The namespace of derived order numbers. It must never change, so that a task's number never changes.
_NUMBERS = uuid.UUID("5f0f4ba2-6f3c-5b0e-9a55-2b6a4e0b7c11")
#: The period of KK's list in which the order number is searched, since its first sending is not recorded.
_RECOVER_PERIOD_S = 86_400.0


class _Number(RequestModel):
    """The order number that a task has in addition to a whole order."""

    custom_order_number: OrderNumber = None


def build_order(
    whole: Any, fields: Mapping[str, Any], *, settings: ConnectionSettings, origin: Origin, log: Log
) -> Order:
    """Check a task's order, given as a whole or in single fields, and return it with its number.

    :param whole: an `Order`, a mapping or JSON text; None if the fields are given.
    :param fields: the single fields; None stands for a field that is not given.
    :param log: gets a warning for each value that was corrected or looks wrong.
    :raises SyncError: the order is invalid; the text has every fault.
    """
    given = {name: value for name, value in fields.items() if value is not None}
    number = given.pop("custom_order_number", None) if whole is not None else None
    if whole is not None and given:
        raise _invalid(
            f"Set either order or the single fields. {', '.join(sorted(given))} is set in addition to order"
        )
    notices: list[Fault] = []
    try:
        order = Order.parse(given if whole is None else whole, notices)
        API_VERSIONS[settings.api_version].check(order)
        beside = _Number.parse({"custom_order_number": number}).custom_order_number
    except InvalidOrderError as error:
        fault = str(error)
    else:
        for notice in notices:
            log.warning("%s", notice)
        if beside is not None and order.custom_order_number not in (None, beside):
            raise _invalid(
                "custom_order_number differs between the operator and its order. Set it in one place"
            )
        found = order.custom_order_number or beside or _derived_number(settings.account, origin)
        return order.model_copy(update={"custom_order_number": found})
    # Outside of the handler, so that no traceback has personal data.
    raise _invalid(fault)


def _derived_number(account: str, origin: Origin) -> str:
    if not origin.run_id:
        raise _invalid("Set custom_order_number: no number can be derived outside of a DAG run")
    name = "/".join([account, origin.dag_id, origin.run_id, origin.task_id, str(origin.map_index)])
    return f"af-{uuid.uuid5(_NUMBERS, name).hex}"


def _invalid(fault: str) -> SyncError:
    return SyncError(fault, is_retryable=False)


def create_order(order: Order, delivery: Delivery, *, changes_fail: bool) -> tuple[RunResult, Summary]:
    """Deliver one order and return its result.

    :raises DeferUntil: the task has to wait, then call this again.
    :raises SyncError: the order is not at KK, or `changes_fail` and KK has it with other content.
    """
    delivery.run_queue.add([item_of(0, order)])
    summary, failure = delivery.deliver()
    states = {DeferUntil: "waiting", type(None): "done"}
    delivery.end(states.get(type(failure), "failed"), summary)
    if failure is not None:
        raise failure
    (result,) = delivery.run_queue.finished()
    if fault := order_failure(result, changes_fail=changes_fail):
        raise fault
    if result.status is RunStatus.CHANGED:
        delivery.log.warning("%s: %s", result.key, result.message)
    ids = ", ".join(result.kk_order_ids)
    delivery.log.info("Order %s is at KK as %s (%s)", result.key, ids, result.status.replace("_", " "))
    return result, summary


@contextmanager
def ephemeral_ledger(hook: KKHook, try_number: int, stop: Stop, log: Log) -> Iterator[SqlLedger]:
    """Yield a ledger for this try only.

    Each try first adopts the orders of the last day from KK's list. A later try waits for a settle window
    before that, so that KK's list has the order of an earlier try.
    """
    import sqlalchemy as sa

    from airflow_provider_kk.delivery.sql.database import pool_arguments
    from airflow_provider_kk.hooks.ledger_connection import ledger_on

    if hook.settings.max_orders_per_day is not None:
        raise SyncError(
            f"Connection {hook.kk_conn_id!r} sets max_orders_per_day, which only a ledger can count. Set "
            "ledger_conn_id on the operator or in the extra of the connection",
            is_retryable=False,
        )
    log.warning(
        "No ledger is set. If the task is killed or cleared, only KK's list protects against a duplicate, "
        "and the rate limit is not shared with other tasks. Set ledger_conn_id on the operator or in the "
        "extra of connection %r",
        hook.kk_conn_id,
    )
    with tempfile.TemporaryDirectory(prefix="kk-ledger-") as folder:
        url = f"sqlite:///{Path(folder) / 'ledger.db'}"
        ledger = ledger_on(sa.create_engine(url, **pool_arguments("sqlite", 4)), hook)
        ledger.storage.set_recovered_until(ledger.now() - _RECOVER_PERIOD_S)
        if try_number > 1:
            log.info(
                "Try %d waits %.0f s, until KK's list must have an order of an earlier try",
                try_number,
                ledger.timing.settle_window_s,
            )
            stop.wait(ledger.timing.settle_window_s)
        try:
            yield ledger
        finally:
            ledger.close()
