"""What KK knows of its orders, into the warehouse."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import AirflowException, AirflowFailException, BaseHook

from airflow_provider_kk.assets.kk import STATUSES
from airflow_provider_kk.hooks.database import NEEDED, enforces_keys, engine_behind, hook_behind, type_of
from airflow_provider_kk.hooks.kk import KKHook
from airflow_provider_kk.hooks.metrics import count_requests, count_statuses, tags_of
from airflow_provider_kk.operators.base import KKOperator, origin_of, push
from airflow_provider_kk.operators.lineage import emit, lineage, orders_at_kk, tables_of, with_count

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context

    from airflow_provider_kk.hooks.connection import ConnectionSettings
    from airflow_provider_kk.sync.runs import SyncRun, SyncRuns
    from airflow_provider_kk.warehouse.status import StatusSync
    from airflow_provider_kk.warehouse.status_tables import StatusTables


class SyncOrderStatusOperator(KKOperator):
    """Pulls all orders that have changed at KK since the last time into tables of the warehouse.

    Makes and fills `kk_order_status`, `kk_order_line` and `kk_package`, and remembers in `kk_status_sync` up
    to when they are complete. A status there never goes back, a package once seen stays, an odd field is NULL
    and named. Splits that the answer to a create did not name are added to the ledger.

    Returns `{orders, changed, splits, conflicts, odd, odd_orders, synced_until, requests}`, pushed before the
    task fails, too. Source: KK's page "Query orders", which advises to query up to 10 minutes before now.

    :param warehouse_conn_id: SQLite, PostgreSQL or MySQL.
    :param hook_params: for the warehouse's hook, and for the ledger's when it is in the warehouse.
    :param kk_conn_id: the Airflow connection to KK.
    :param ledger_conn_id: the database connection of the ledger, else the kk connection's, else the
        warehouse.
    :param table_prefix: what the tables' names begin with; `schema.prefix_` for those of a schema.
    :param overlap_s: how many seconds before the end of the last sync this one begins, for changes that KK
        listed later than after 10 minutes.
    :raises AirflowException: KK or the warehouse cannot be used; a retry goes on where this try stopped.
    :raises AirflowFailException: KK has more goods under an order number than were sent: it is newly held.
        Or the warehouse is of another type.
    """

    template_fields: Sequence[str] = ("warehouse_conn_id", "kk_conn_id", "ledger_conn_id", "table_prefix")
    ui_color = "#e3ecdc"

    _changed = 0

    def __init__(
        self,
        *,
        warehouse_conn_id: str,
        hook_params: Mapping[str, Any] | None = None,
        table_prefix: str = "kk_",
        overlap_s: float = 900,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if overlap_s < 0:
            raise ValueError("overlap_s must not be negative")
        self.warehouse_conn_id = warehouse_conn_id
        self.hook_params = hook_params
        self.table_prefix = table_prefix
        self.overlap_s = overlap_s

    def _execute(self, context: Context) -> dict[str, Any]:
        from airflow_provider_kk.hooks.ledger_connection import open_ledger, resolve_ledger_conn_id
        from airflow_provider_kk.sync.runs import SyncRuns
        from airflow_provider_kk.warehouse.status import StatusSync

        stop = self._new_stop()
        warehouse: Any = BaseHook.get_connection(self.warehouse_conn_id)
        if not enforces_keys(warehouse):
            raise AirflowFailException(
                f"The warehouse {self.warehouse_conn_id!r} is of type {type_of(warehouse)}. The status "
                f"tables need a database that enforces unique keys: set warehouse_conn_id to {NEEDED}"
            )
        hook = KKHook(self.kk_conn_id)
        settings = hook.settings
        tables = self._tables(hook, warehouse)
        ledger_conn_id = str(resolve_ledger_conn_id(hook, self.ledger_conn_id, self.warehouse_conn_id))
        is_named = self.names_ledger or settings.ledger_conn_id
        params = None if is_named or ledger_conn_id != self.warehouse_conn_id else self.hook_params
        with (
            closing(tables),
            closing(open_ledger(hook, ledger_conn_id, threads=1, hook_params=params)) as ledger,
        ):
            bucket = settings.shared_bucket(ledger)
            with hook.client(bucket) as client:
                sync = StatusSync(client, tables, ledger, self.overlap_s, self.log, stop)
                try:
                    return self._run(sync, SyncRuns(ledger), context, settings)
                finally:
                    tags = tags_of(settings.account, origin_of(context))
                    count_statuses(sync.summary.orders, sync.summary.changed, tags)
                    count_requests(client, bucket, tags)

    def _tables(self, hook: KKHook, warehouse: Any) -> StatusTables:
        from airflow_provider_kk.delivery.sql.database import pool_arguments
        from airflow_provider_kk.warehouse.status_tables import StatusTables, StatusTablesError

        engine = engine_behind(warehouse, pool_arguments(warehouse.conn_type, 1), self.hook_params)
        try:
            tables = StatusTables(engine, hook.settings.host, hook.settings.account, self.table_prefix)
        except (StatusTablesError, ValueError) as error:
            raise AirflowFailException(str(error)) from error
        return tables

    def _run(
        self, sync: StatusSync, runs: SyncRuns, context: Context, settings: ConnectionSettings
    ) -> dict[str, Any]:
        from sqlalchemy.exc import DBAPIError

        from airflow_provider_kk.delivery.log import some_of
        from airflow_provider_kk.delivery.orders import LAG_S

        summary = sync.summary
        run = runs.begin(origin_of(context))
        try:
            failure = _failure_of(sync)
        except BaseException:
            # Whatever cut this try short, the next one has to tell what has come into the tables.
            with suppress(DBAPIError):
                runs.end(run, "failed", self._result(run, sync))
            raise
        self.log.info(
            "%d orders read, %d changed, %d completed in the ledger, %d odd; up to date until %s",
            summary.orders,
            summary.changed,
            summary.splits,
            summary.odd,
            summary.synced_until or "no later than before",
        )
        if failure is None and not summary.orders:
            self.log.info(
                "No change was read: KK's list runs behind, so changes of the last %.0f minutes are read by "
                "the next run",
                LAG_S / 60,
            )
        result = self._result(run, sync)
        self._changed = result["changed"]
        push(context, "return_value", result)
        runs.end(run, "failed" if failure or summary.conflicts else "done", result)
        if failure is not None:
            raise AirflowException(failure)
        if named := summary.conflicts[:20]:
            raise AirflowFailException(
                f"KK has more goods than were sent under {some_of(named, len(summary.conflicts))}: held in "
                "the ledger. See `kk ledger show`"
            )
        emit(self, context, settings, STATUSES, {"changed": self._changed})
        return result

    def _result(self, run: SyncRun, sync: StatusSync) -> dict[str, Any]:
        # What an earlier try has changed is in the tables: no news to this one, but to whoever waits for it.
        changed = run.before.get("changed", 0) + sync.summary.changed
        return {**asdict(sync.summary), "changed": changed, "requests": sync.client.requests}

    def get_openlineage_facets_on_complete(self, task_instance: Any) -> Any:
        """Tell OpenLineage that the tables have what has changed of the account's orders."""
        names = [f"{self.table_prefix}{name}" for name in ("order_status", "order_line", "package")]
        warehouse = hook_behind(BaseHook.get_connection(self.warehouse_conn_id), self.hook_params)
        written = tables_of(
            warehouse, self.warehouse_conn_id, [f"INSERT INTO {name} SELECT 1" for name in names]
        )
        orders, *others = written.outputs or [None]
        outputs = [with_count(orders, self._changed), *others] if orders else []
        return lineage([orders_at_kk(KKHook(self.kk_conn_id).settings)], outputs)


def _failure_of(sync: StatusSync) -> str | None:
    """Run; what went wrong in a sentence, None when nothing did."""
    from airflow_provider_kk.api.errors import KKError
    from airflow_provider_kk.delivery.model import InconclusiveError
    from airflow_provider_kk.warehouse.status import StoppedError
    from airflow_provider_kk.warehouse.status_tables import StatusTablesError

    try:
        sync.tables.create()
        sync.run()
    except (KKError, InconclusiveError) as error:
        return (
            f"KK's changes cannot be read: {error}. A retry, or the next run, goes on where this try stopped"
        )
    except (StatusTablesError, StoppedError) as error:
        return str(error)
    return None
