"""How triggers read from KK: in a thread, so that the event loop of their triggerer goes on."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from airflow_provider_kk.api.client import KKClient
    from airflow_provider_kk.api.throttle import Throttle
    from airflow_provider_kk.hooks.connection import ConnectionSettings

T = TypeVar("T")


async def read_kk(
    kk_conn_id: str,
    ledger_conn_id: str | None,
    read: Callable[[KKClient], T],
    own_limit: Callable[[ConnectionSettings], Throttle] | None = None,
) -> T:
    """Return what `read` makes of KK's answers, asked within the account's rate limit.

    :param own_limit: the limit to keep to without a ledger; None: one of this call's own.
    """
    from airflow.providers.common.compat.connection import get_async_connection

    # Anew each time: a token may have been exchanged since.
    kk = await get_async_connection(kk_conn_id)
    ledger = await get_async_connection(ledger_conn_id) if ledger_conn_id else None
    return await asyncio.to_thread(_read, kk, ledger, read, own_limit)


def _read(
    kk: Any,
    ledger: Any | None,
    read: Callable[[KKClient], T],
    own_limit: Callable[[ConnectionSettings], Throttle] | None,
) -> T:
    from airflow_provider_kk.hooks.connection import parse_connection
    from airflow_provider_kk.hooks.kk import KKHook
    from airflow_provider_kk.hooks.reading import reading

    hook = KKHook(kk.conn_id)
    hook.settings = parse_connection(kk)
    with reading(hook, ledger, own_limit(hook.settings) if own_limit else None) as (client, _):
        return read(client)
