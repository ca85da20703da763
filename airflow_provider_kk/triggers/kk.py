"""Triggers that wait for a time, for orders at KK, or for KK's decision on refunds."""

from __future__ import annotations

import asyncio
import inspect
import logging
import time
from collections.abc import AsyncIterator, Sequence
from typing import TYPE_CHECKING, Any

from airflow.triggers.base import BaseTrigger, TriggerEvent

from airflow_provider_kk.triggers.shared_reads import poller_of, read_kk

if TYPE_CHECKING:
    from airflow_provider_kk.api.client import KKClient

log = logging.getLogger(__name__)

_MIN_POLL_S = 0.5


class _KKTrigger(BaseTrigger):
    """A trigger that keeps each of its arguments in an attribute of the same name."""

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Return the class path and the arguments from which Airflow creates this trigger again."""
        kind = type(self)
        names = list(inspect.signature(kind).parameters)
        return f"{kind.__module__}.{kind.__name__}", {name: getattr(self, name) for name in names}


class SleepTrigger(_KKTrigger):
    """Fires at a time, so that a task needs no worker slot while it waits for a settle window.

    :param until: epoch seconds of the worker's clock; absolute, so that a restart does not start over.
    :param longest_s: the most seconds to sleep, even if the triggerer's clock is behind.
    """

    def __init__(self, until: float, longest_s: float | None = None) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.until = until
        self.longest_s = longest_s

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Sleep, then fire."""
        left_s = self.until - time.time()
        await asyncio.sleep(max(0.0, left_s if self.longest_s is None else min(left_s, self.longest_s)))
        yield TriggerEvent({"until": self.until})  # type: ignore[no-untyped-call]


class OrderTrigger(_KKTrigger):
    """Fires when the orders reach `until`, when they never will, or at the deadline. It only reads.

    The event is `{"state": "reached" | "failed" | "error" | "timeout", "reason": ..., "orders": [...],
    "deadline": ...}`, the orders as `fulfilment.plain` returns them.

    :param kk_conn_id: the Airflow connection to KK.
    :param ledger_conn_id: where the account's rate limit is shared with all workers; None: a limit of this
        triggerer's own.
    :param kk_order_ids: the orders to wait for; if there are none, it fires at the next tick with the state
        `again`.
    :param until: the value of a `FulfilmentStatus`.
    :param any_split: wait for one of the orders only.
    :param poll_s: seconds from one poll to the next. All triggers with the same value poll at the same time,
        and share their requests.
    :param deadline: epoch seconds of the triggerer's clock; absolute, so that a restart does not start over.
    """

    def __init__(
        self,
        *,
        kk_conn_id: str,
        ledger_conn_id: str | None,
        kk_order_ids: Sequence[str],
        until: str,
        any_split: bool,
        poll_s: float,
        deadline: float,
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.kk_conn_id = kk_conn_id
        self.ledger_conn_id = ledger_conn_id
        self.kk_order_ids = list(kk_order_ids)
        self.until = until
        self.any_split = any_split
        self.poll_s = poll_s
        self.deadline = deadline

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Poll the orders at each tick, then fire once."""
        while (now := time.time()) < self.deadline:
            poll_s = max(self.poll_s, _MIN_POLL_S)
            # All triggers have the same ticks, so that they share requests.
            await asyncio.sleep(min(poll_s - now % poll_s, self.deadline - now))
            event = await self._poll() if self.kk_order_ids else {"state": "again"}
            if event is not None:
                yield self._event(event)
                return
        yield self._event({"state": "timeout"})

    def _event(self, event: dict[str, Any]) -> TriggerEvent:
        # `dag.test()` drops the arguments of a deferral, so the event carries the deadline.
        return TriggerEvent({**event, "deadline": self.deadline})  # type: ignore[no-untyped-call]

    async def _poll(self) -> dict[str, Any] | None:
        from airflow_provider_kk.api.fulfilment import FulfilmentStatus, outlook

        try:
            listed = await poller_of(self.kk_conn_id, self.ledger_conn_id).orders(self.kk_order_ids)
        except _permanent_errors() as error:
            return {"state": "error", "reason": str(error)}
        except Exception:
            # The poller has logged it, and the next poll may succeed.
            return None
        seen = outlook(self.kk_order_ids, listed, FulfilmentStatus(self.until), any_split=self.any_split)
        if seen.is_reached:
            return {"state": "reached", "orders": seen.orders}
        return {"state": "failed", "reason": seen.why_never} if seen.why_never else None


class RefundTrigger(_KKTrigger):
    """Fires when KK has decided on all of the refunds, or at the deadline. It only reads.

    The event is `{"state": "decided" | "timeout" | "error", "reason": ...}`. The task then reads KK again.

    :param kk_conn_id: the Airflow connection to KK.
    :param ledger_conn_id: where the account's rate limit is shared with all workers.
    :param refund_keys: the refunds by their keys, see `delivery.refunds.refund_key`.
    :param poll_s: seconds from one poll to the next.
    :param deadline: epoch seconds of the triggerer's clock; absolute, so that a restart does not start over.
    """

    def __init__(
        self,
        *,
        kk_conn_id: str,
        ledger_conn_id: str,
        refund_keys: Sequence[str],
        poll_s: float,
        deadline: float,
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.kk_conn_id = kk_conn_id
        self.ledger_conn_id = ledger_conn_id
        self.refund_keys = list(refund_keys)
        self.poll_s = poll_s
        self.deadline = deadline

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Poll the refunds every `poll_s` seconds, then fire once."""
        while (now := time.time()) < self.deadline:
            await asyncio.sleep(min(max(self.poll_s, _MIN_POLL_S), self.deadline - now))
            event = await self._poll()
            if event is not None:
                yield TriggerEvent(event)  # type: ignore[no-untyped-call]
                return
        yield TriggerEvent({"state": "timeout"})  # type: ignore[no-untyped-call]

    async def _poll(self) -> dict[str, Any] | None:
        try:
            is_decided = await read_kk(self.kk_conn_id, self.ledger_conn_id, self._are_decided)
        except _permanent_errors() as error:
            return {"state": "error", "reason": str(error)}
        except Exception as error:
            # The next poll may succeed. The error's text may hold personal data.
            log.warning("KK's refunds cannot be read (%s). The next poll retries", type(error).__name__)
            return None
        return {"state": "decided"} if is_decided else None

    def _are_decided(self, client: KKClient) -> bool:
        from airflow_provider_kk.delivery.refunds import is_decided, order_of_key

        return all(is_decided(client.get_refunds(order_of_key(key)), key) for key in self.refund_keys)


def _permanent_errors() -> tuple[type[Exception], ...]:
    """Return the errors that another poll cannot fix."""
    from airflow_provider_kk.api.errors import KKAuthError, KKEndpointError
    from airflow_provider_kk.hooks.connection import InvalidConnectionError

    return InvalidConnectionError, KKAuthError, KKEndpointError
