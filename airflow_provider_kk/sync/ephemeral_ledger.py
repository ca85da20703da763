"""A temporary ledger for one try of a single order, if no ledger is set. KK's list replaces a lasting one."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from airflow_provider_kk.delivery.clock import Stop
    from airflow_provider_kk.delivery.log import Log
    from airflow_provider_kk.delivery.sql.storage import SqlLedger
    from airflow_provider_kk.hooks.kk import KKHook

#: The period of KK's list in which the order number is searched, since its first sending is not recorded.
_RECOVER_PERIOD_S = 86_400.0


@contextmanager
def ephemeral_ledger(hook: KKHook, try_number: int, stop: Stop, log: Log) -> Iterator[SqlLedger]:
    """Yield a ledger for this try only.

    Each try first adopts the orders of the last day from KK's list. A later try waits for a settle window
    before that, so that KK's list has the order of an earlier try.
    """
    import sqlalchemy as sa

    from airflow_provider_kk.delivery.sql.database import pool_arguments
    from airflow_provider_kk.hooks.ledger_connection import ledger_on
    from airflow_provider_kk.sync.errors import SyncError

    if hook.settings.max_orders_per_day is not None:
        raise SyncError(
            f"Connection {hook.kk_conn_id!r} sets max_orders_per_day, which only a ledger can count. Set "
            "ledger_conn_id on the operator or in the extra of the connection",
            is_retryable=False,
        )
    log.warning(
        "No ledger is set. If the task is killed or cleared, only KK's list protects against a duplicate, "
        "and the rate limit is not shared with other tasks. Set ledger_conn_id on the operator or in the "
        "extra of connection %r",
        hook.kk_conn_id,
    )
    with tempfile.TemporaryDirectory(prefix="kk-ledger-") as folder:
        url = f"sqlite:///{Path(folder) / 'ledger.db'}"
        ledger = ledger_on(sa.create_engine(url, **pool_arguments("sqlite", 4)), hook)
        ledger.storage.set_recovered_until(ledger.now() - _RECOVER_PERIOD_S)
        if try_number > 1:
            log.info(
                "Try %d waits %.0f s, until KK's list must have an order of an earlier try",
                try_number,
                ledger.timing.settle_window_s,
            )
            stop.wait(ledger.timing.settle_window_s)
        try:
            yield ledger
        finally:
            ledger.close()
