"""A client for reading, within the rate limit that the account's workers share where there is a ledger."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from airflow_provider_kk.api.client import KKClient
    from airflow_provider_kk.api.throttle import Throttle
    from airflow_provider_kk.delivery.orders import KKOrderList
    from airflow_provider_kk.delivery.sql.storage import SqlLedger
    from airflow_provider_kk.hooks.kk import KKHook


@contextmanager
def reading(
    hook: KKHook, ledger_connection: Any | None, otherwise: Throttle | None = None
) -> Iterator[tuple[KKClient, SqlLedger | None]]:
    """A client within the rate that all workers share by the ledger, and that.

    Without a ledger within `otherwise`, else within a rate of this process alone.
    """
    from airflow_provider_kk.hooks.ledger_connection import ledger_behind

    if ledger_connection is None:
        with hook.client(otherwise or hook.settings.local_bucket()) as client:
            yield client, None
        return
    with (
        closing(ledger_behind(ledger_connection, hook, threads=1)) as ledger,
        hook.client(hook.settings.shared_bucket(ledger)) as client,
    ):
        yield client, ledger


@contextmanager
def open_order_list(hook: KKHook, ledger: SqlLedger) -> Iterator[KKOrderList]:
    """Read KK's list, at the rate that the account's syncs keep to together.

    :raises KKError: when KK cannot be asked.
    """
    from airflow_provider_kk.delivery.orders import KKOrderList

    with hook.client(hook.settings.shared_bucket(ledger)) as client:
        client.list_orders(page_size=1)  # tells how far KK's clock is off, and fails early
        yield KKOrderList(client)
