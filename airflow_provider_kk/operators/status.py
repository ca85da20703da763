"""Operator that copies the statuses of KK's orders into the warehouse."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import closing
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import BaseHook

from airflow_provider_kk.assets.kk import STATUSES
from airflow_provider_kk.hooks.kk import KKHook
from airflow_provider_kk.operators.base import KKOperator, origin_of, push
from airflow_provider_kk.operators.lineage import emit, lineage, orders_at_kk, tables_of, with_count

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context


class SyncOrderStatusOperator(KKOperator):
    """Copies all orders that changed at KK since the last sync into tables of the warehouse.

    Creates and fills `kk_order_status`, `kk_order_line` and `kk_package`. `kk_status_sync` has the time up to
    which they are complete. A status never goes back, and a package stays once it was listed. A field that
    cannot be parsed is NULL and is named in the row. Splits that KK's response to a create lacked are added
    to the ledger.

    Returns `{orders, changed, splits, conflicts, odd, odd_orders, synced_until, requests}`. A task that fails
    pushes it, too. Source: KK's page "Query orders", which advises to query up to 10 minutes before now.

    :param warehouse_conn_id: the connection of the tables: SQLite, PostgreSQL or MySQL.
    :param hook_params: arguments of the warehouse's hook, and of the ledger's if the ledger is in the
        warehouse.
    :param kk_conn_id: the Airflow connection to KK.
    :param ledger_conn_id: the database connection of the ledger, else the kk connection's, else the
        warehouse.
    :param table_prefix: the start of the tables' names; `schema.prefix_` for tables in a schema.
    :param overlap_s: seconds before the end of the last sync at which this one begins, for changes that KK
        lists more than 10 minutes late.
    :raises AirflowException: KK or the warehouse cannot be used; a retry continues where this try stopped.
    :raises AirflowFailException: KK has more goods under an order number than were sent, so the order is
        newly held; or the warehouse is of another type.
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
        from airflow_provider_kk.hooks.ledger_connection import open_ledger
        from airflow_provider_kk.sync.sync_statuses import open_status_tables, sync_statuses

        stop, hook = self._new_stop(), KKHook(self.kk_conn_id)
        warehouse: Any = BaseHook.get_connection(self.warehouse_conn_id)
        tables = open_status_tables(hook, warehouse, self.hook_params, self.table_prefix)
        ledger_conn_id = str(self._ledger_conn_id(hook, self.warehouse_conn_id))
        is_named = self.names_ledger or hook.settings.ledger_conn_id
        params = None if is_named else self.hook_params
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
        """Return the account's orders and the changed tables as OpenLineage's input and outputs."""
        from airflow_provider_kk.hooks.ledger_connection import hook_behind

        names = [f"{self.table_prefix}{name}" for name in ("order_status", "order_line", "package")]
        warehouse = hook_behind(BaseHook.get_connection(self.warehouse_conn_id), self.hook_params)
        written = tables_of(
            warehouse, self.warehouse_conn_id, [f"INSERT INTO {name} SELECT 1" for name in names]
        )
        orders, *others = written.outputs or [None]
        outputs = [with_count(orders, self._changed), *others] if orders else []
        return lineage([orders_at_kk(KKHook(self.kk_conn_id).settings)], outputs)
