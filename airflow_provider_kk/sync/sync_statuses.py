"""Sync the statuses of a task's account into the warehouse, and decide whether the task succeeds."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from airflow_provider_kk.api.errors import KKError
from airflow_provider_kk.delivery.log import some_of
from airflow_provider_kk.delivery.model import InconclusiveError
from airflow_provider_kk.hooks.ledger_connection import NEEDED, engine_behind, type_without_keys
from airflow_provider_kk.hooks.metrics import count_requests, count_statuses, tags_of
from airflow_provider_kk.sync.errors import SyncError
from airflow_provider_kk.sync.sync_counts import SyncRuns
from airflow_provider_kk.warehouse.status_sync import StatusSync, StoppedError
from airflow_provider_kk.warehouse.status_tables import StatusTables, StatusTablesError
from airflow_provider_kk.warehouse.updated_orders import LAG_S

if TYPE_CHECKING:
    from airflow_provider_kk.delivery.clock import Stop
    from airflow_provider_kk.delivery.log import Log
    from airflow_provider_kk.delivery.model import Origin
    from airflow_provider_kk.delivery.sql.storage import SqlLedger
    from airflow_provider_kk.hooks.kk import KKHook
    from airflow_provider_kk.sync.sync_counts import SyncRun


def open_status_tables(
    hook: KKHook, warehouse: Any, hook_params: Mapping[str, Any] | None, table_prefix: str
) -> StatusTables:
    """Open the status tables of a warehouse. They need not exist yet.

    :param warehouse: the Airflow connection.
    :raises SyncError: the warehouse, or the prefix of the tables' names, cannot be used.
    """
    from airflow_provider_kk.delivery.sql.database import pool_arguments

    if unfit := type_without_keys(warehouse):
        raise SyncError(
            f"The warehouse {warehouse.conn_id!r} is of type {unfit}. The status tables need a "
            f"database that enforces unique keys: set warehouse_conn_id to {NEEDED}",
            is_retryable=False,
        )
    engine = engine_behind(warehouse, pool_arguments(warehouse.conn_type, 1), hook_params)
    try:
        return StatusTables(engine, hook.settings.host, hook.settings.account, table_prefix)
    except (StatusTablesError, ValueError) as error:
        raise SyncError(str(error), is_retryable=False) from error


def sync_statuses(
    hook: KKHook,
    ledger: SqlLedger,
    tables: StatusTables,
    *,
    origin: Origin,
    overlap_s: float,
    stop: Stop,
    log: Log,
    publish: Callable[[dict[str, Any]], None],
) -> dict[str, Any]:
    """Copy the changes at KK into the tables and return the counts.

    :param publish: gets the counts, also if the sync fails.
    :raises SyncError: KK or the warehouse cannot be used, or an order is newly held.
    """
    bucket, tags = hook.settings.shared_bucket(ledger), tags_of(hook.settings.account, origin)
    with hook.client(bucket) as client:
        sync = StatusSync(client, tables, ledger, overlap_s, log, stop)
        try:
            return _sync(sync, SyncRuns(ledger), origin, publish)
        finally:
            count_statuses(sync.summary.orders, sync.summary.changed, tags)
            count_requests(client, bucket, tags)


def _sync(
    sync: StatusSync, runs: SyncRuns, origin: Origin, publish: Callable[[dict[str, Any]], None]
) -> dict[str, Any]:
    from sqlalchemy.exc import DBAPIError

    summary, log = sync.summary, sync.log
    run = runs.begin(origin)
    try:
        failure = _failure_of(sync)
    except BaseException:
        # The next try has to count the changes that this one wrote into the tables.
        with suppress(DBAPIError):
            runs.end(run, "failed", _result(run, sync))
        raise
    log.info(
        "%d orders read, %d changed, %d completed in the ledger, %d odd; up to date until %s",
        summary.orders,
        summary.changed,
        summary.splits,
        summary.odd,
        summary.synced_until or "no later than before",
    )
    if failure is None and not summary.orders:
        log.info(
            "No change was read. KK lists changes late, so a run reads only those that are at least %.0f "
            "minutes old",
            LAG_S / 60,
        )
    result = _result(run, sync)
    publish(result)
    runs.end(run, "failed" if failure or summary.conflicts else "done", result)
    if failure is not None:
        raise SyncError(failure, is_retryable=True)
    if named := summary.conflicts[:20]:
        raise SyncError(
            f"KK has more goods than were sent under {some_of(named, len(summary.conflicts))}. These orders "
            "are held. See `kk ledger show`, then resolve each with `kk ledger resolve`",
            is_retryable=False,
        )
    return result


def _result(run: SyncRun, sync: StatusSync) -> dict[str, Any]:
    # The tables have the changes of earlier tries, and a DAG that waits for changes must count them, too.
    changed = run.before.get("changed", 0) + sync.summary.changed
    return {**asdict(sync.summary), "changed": changed, "requests": sync.client.requests}


def _failure_of(sync: StatusSync) -> str | None:
    """Run the sync and return its failure as a sentence; None if it succeeds."""
    try:
        sync.tables.create()
        sync.run()
    except (KKError, InconclusiveError) as error:
        return (
            f"KK's changes cannot be read: {error}. A retry, or the next run, continues where this try "
            "stopped"
        )
    except (StatusTablesError, StoppedError) as error:
        return str(error)
    return None
