"""Reading KK for triggers: in a thread, and with one request for the orders of many triggers."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, TypeVar
from weakref import WeakKeyDictionary

if TYPE_CHECKING:
    from airflow_provider_kk.api.client import KKClient
    from airflow_provider_kk.api.models import KKOrder
    from airflow_provider_kk.api.throttle import LocalBucket, Throttle
    from airflow_provider_kk.hooks.connection import ConnectionSettings

log = logging.getLogger(__name__)

T = TypeVar("T")

#: Seconds for which a poller collects questions before it sends one request for all of them.
_GATHER_S = 0.25

_Question = tuple[Sequence[str], "asyncio.Future[list[KKOrder]]"]
_pollers: WeakKeyDictionary[asyncio.AbstractEventLoop, dict[tuple[str, str | None], Poller]] = (
    WeakKeyDictionary()
)


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
