"""What KK knows of its orders, into the warehouse."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import closing
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import BaseHook

from airflow_provider_kk.assets.kk import STATUSES
from airflow_provider_kk.hooks.database import hook_behind
from airflow_provider_kk.hooks.kk import KKHook
from airflow_provider_kk.operators.base import KKOperator, origin_of, push
from airflow_provider_kk.operators.lineage import emit, lineage, orders_at_kk, tables_of, with_count

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context


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
        from airflow_provider_kk.sync.sync_statuses import open_status_tables, sync_statuses

        stop, hook = self._new_stop(), KKHook(self.kk_conn_id)
        warehouse: Any = BaseHook.get_connection(self.warehouse_conn_id)
        tables = open_status_tables(hook, warehouse, self.hook_params, self.table_prefix)
        ledger_conn_id = str(resolve_ledger_conn_id(hook, self.ledger_conn_id, self.warehouse_conn_id))
        is_named = self.names_ledger or hook.settings.ledger_conn_id
        params = None if is_named or ledger_conn_id != self.warehouse_conn_id else self.hook_params
        with (
            closing(tables),
            closing(open_ledger(hook, ledger_conn_id, threads=1, hook_params=params)) as ledger,
        ):
            result = sync_statuses(
                hook,
                ledger,
                tables,
                origin=origin_of(context),
                overlap_s=self.overlap_s,
                stop=stop,
                log=self.log,
                publish=lambda counts: push(context, "return_value", counts),
            )
        self._changed = result["changed"]
        emit(self, context, hook.settings, STATUSES, {"changed": self._changed})
        return result

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
