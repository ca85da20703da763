"""Waiting until an order at KK is paid, shipped, delivered or refunded."""

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
    conf,
)

from airflow_provider_kk.hooks.kk import KKHook
from airflow_provider_kk.links.kk import IN_LEDGER

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context, XComArg

    from airflow_provider_kk.api.client import KKClient
    from airflow_provider_kk.api.fulfilment import Outlook
    from airflow_provider_kk.delivery.listing import Splits
    from airflow_provider_kk.delivery.sql.storage import SqlLedger

GOALS = ("paid", "shipped", "delivered", "refunded")
_DEFERRABLE = conf.getboolean("operators", "default_deferrable", fallback=False)


class OrderSensor(BaseSensorOperator):
    """Waits until an order at KK has reached `until`; fails at once, with the reason, when it never will.

    It will not when it is cancelled, refunded or abnormal; a refund will not come when the order is shipped
    before, or KK has refused it. Looks every `poke_interval` seconds (60), for `timeout` seconds; a KK that
    cannot be read is asked again at the next look. Deferred sensors of one triggerer share their requests.

    Returns the orders: `[{kk_order_id, custom_order_number, status, packages: [{id, status, carrier,
    tracking_code, tracking_url}]}]`. Source: KK's page "Query orders".

    :param kk_order_id: the order by KK's id.
    :param custom_order_number: or by your own number, which takes a ledger. It is waited for until the ledger
        has it as created, then for all orders that KK has split it into.
    :param until: `paid`, `shipped` (all parcels), `delivered`, or `refunded` (all of it).
    :param any_split: one of the splits is enough.
    :param kk_conn_id: the Airflow connection to KK.
    :param ledger_conn_id: the database connection of the ledger, else the kk connection's. With one, the rate
        limit is shared with all workers.
    :param deferrable: wait in the triggerer.
    :raises AirflowFailException: it will not get there; a retry would not help.
    :raises AirflowSensorTimeout: it did not get there in time.
    """

    template_fields: Sequence[str] = ("kk_order_id", "custom_order_number", "kk_conn_id", "ledger_conn_id")
    operator_extra_links = IN_LEDGER
    ui_color = "#ece8dc"

    _last_seen = ""

    def __init__(
        self,
        *,
        kk_order_id: str | XComArg | None = None,
        custom_order_number: str | XComArg | None = None,
        until: str = "shipped",
        any_split: bool = False,
        kk_conn_id: str = KKHook.default_conn_name,
        ledger_conn_id: str | None = None,
        deferrable: bool = _DEFERRABLE,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if until not in GOALS:
            raise ValueError(f"until must be one of {', '.join(GOALS)}, not {until!r}")
        if (kk_order_id is None) == (custom_order_number is None):
            raise ValueError("give either kk_order_id or custom_order_number")
        self._given = "custom_order_number" if kk_order_id is None else "kk_order_id"
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
                raise AirflowSensorTimeout(f"{error} {self._last_seen}") from error
        return self._wait_deferred(time.time() + self.timeout)

    def poke(self, context: Context) -> PokeReturnValue:
        """Look once."""
        seen, _ = self._poll()
        return PokeReturnValue(seen is not None and seen.is_reached, seen.orders if seen else None)

    def resume(self, context: Context, event: dict[str, Any]) -> Any:
        """Take what the trigger has seen, or look and wait on."""
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
        from airflow_provider_kk.triggers.kk import OrderTrigger

        with self._softly():
            seen, ids = self._poll()
            if seen is not None and seen.is_reached:
                return seen.orders
            if time.time() >= deadline:
                raise AirflowSensorTimeout(
                    f"The order was not {self.until} within {self.timeout:g} s. {self._last_seen}"
                )
        trigger = OrderTrigger(
            kk_conn_id=self.kk_conn_id,
            ledger_conn_id=self._ledger_conn_id(KKHook(self.kk_conn_id)),
            kk_order_ids=ids,
            until=self.until,
            any_split=self.any_split,
            poll_s=self.poke_interval,
            deadline=deadline,
        )
        self.defer(trigger=trigger, method_name="resume")

    def _poll(self) -> tuple[Outlook | None, list[str]]:
        """How the orders stand, None when that cannot be told yet; and their ids, once all are known."""
        from airflow_provider_kk.api.errors import KKAuthError, KKEndpointError, KKError
        from airflow_provider_kk.api.fulfilment import Goal, not_listed, outlook
        from airflow_provider_kk.delivery.model import InconclusiveError

        try:
            ids, listed, are_all = self._read()
        except (KKAuthError, KKEndpointError) as error:
            raise AirflowException(str(error)) from error
        except (KKError, InconclusiveError) as error:
            self._last_seen = f"KK cannot be read, so this is looked at again later: {error}"
            self.log.warning("%s", self._last_seen)
            return None, []
        if not ids:
            self.log.info("%s", self._last_seen)
            return None, []
        seen = outlook(ids, listed, Goal(self.until), any_split=self.any_split)
        is_clear = are_all or self.any_split
        if seen.why_never and (are_all or not self.any_split):
            raise AirflowFailException(seen.why_never)
        found = ", ".join(f"{one['kk_order_id']} is {one['status']}" for one in seen.orders)
        self._last_seen = f"Waiting for {self.until}: {found or 'nothing seen yet'}"
        self.log.info("%s", self._last_seen)
        if seen.missing:
            self._last_seen = not_listed(seen.missing)
            self.log.warning("%s", self._last_seen)
        return (seen if is_clear else None), (ids if are_all else [])

    def _read(self) -> tuple[list[str], Sequence[Any], bool]:
        """The ids, what KK lists of them, and whether these are all."""
        asked_for = str(getattr(self, self._given)).strip()
        if asked_for in ("", "None"):
            raise AirflowFailException(
                f"{self._given} rendered to {asked_for or 'an empty text'}. Check that the upstream task "
                "returned a value"
            )
        with self._reading() as (client, ledger):
            if self._given == "kk_order_id":
                ids = [asked_for]
                try:
                    return ids, client.get_orders(ids), True
                except ValueError as error:
                    raise AirflowFailException(f"kk_order_id: {error}") from error
            splits = self._splits(asked_for, client, ledger)
            return list(splits.kk_order_ids), splits.orders, splits.are_all

    def _splits(self, number: str, client: KKClient, ledger: SqlLedger | None) -> Splits:
        from airflow_provider_kk.delivery.listing import splits_of

        if ledger is None:
            raise AirflowFailException(
                "To wait for an order number, set ledger_conn_id on the sensor or in the extra of "
                f"{self.kk_conn_id!r}: KK does not look orders up by it"
            )
        splits = splits_of(number, ledger, client)
        if not splits.kk_order_ids:
            state = splits.state or "not known"
            self._last_seen = f"Order {number} is {state} in the ledger, not created yet"
        elif not splits.are_all:
            self.log.info("KK's list does not show all goods of order %s yet", number)
        return splits

    @contextmanager
    def _reading(self) -> Iterator[tuple[KKClient, SqlLedger | None]]:
        from airflow_provider_kk.hooks.ledger_connection import reading
        from airflow_provider_kk.operators.base import translate_errors

        with translate_errors():
            hook = KKHook(self.kk_conn_id)
            ledger_conn_id = self._ledger_conn_id(hook)
            connection = BaseHook.get_connection(ledger_conn_id) if ledger_conn_id else None
            with reading(hook, connection) as found:
                yield found

    def _ledger_conn_id(self, hook: KKHook) -> str | None:
        from airflow_provider_kk.hooks.ledger_connection import resolve_ledger_conn_id

        return resolve_ledger_conn_id(hook, self.ledger_conn_id)

    @contextmanager
    def _softly(self) -> Iterator[None]:
        """As a sensor that is not deferred treats its end."""
        try:
            yield
        except (AirflowFailException, AirflowSensorTimeout) as error:
            if self.soft_fail or getattr(self, "never_fail", False):
                raise AirflowSkipException(str(error)) from error
            raise
