"""Sensor that waits until an order at KK is paid, shipped, delivered or refunded."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import (
    AirflowException,
    AirflowFailException,
    AirflowSensorTimeout,
    AirflowSkipException,
    BaseHook,
    BaseSensorOperator,
    PokeReturnValue,
)

from airflow_provider_kk.hooks.kk import KKHook
from airflow_provider_kk.links.kk import IN_LEDGER
from airflow_provider_kk.operators.base import DEFERRABLE, order_argument, rendered, translate_errors

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context, XComArg

    from airflow_provider_kk.api.client import KKClient
    from airflow_provider_kk.api.fulfilment import Outlook
    from airflow_provider_kk.delivery.listing import Splits
    from airflow_provider_kk.delivery.sql.storage import SqlLedger

GOALS = ("paid", "shipped", "delivered", "refunded")


class OrderSensor(BaseSensorOperator):
    """Waits until an order at KK reaches the status `until`, and fails at once if it never will.

    A cancelled, refunded or abnormal order is never paid, shipped or delivered. A shipped order, or one whose
    refund KK rejected, is never refunded. The sensor reads KK every `poke_interval` seconds (60), for at most
    `timeout` seconds. If KK cannot be read, the next poke reads it again. Deferred sensors of one triggerer
    share their requests.

    Returns the orders: `[{kk_order_id, custom_order_number, status, packages: [{id, status, carrier,
    tracking_code, tracking_url}]}]`. Source: KK's page "Query orders".

    :param kk_order_id: the order, by KK's id.
    :param custom_order_number: the order, by your own number, which needs a ledger. The sensor waits until
        the ledger has it as created, then for all its splits at KK.
    :param until: `paid`, `shipped` (all parcels), `delivered`, or `refunded` (all of it).
    :param any_split: wait for one of the splits only.
    :param kk_conn_id: the Airflow connection to KK.
    :param ledger_conn_id: the database connection of the ledger, else the kk connection's. With a ledger, all
        workers share one rate limit.
    :param deferrable: wait in the triggerer.
    :raises AirflowFailException: the order never reaches the status; a retry does not help.
    :raises AirflowSensorTimeout: the order did not reach the status in time.
    """

    template_fields: Sequence[str] = ("kk_order_id", "custom_order_number", "kk_conn_id", "ledger_conn_id")
    operator_extra_links = IN_LEDGER
    ui_color = "#ece8dc"

    _last_status = ""

    def __init__(
        self,
        *,
        kk_order_id: str | XComArg | None = None,
        custom_order_number: str | XComArg | None = None,
        until: str = "shipped",
        any_split: bool = False,
        kk_conn_id: str = KKHook.default_conn_name,
        ledger_conn_id: str | None = None,
        deferrable: bool = DEFERRABLE,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if until not in GOALS:
            raise ValueError(f"until must be one of {', '.join(GOALS)}, not {until!r}")
        self._given = order_argument(kk_order_id, custom_order_number)
        self.kk_order_id = kk_order_id
        self.custom_order_number = custom_order_number
        self.until = until
        self.any_split = any_split
        self.kk_conn_id = kk_conn_id
        self.ledger_conn_id = ledger_conn_id
        self.deferrable = deferrable

    def execute(self, context: Context) -> Any:
        """Wait, and return the orders."""
        if not self.deferrable:
            try:
                return super().execute(context)
            except AirflowSensorTimeout as error:
                raise AirflowSensorTimeout(f"{error} {self._last_status}") from error
        return self._wait_deferred(time.time() + self.timeout)

    def poke(self, context: Context) -> PokeReturnValue:
        """Read KK once and report whether the order has reached the status."""
        seen, _ = self._poll()
        return PokeReturnValue(seen is not None and seen.is_reached, seen.orders if seen else None)

    def resume(self, context: Context, event: dict[str, Any]) -> Any:
        """Return the orders of the trigger's event, or defer again until the deadline."""
        state = event.get("state")
        if state == "reached":
            return event["orders"]
        if state == "error":
            raise AirflowException(event["reason"])
        if state == "failed":
            with self._softly():
                raise AirflowFailException(event["reason"])
        return self._wait_deferred(event["deadline"])

    def _wait_deferred(self, deadline: float) -> Any:
        from airflow_provider_kk.hooks.ledger_connection import resolve_ledger_conn_id
        from airflow_provider_kk.triggers.kk import OrderTrigger

        with self._softly():
            seen, ids = self._poll()
            if seen is not None and seen.is_reached:
                return seen.orders
            if time.time() >= deadline:
                raise AirflowSensorTimeout(
                    f"The order was not {self.until} within {self.timeout:g} s. {self._last_status}"
                )
        trigger = OrderTrigger(
            kk_conn_id=self.kk_conn_id,
            ledger_conn_id=resolve_ledger_conn_id(KKHook(self.kk_conn_id), self.ledger_conn_id),
            kk_order_ids=ids,
            until=self.until,
            any_split=self.any_split,
            poll_s=self.poke_interval,
            deadline=deadline,
        )
        self.defer(trigger=trigger, method_name="resume")

    def _poll(self) -> tuple[Outlook | None, list[str]]:
        """Return the orders' outlook, None while it is not known, and their ids once all are known."""
        from airflow_provider_kk.api.errors import KKAuthError, KKEndpointError, KKError
        from airflow_provider_kk.api.fulfilment import FulfilmentStatus, not_listed, outlook
        from airflow_provider_kk.delivery.model import InconclusiveError

        try:
            ids, listed, are_all = self._read()
        except (KKAuthError, KKEndpointError) as error:
            raise AirflowException(str(error)) from error
        except (KKError, InconclusiveError) as error:
            self._last_status = f"KK cannot be read: {error}. The sensor reads it again at the next poke"
            self.log.warning("%s", self._last_status)
            return None, []
        if not ids:
            self.log.info("%s", self._last_status)
            return None, []
        seen = outlook(ids, listed, FulfilmentStatus(self.until), any_split=self.any_split)
        is_clear = are_all or self.any_split
        if seen.why_never and (are_all or not self.any_split):
            raise AirflowFailException(seen.why_never)
        found = ", ".join(f"{one['kk_order_id']} is {one['status']}" for one in seen.orders)
        self._last_status = f"Waiting for {self.until}: {found or 'KK lists no order yet'}"
        self.log.info("%s", self._last_status)
        if seen.missing:
            self._last_status = not_listed(seen.missing)
            self.log.warning("%s", self._last_status)
        return (seen if is_clear else None), (ids if are_all else [])

    def _read(self) -> tuple[list[str], Sequence[Any], bool]:
        """Return the ids, KK's orders of these ids, and whether these are all splits."""
        from airflow_provider_kk.hooks.ledger_connection import reading, resolve_ledger_conn_id

        given = rendered(self, self._given)
        with translate_errors():
            hook = KKHook(self.kk_conn_id)
            ledger_conn_id = resolve_ledger_conn_id(hook, self.ledger_conn_id)
            connection = BaseHook.get_connection(ledger_conn_id) if ledger_conn_id else None
            with reading(hook, connection) as (client, ledger):
                if self._given == "custom_order_number":
                    splits = self._splits(given, client, ledger)
                    return list(splits.kk_order_ids), splits.orders, splits.are_all
                try:
                    return [given], client.get_orders([given]), True
                except ValueError as error:
                    raise AirflowFailException(f"kk_order_id: {error}") from error

    def _splits(self, number: str, client: KKClient, ledger: SqlLedger | None) -> Splits:
        from airflow_provider_kk.delivery.listing import splits_of

        if ledger is None:
            raise AirflowFailException(
                "KK cannot search by order number, so the sensor needs a ledger. Set ledger_conn_id on the "
                f"sensor or in the extra of connection {self.kk_conn_id!r}, or wait for a kk_order_id"
            )
        splits = splits_of(number, ledger, client)
        if not splits.kk_order_ids:
            state = splits.state or "not known"
            self._last_status = f"Order {number} is {state} in the ledger, not created yet"
        elif not splits.are_all:
            self.log.info("KK's list does not have all goods of order %s yet", number)
        return splits

    @contextmanager
    def _softly(self) -> Iterator[None]:
        """Skip the task instead of failing it if `soft_fail` or `never_fail` is set, as Airflow does."""
        try:
            yield
        except (AirflowFailException, AirflowSensorTimeout) as error:
            if self.soft_fail or getattr(self, "never_fail", False):
                raise AirflowSkipException(str(error)) from error
            raise
