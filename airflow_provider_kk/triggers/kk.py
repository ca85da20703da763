"""Triggers that wait for a time, for orders at KK, or for KK's decision on refunds."""

from __future__ import annotations

import asyncio
import inspect
import logging
import time
from collections.abc import AsyncIterator, Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeVar
from weakref import WeakKeyDictionary

from airflow.triggers.base import BaseTrigger, TriggerEvent

if TYPE_CHECKING:
    from airflow_provider_kk.api.client import KKClient
    from airflow_provider_kk.api.models import KKOrder
    from airflow_provider_kk.api.throttle import LocalBucket, Throttle
    from airflow_provider_kk.hooks.connection import ConnectionSettings

log = logging.getLogger(__name__)

T = TypeVar("T")

_MIN_POLL_S = 0.5
#: Seconds for which a poller collects questions before it sends one request for all of them.
_GATHER_S = 0.25

_Question = tuple[Sequence[str], "asyncio.Future[list[KKOrder]]"]
_pollers: WeakKeyDictionary[asyncio.AbstractEventLoop, dict[tuple[str, str | None], Poller]] = (
    WeakKeyDictionary()
)


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


async def read_kk(
    kk_conn_id: str,
    ledger_conn_id: str | None,
    read: Callable[[KKClient], T],
    own_limit: Callable[[ConnectionSettings], Throttle] | None = None,
) -> T:
    """Run `read` with a client in a thread, within the account's rate limit, and return its result.

    :param own_limit: returns the rate limit to use without a ledger; None: a limit of this call alone.
    """
    from airflow.providers.common.compat.connection import get_async_connection

    # Read the connection each time, since its token may have changed.
    kk = await get_async_connection(kk_conn_id)
    ledger = await get_async_connection(ledger_conn_id) if ledger_conn_id else None

    def read_in_thread() -> T:
        from airflow_provider_kk.hooks.connection import parse_connection
        from airflow_provider_kk.hooks.kk import KKHook
        from airflow_provider_kk.hooks.ledger_connection import reading

        hook = KKHook(kk.conn_id)
        hook.settings = parse_connection(kk)
        with reading(hook, ledger, own_limit(hook.settings) if own_limit else None) as (client, _):
            return read(client)

    return await asyncio.to_thread(read_in_thread)


def poller_of(kk_conn_id: str, ledger_conn_id: str | None) -> Poller:
    """Return the poller of a connection, which all triggers of this event loop share."""
    pollers = _pollers.setdefault(asyncio.get_running_loop(), {})
    key = (kk_conn_id, ledger_conn_id)
    if key not in pollers:
        pollers[key] = Poller(*key)
    return pollers[key]


class Poller:
    """Reads the orders of many triggers in one request, within the account's rate limit.

    One request runs at a time. Questions that arrive meanwhile share the next request.
    """

    def __init__(self, kk_conn_id: str, ledger_conn_id: str | None) -> None:
        self._kk_conn_id = kk_conn_id
        self._ledger_conn_id = ledger_conn_id
        self._questions: list[_Question] = []
        self._serving: asyncio.Task[None] | None = None
        self._bucket: LocalBucket | None = None

    async def orders(self, kk_order_ids: Sequence[str]) -> list[KKOrder]:
        """Return those of the orders that KK lists.

        :raises KKError: KK cannot be read. Errors of the connections are raised, too.
        """
        answer: asyncio.Future[list[KKOrder]] = asyncio.get_running_loop().create_future()
        self._questions.append((kk_order_ids, answer))
        if self._serving is None:
            self._serving = asyncio.create_task(self._serve())
        return await answer

    async def _serve(self) -> None:
        try:
            while self._questions:
                await asyncio.sleep(_GATHER_S)
                questions, self._questions = self._questions, []
                await self._answer([one for one in questions if not one[1].done()])
        finally:
            # A task would keep its event loop alive.
            self._serving = None

    async def _answer(self, questions: Sequence[_Question]) -> None:
        try:
            found = await self._read(sorted({kk_id for ids, _ in questions for kk_id in ids}))
        except Exception as error:
            log.warning(
                "KK's orders cannot be read for %d waiting tasks: %s. The next poll retries",
                len(questions),
                error,
            )
            for _, answer in questions:
                if not answer.done():
                    answer.set_exception(error)
            return
        for ids, answer in questions:
            if not answer.done():
                answer.set_result([found[kk_id] for kk_id in ids if kk_id in found])

    async def _read(self, kk_order_ids: list[str]) -> dict[str, KKOrder]:
        def read(client: KKClient) -> dict[str, KKOrder]:
            return {order.id: order for order in client.get_orders(kk_order_ids)}

        return await read_kk(self._kk_conn_id, self._ledger_conn_id, read, self._own_limit)

    def _own_limit(self, settings: ConnectionSettings) -> LocalBucket:
        if self._bucket is None:
            self._bucket = settings.local_bucket()
        return self._bucket
