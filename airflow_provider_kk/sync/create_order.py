"""Create one order for a task: check the order, deliver it, and decide whether the task succeeds."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from airflow_provider_kk.api.api_versions import API_VERSIONS
from airflow_provider_kk.api.errors import Fault, InvalidOrderError
from airflow_provider_kk.api.models import Order, RequestModel
from airflow_provider_kk.api.validators import OrderNumber
from airflow_provider_kk.delivery.run_queue import RunStatus
from airflow_provider_kk.sync.delivery_task import DeferUntil, item_of
from airflow_provider_kk.sync.errors import SyncError
from airflow_provider_kk.sync.failure_policy import order_failure

if TYPE_CHECKING:
    from airflow_provider_kk.delivery.log import Log
    from airflow_provider_kk.delivery.model import Origin
    from airflow_provider_kk.delivery.run_queue import RunResult
    from airflow_provider_kk.hooks.connection import ConnectionSettings
    from airflow_provider_kk.sync.delivery_task import Delivery
    from airflow_provider_kk.sync.runs import Summary

#: The namespace of derived order numbers. It must never change, so that a task's number never changes.
_NUMBERS = uuid.UUID("5f0f4ba2-6f3c-5b0e-9a55-2b6a4e0b7c11")


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
    summary, failure = delivery.deliver_and_summarise()
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
