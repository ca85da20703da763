"""Operators that send orders to KK: one order of a DAG, or all orders of a warehouse query."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, closing
from dataclasses import replace
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Self

from airflow.providers.common.compat.sdk import AirflowFailException, BaseHook

from airflow_provider_kk.assets.kk import ORDERS
from airflow_provider_kk.hooks.kk import KKHook
from airflow_provider_kk.links.kk import IN_LEDGER, ORDER_NUMBER, RUN_IN_LEDGER, OrderAtKKLink
from airflow_provider_kk.operators.base import (
    NOT_GIVEN,
    DeliveringOperator,
    origin_of,
    push,
    push_order_url,
)
from airflow_provider_kk.operators.lineage import emit, lineage, made, orders_at_kk, tables_of
from airflow_provider_kk.operators.masked_fields import MaskingOperator, PersonalField, unmasked
from airflow_provider_kk.sync.guards import Guards

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context, XComArg

    from airflow_provider_kk.api.models import Order, OrderAddress, OrderItem
    from airflow_provider_kk.delivery.sql.storage import SqlLedger
__all__ = ["Constant", "CreateOrderOperator", "SyncOrdersOperator"]

#: Mapped tasks share one reading of KK's list; each of them sends only one request.
_RECOVER_MAX_AGE_S = 60.0


class Constant(str):
    """A fixed text for a field of every order: `columns={"phone": Constant("+33 1 00 00 00 00")}`.

    It is the text that the command line takes, `='+33 1 00 00 00 00'`, so Airflow serializes it as text.
    """

    __slots__ = ()

    def __new__(cls, text: str) -> Self:
        """Write `text` as a source."""
        return super().__new__(cls, f"='{text}'")

    def __getnewargs__(self) -> tuple[str]:
        return (self[2:-1],)


class CreateOrderOperator(MaskingOperator, DeliveringOperator):
    """Creates one order at KK, once, however often the task is retried, cleared or killed.

    Pass either `order` or the single fields. All are templated. A template yields text: `"3"` is a quantity
    of 3. Pass an upstream task's order as `order=task.output`, or as JSON text with `| tojson`.

    Returns the first kkOrderId as text and pushes `kkOrderId` (text) and `kkOrderIds` (list of text).
    Source: KK's page "Create order".

    :param order: an `Order`, a mapping or JSON text, with field names in snake_case or KK's own names.
    :param address: the address, if `order` is not given; a mapping or JSON text.
    :param items: the lines: `[{"sku": ..., "quantity": ...}]` or the same as JSON text.
    :param remark: a note to KK.
    :param custom_order_number: your own order number, at most 40 printable ASCII characters. It identifies
        the order. If it is left out, a stable number is derived from the connection's account, dag, run, task
        and map index. None is an error.
    :param sale_platform: the sale platform, instead of the connection's.
    :param channel_type: `v1-orders`: `Standard` or `Express`. `v2`: also `Expedited`, and `Standard` if it is
        left out. `v1` has no such field.
    :param kk_conn_id: the Airflow connection to KK.
    :param ledger_conn_id: the database connection of the ledger, else the kk connection's. Without a ledger,
        each try reads KK's list for the number before it sends, which protects less.
    :param on_absence: an order in doubt that KK's list lacks after the settle window: `resend` it, or `hold`
        it.
    :param max_resends: the most resends of one order.
    :param on_changed: the number was used for another order before: `fail`, or `ignore` it.
    :param max_order_units: the most units of one order; a larger order is invalid. None: no limit.
    :param max_order_value: the highest price of one order's goods at KK, in US dollars without freight; a
        dearer order is invalid. None: KK's prices are not read.
    :param deferrable: free the worker slot while the task waits for a settle window.
    :raises AirflowFailException: the order is invalid, rejected, held or changed; a retry does not help.
    :raises AirflowException: the order is in doubt, or was not sent; a retry helps.
    """

    template_fields: Sequence[str] = (
        "order",
        "address",
        "items",
        "remark",
        "custom_order_number",
        "sale_platform",
        "channel_type",
        "kk_conn_id",
        "ledger_conn_id",
    )
    template_fields_renderers = {"order": "json", "address": "json", "items": "json"}  # noqa: RUF012
    operator_extra_links = (OrderAtKKLink(), *IN_LEDGER)
    ui_color = "#e8f3ec"

    order = PersonalField()
    address = PersonalField()
    items = PersonalField()
    remark = PersonalField()

    def __init__(
        self,
        *,
        order: Order | Mapping[str, Any] | str | XComArg | None = None,
        address: OrderAddress | Mapping[str, Any] | str | XComArg | None = None,
        items: Sequence[OrderItem | Mapping[str, Any]] | str | XComArg | None = None,
        remark: str | XComArg | None = None,
        custom_order_number: str | XComArg = NOT_GIVEN,
        sale_platform: str | XComArg | None = None,
        channel_type: str | XComArg | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.order = order
        self.address = address
        self.items = items
        self.remark = remark
        self.custom_order_number = None if custom_order_number is NOT_GIVEN else custom_order_number
        # An argument that was given and renders to None must fail: a derived number would order in each run.
        self.given = [name for name in ("order", "address", "items") if getattr(self, name) is not None]
        if custom_order_number is not NOT_GIVEN:
            self.given.append("custom_order_number")
        self.sale_platform = sale_platform
        self.channel_type = channel_type

    def _execute(self, context: Context) -> str:
        from airflow_provider_kk.hooks.ledger_connection import open_ledger
        from airflow_provider_kk.sync.create_order import build_order, create_order, ephemeral_ledger
        from airflow_provider_kk.sync.deliver import DeferUntil

        self.require_masked()
        stop, origin, hook = self._new_stop(), origin_of(context), KKHook(self.kk_conn_id)
        order = build_order(
            unmasked(self.order), self._fields(), settings=hook.settings, origin=origin, log=self.log
        )
        push(context, ORDER_NUMBER, order.custom_order_number)
        ledger_conn_id = self._ledger_conn_id(hook)
        opened: AbstractContextManager[SqlLedger]
        if ledger_conn_id is None:
            opened = ephemeral_ledger(hook, origin.try_number, stop, self.log)
        else:
            opened = closing(open_ledger(hook, ledger_conn_id, threads=1, log=self.log))
        with opened as ledger:
            delivery = self._delivery(
                hook,
                ledger,
                origin,
                stop,
                max_in_flight=1,
                can_defer=self.deferrable and ledger_conn_id is not None,
                recover_max_age_s=_RECOVER_MAX_AGE_S,
            )
            try:
                result, summary = create_order(order, delivery, changes_fail=self.on_changed == "fail")
            except DeferUntil as wait:
                self._defer_until(wait.until)
        self._summary = summary
        ids = list(result.kk_order_ids)
        push(context, "kkOrderId", ids[0])
        push(context, "kkOrderIds", ids)
        push_order_url(context, hook.settings, ids[0])
        emit(self, context, hook.settings, ORDERS, made(summary))
        return ids[0]

    def _fields(self) -> dict[str, Any]:
        """Return the single fields of the task's order."""
        if nothing := [name for name in self.given if unmasked(getattr(self, name)) is None]:
            raise AirflowFailException(
                f"{', '.join(nothing)} rendered to None. Check that the upstream task returned a value. "
                "To derive the number from the DAG run, leave custom_order_number out"
            )
        return {
            "address": unmasked(self.address),
            "items": unmasked(self.items),
            "remark": unmasked(self.remark),
            "custom_order_number": self.custom_order_number,
            "sale_platform": self.sale_platform,
            "channel_type": self.channel_type,
        }

    def get_openlineage_facets_on_complete(self, task_instance: Any) -> Any:
        """Return the account's orders as OpenLineage's output, with one order more."""
        return lineage(
            [], [orders_at_kk(KKHook(self.kk_conn_id).settings, sum(made(self._summary).values()))]
        )


class SyncOrdersOperator(DeliveringOperator):
    """Sends all orders of a query to KK, each once, however often the task is retried, cleared or killed.

    Reads all rows of `sql`, closes the warehouse, checks every order, then sends. A row is one order line or,
    with a column `items`, one order. Invalid orders do not stop the others.

    Returns the summary: `selected, created, already_created, adopted, changed, rejected, invalid, in_doubt,
    held, not_sent, postponed, newly_rejected, newly_invalid, newly_held, requests, seconds, rejections`.
    `selected` is the sum of the ten counts after it. The newly counts are of this sync alone. A task that
    fails pushes the summary, too. Source: KK's pages "Create order" and "Query orders".

    :param sql: the query, or a `.sql` file.
    :param warehouse_conn_id: the connection to run it on; its hook must be a `DbApiHook`.
    :param parameters: the query's parameters, as the driver takes them.
    :param hook_params: arguments of the warehouse's hook, and of the ledger's if the ledger is in the
        warehouse.
    :param kk_conn_id: the Airflow connection to KK.
    :param ledger_conn_id: the database connection of the ledger, else the kk connection's, else the warehouse
        if that is SQLite, PostgreSQL or MySQL.
    :param columns: the source of each field whose column has another name: `{"sku": "ARTICLE", "zip":
        "ship_to.zip", "recipient": "{first_name} {last_name}", "phone": Constant("+33 1 00 00 00 00")}`. Or a
        preset such as `"shopify"`, or a preset with changes: `{"preset": "shopify", "phone": ...}`.
    :param defaults: the source of a field whose cell is blank: `{"province": "{city}"}`.
    :param duplicate_rows: rows that are equal in every column: `fail` makes their order invalid, `keep`
        orders each of them.
    :param write_back: `"schema.table"` appends each order's result there; `{"table", "key", "ids", "state"}`
        updates the orders' own rows.
    :param max_rejected: the most newly rejected or invalid orders with which the task still succeeds. An int
        counts them, a float below 1 is a share of the selected.
    :param max_in_flight: the number of orders that are sent at once.
    :param max_seconds: seconds after which the run sends nothing new; later runs send the other orders.
    :param limit: the most orders to send.
    :param plan_only: send nothing, and log what a sync would do. Orders that would be sent count as
        `postponed`; `requests` and `seconds` are the least that this takes at KK's limit. The summary also
        has `new_orders`, `units`, `value`, `top_skus`, `countries`, `warnings`, `plan_digest` and
        `plan_orders`.
    :param approved_plan: the approved result of a task with `plan_only`, also as text. Only its orders are
        sent, with the planned content; all others count as `postponed`. If it is None or empty, the task
        fails. If it is left out, no approval is needed.
    :param check_stock: read KK's stock before sending, 30 SKUs a request. An order that KK lacks goods for is
        `invalid`, and the next run checks it again.
    :param on_absence: an order in doubt that KK's list lacks after the settle window: `resend` it, or `hold`
        it.
    :param max_resends: the most resends of one order.
    :param on_changed: a number was used for another order before: `fail`, or `ignore` it.
    :param max_new_orders: the most new orders that one sync sends, its retries included. If there are more,
        nothing is sent and the task fails. None: no limit.
    :param max_order_units: the most units of one order; a larger order is invalid. None: no limit.
    :param max_order_value: the highest price of one order's goods at KK, in US dollars without freight; a
        dearer order is invalid. None: KK's prices are not read.
    :param max_run_value: the highest price of all new orders' goods, likewise. If it is exceeded, nothing is
        sent and the task fails.
    :param deferrable: free the worker slot while the task waits for a settle window.
    :raises AirflowException: orders are in doubt or not sent; a retry helps.
    :raises AirflowFailException: too many orders are newly rejected or invalid, an order is changed or newly
        held, or `max_new_orders` or `max_run_value` is exceeded.
    """

    template_fields: Sequence[str] = (
        "sql",
        "parameters",
        "warehouse_conn_id",
        "kk_conn_id",
        "ledger_conn_id",
        "write_back",
        "approved_plan",
    )
    template_ext: Sequence[str] = (".sql",)
    template_fields_renderers = {"sql": "sql", "parameters": "json", "approved_plan": "json"}  # noqa: RUF012
    operator_extra_links = RUN_IN_LEDGER
    ui_color = "#dcefe3"

    def __init__(
        self,
        *,
        sql: str,
        warehouse_conn_id: str,
        parameters: Mapping[str, Any] | Sequence[Any] | XComArg | None = None,
        hook_params: Mapping[str, Any] | None = None,
        columns: str | Mapping[str, str] | None = None,
        defaults: Mapping[str, str] | None = None,
        duplicate_rows: str = "fail",
        write_back: str | Mapping[str, str] | None = None,
        max_rejected: float = 0,
        max_in_flight: int = 8,
        max_seconds: float = 3600,
        limit: int | None = None,
        plan_only: bool = False,
        approved_plan: Mapping[str, Any] | str | XComArg | None = NOT_GIVEN,
        check_stock: bool = False,
        max_new_orders: int | None = Guards.max_new_orders,
        max_run_value: Decimal | float | str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if columns or defaults or duplicate_rows != "fail":
            from airflow_provider_kk.warehouse.mapping_arguments import check_mapping

            check_mapping(columns, defaults, duplicate_rows)
        run_guards = Guards.checked(max_new_orders=max_new_orders, max_run_value=max_run_value)
        self.guards = replace(
            self.guards, max_new_orders=run_guards.max_new_orders, max_run_value=run_guards.max_run_value
        )
        self.sql = sql
        self.warehouse_conn_id = warehouse_conn_id
        self.parameters: Any = parameters  # an XComArg until it is rendered
        self.hook_params = hook_params
        self.columns = columns
        self.defaults = defaults
        self.duplicate_rows = duplicate_rows
        self.write_back = write_back
        self.max_rejected = max_rejected
        self.max_in_flight = max_in_flight
        self.max_seconds = max_seconds
        self.limit = limit
        if plan_only and approved_plan is not NOT_GIVEN:
            raise ValueError("set either plan_only, to plan, or approved_plan, to send an approved plan")
        self.plan_only = plan_only
        # A skipped or rejected approval returns None, which must not send everything.
        self.needs_approval = approved_plan is not NOT_GIVEN
        self.approved_plan: Any = approved_plan if self.needs_approval else None
        self.check_stock = check_stock

    def _execute(self, context: Context) -> dict[str, Any]:
        from airflow_provider_kk.hooks.ledger_connection import open_ledger, require_type
        from airflow_provider_kk.sync.approval import Approval
        from airflow_provider_kk.sync.deliver import DeferUntil
        from airflow_provider_kk.sync.deliver_and_report import deliver_orders, open_write_back
        from airflow_provider_kk.sync.load_orders import Selection, load_orders
        from airflow_provider_kk.sync.plan import plan_orders

        stop, hook = self._new_stop(), KKHook(self.kk_conn_id)
        connection: Any = BaseHook.get_connection(self.warehouse_conn_id)
        ledger_conn_id = str(self._ledger_conn_id(hook, self.warehouse_conn_id))
        ledger_connection: Any = BaseHook.get_connection(ledger_conn_id)
        require_type(ledger_connection)
        warehouse = connection.get_hook(hook_params=dict(self.hook_params or {}))
        write_back = open_write_back(self.write_back, warehouse, self.log, is_plan=self.plan_only)
        selection = Selection(
            warehouse, self.sql, self.parameters, self.columns, self.defaults, self.duplicate_rows
        )
        # Every operator and command looks for a named ledger in its connection's default database.
        is_named = self.names_ledger or hook.settings.ledger_conn_id
        params = None if is_named else self.hook_params
        if self.plan_only:
            return plan_orders(
                selection,
                hook,
                ledger_connection,
                params,
                guards=self.guards,
                limit=self.limit,
                check_stock=self.check_stock,
                log=self.log,
            )
        approval = Approval.parse(self.approved_plan, hook.settings) if self.needs_approval else None
        opened = open_ledger(
            hook, ledger_conn_id, threads=self.max_in_flight, log=self.log, hook_params=params
        )
        with closing(opened) as ledger:
            delivery = self._delivery(
                hook,
                ledger,
                origin_of(context),
                stop,
                max_in_flight=self.max_in_flight,
                max_seconds=self.max_seconds,
                max_sent=self.limit,
                check_stock=self.check_stock,
                can_defer=self.deferrable,
                approval=approval,
            )
            load_orders(
                delivery.run_queue, selection, self.log, delivery, api_version=hook.settings.api_version
            )
            try:
                self._summary = deliver_orders(
                    delivery,
                    warehouse,
                    write_back,
                    publish=lambda result: push(context, "return_value", result),
                    max_rejected=self.max_rejected,
                    changes_fail=self.on_changed == "fail",
                    ledger_conn_id=ledger_conn_id,
                )
            except DeferUntil as wait:
                self._defer_until(wait.until)
        emit(self, context, hook.settings, ORDERS, made(self._summary))
        return self._summary.as_dict()

    def get_openlineage_facets_on_complete(self, task_instance: Any) -> Any:
        """Return the query's tables and the account's new orders as OpenLineage's inputs and output."""
        connection: Any = BaseHook.get_connection(self.warehouse_conn_id)
        warehouse = connection.get_hook(hook_params=dict(self.hook_params or {}))
        read = tables_of(warehouse, self.warehouse_conn_id, self.sql)
        written = orders_at_kk(KKHook(self.kk_conn_id).settings, sum(made(self._summary).values()))
        return lineage(read.inputs, [written], job_facets=read.job_facets, run_facets=read.run_facets)
