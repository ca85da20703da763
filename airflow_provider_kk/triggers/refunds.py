"""A trigger that waits for KK's decision on refunds."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Sequence
from typing import TYPE_CHECKING, Any

from airflow.triggers.base import BaseTrigger, TriggerEvent

from airflow_provider_kk.triggers.reading import read_kk

if TYPE_CHECKING:
    from airflow_provider_kk.api.client import KKClient

log = logging.getLogger(__name__)

_LEAST_POLL_S = 0.5


class RefundTrigger(BaseTrigger):
    """Fires when KK has decided on all of the refunds, or at the deadline. Only reads.

    The event is `{"state": "decided" | "timeout" | "error", "reason": ...}`: the task looks at KK again.

    :param kk_conn_id: the Airflow connection to KK.
    :param ledger_conn_id: where the account's rate limit is shared with all workers.
    :param refund_keys: the refunds by their keys, see `delivery.refunds.refund_key`.
    :param poll_s: seconds from one look to the next.
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

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Return how to make this trigger again."""
        names = ("kk_conn_id", "ledger_conn_id", "refund_keys", "poll_s", "deadline")
        return "airflow_provider_kk.triggers.refunds.RefundTrigger", {
            name: getattr(self, name) for name in names
        }

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Look at the refunds from time to time, then fire once."""
        while (now := time.time()) < self.deadline:
            await asyncio.sleep(min(max(self.poll_s, _LEAST_POLL_S), self.deadline - now))
            event = await self._poll()
            if event is not None:
                yield TriggerEvent(event)  # type: ignore[no-untyped-call]
                return
        yield TriggerEvent({"state": "timeout"})  # type: ignore[no-untyped-call]

    async def _poll(self) -> dict[str, Any] | None:
        from airflow_provider_kk.api.errors import KKAuthError, KKEndpointError
        from airflow_provider_kk.hooks.connection import InvalidConnectionError

        try:
            is_decided = await read_kk(self.kk_conn_id, self.ledger_conn_id, self._are_decided)
        except (InvalidConnectionError, KKAuthError, KKEndpointError) as error:
            return {"state": "error", "reason": str(error)}
        except Exception as error:
            # Whatever it was, the next look may succeed; its text may hold anything.
            log.warning("KK's refunds cannot be read, so this is looked at again: %s", type(error).__name__)
            return None
        return {"state": "decided"} if is_decided else None

    def _are_decided(self, client: KKClient) -> bool:
        from airflow_provider_kk.delivery.refunds import is_decided, order_of_key

        return all(is_decided(client.get_refunds(order_of_key(key)), key) for key in self.refund_keys)
