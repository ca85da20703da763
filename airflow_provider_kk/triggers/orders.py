"""A trigger that waits for orders at KK, together with all others of its triggerer."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from typing import Any

from airflow.triggers.base import BaseTrigger, TriggerEvent

from airflow_provider_kk.triggers.polling import poller_of

_LEAST_POLL_S = 0.5


class OrderTrigger(BaseTrigger):
    """Fires when the orders have reached `until`, when they never will, or at the deadline. Only reads.

    The event is `{"state": "reached" | "failed" | "error" | "timeout", "reason": ..., "orders": [...],
    "deadline": ...}`, the orders as `journey.plain` gives them.

    :param kk_conn_id: the Airflow connection to KK.
    :param ledger_conn_id: where the account's rate limit is shared with all workers; None: a limit of this
        triggerer's own.
    :param kk_order_ids: what to wait for; none: it fires at the next tick with the state `again`.
    :param until: a `journey.Goal`.
    :param any_split: whether one of the orders is enough.
    :param poll_s: seconds from one look to the next. All triggers with the same look at the same time, and
        share their requests.
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

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Return how to make this trigger again."""
        names = ("kk_conn_id", "ledger_conn_id", "kk_order_ids", "until", "any_split", "poll_s", "deadline")
        return "airflow_provider_kk.triggers.orders.OrderTrigger", {
            name: getattr(self, name) for name in names
        }

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Look at the orders at each tick, then fire once."""
        while (now := time.time()) < self.deadline:
            poll_s = max(self.poll_s, _LEAST_POLL_S)
            # The ticks are the same for everybody, so that those who wait ask together.
            await asyncio.sleep(min(poll_s - now % poll_s, self.deadline - now))
            event = await self._poll() if self.kk_order_ids else {"state": "again"}
            if event is not None:
                yield self._event(event)
                return
        yield self._event({"state": "timeout"})

    def _event(self, event: dict[str, Any]) -> TriggerEvent:
        # Beside it, since `dag.test()` forgets what else a deferral has noted.
        return TriggerEvent({**event, "deadline": self.deadline})  # type: ignore[no-untyped-call]

    async def _poll(self) -> dict[str, Any] | None:
        from airflow_provider_kk.api.errors import KKAuthError, KKEndpointError
        from airflow_provider_kk.api.fulfilment import Goal, outlook
        from airflow_provider_kk.hooks.connection import InvalidConnectionError

        try:
            listed = await poller_of(self.kk_conn_id, self.ledger_conn_id).orders(self.kk_order_ids)
        except (InvalidConnectionError, KKAuthError, KKEndpointError) as error:
            return {"state": "error", "reason": str(error)}
        except Exception:
            # The poller has said what; whatever it was, the next look may succeed.
            return None
        seen = outlook(self.kk_order_ids, listed, Goal(self.until), any_split=self.any_split)
        if seen.is_reached:
            return {"state": "reached", "orders": seen.orders}
        return {"state": "failed", "reason": seen.why_never} if seen.why_never else None
