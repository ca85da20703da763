"""Orders to KK: one of a DAG's own making, or all that a warehouse table holds."""

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
    named_ledger,
    origin_of,
    push,
    push_order_url,
)
from airflow_provider_kk.operators.lineage import emit, lineage, made, orders_at_kk, tables_of
from airflow_provider_kk.operators.masking import MaskingOperator, PersonalField, unmasked
from airflow_provider_kk.sync.delivery import DeferUntil
from airflow_provider_kk.sync.guards import Guards
from airflow_provider_kk.sync.write_results import open_write_back

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context, XComArg

    from airflow_provider_kk.api.models import Order, OrderAddress, OrderItem
    from airflow_provider_kk.delivery.sql.storage import SqlLedger
__all__ = ["Constant", "CreateOrderOperator", "SyncOrdersOperator"]

#: A create is one request: KK's list need not be read again for each of many mapped ones.
_RECOVER_MAX_AGE_S = 60.0


class Constant(str):
    """A fixed text for a field of every order: `columns={"phone": Constant("+33 1 00 00 00 00")}`.

    It equals its source on the command line, `='+33 1 00 00 00 00'`, so that Airflow keeps it as text.
    """

    __slots__ = ()

    def __new__(cls, text: str) -> Self:
        """Write `text` as a source."""
        return super().__new__(cls, f"='{text}'")

    def __getnewargs__(self) -> tuple[str]:
        return (self[2:-1],)


class CreateOrderOperator(MaskingOperator, DeliveringOperator):
    """Creates one order at KK, once, whatever is retried or cleared.

    Either `order` or the single fields, all templated. A template yields text: `"3"` is a quantity of 3. An
    upstream task's order is passed as `order=task.output`, or in JSON text with `| tojson`.

    Returns the first kkOrderId as text and pushes `kkOrderId` (text) and `kkOrderIds` (list of text).
    Source: KK's page "Create order".

    :param order: an `Order`, a mapping or JSON text, with names in snake_case or KK's own.
    :param address: the address, when `order` is not given; a mapping or JSON text.
    :param items: the lines: `[{"sku": ..., "quantity": ...}]` or the same as JSON text.
    :param remark: a note to KK.
    :param custom_order_number: your own number, at most 40 printable ASCII characters; the key of everything.
        Left out, a stable number is derived from the connection's account, dag, run, task and map index; None
        is an error.
    :param sale_platform: overrides the connection's.
    :param channel_type: `v1-orders`: `Standard` or `Express`; `v2`: also `Expedited`, `Standard` when absent;
        `v1` has no such field.
    :param kk_conn_id: the Airflow connection to KK.
    :param ledger_conn_id: the database connection of the ledger, else the kk connection's. Without any, the
        task works on best effort: it looks the number up in KK's list before each try.
    :param on_absence: what to do when an order in doubt is not in KK's list after the settle window: `resend`
        it, or `hold` it for a human.
    :param max_resends: how often at most.
    :param on_changed: `fail` when the number was used for another order before, or `ignore`.
    :param max_order_units: how many units one order may have; a larger one is invalid. None: any number.
    :param max_order_value: what the goods of one order may cost at KK, in US dollars without freight; a
        dearer one is invalid. None: KK is not asked for prices.
    :param deferrable: give the worker's slot back while waiting for a settle window.
    :raises AirflowFailException: the order is invalid, refused, held or changed; a retry would not help.
    :raises AirflowException: the outcome is not known yet or nothing was sent; a retry helps.
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
        # What was asked for and is None, rendered or mapped, must not order anew in each run.
        self.given = [name for name in ("order", "address", "items") if getattr(self, name) is not None]
        if custom_order_number is not NOT_GIVEN:
            self.given.append("custom_order_number")
        self.sale_platform = sale_platform
        self.channel_type = channel_type

    def _execute(self, context: Context) -> str:
        from airflow_provider_kk.hooks.ledger_connection import open_ledger, resolve_ledger_conn_id
        from airflow_provider_kk.sync.create_order import build_order, create_order
        from airflow_provider_kk.sync.ephemeral_ledger import ephemeral_ledger

        self.require_masked()
        stop, origin, hook = self._new_stop(), origin_of(context), KKHook(self.kk_conn_id)
        order = build_order(
            unmasked(self.order), self._fields(), settings=hook.settings, origin=origin, log=self.log
        )
        push(context, ORDER_NUMBER, order.custom_order_number)
        ledger_conn_id = resolve_ledger_conn_id(hook, named_ledger(self))
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
                self._give_slot_back(wait.until)
        self._summary = summary
        ids = list(result.kk_order_ids)
        push(context, "kkOrderId", ids[0])
        push(context, "kkOrderIds", ids)
        push_order_url(context, hook.settings, ids[0])
        emit(self, context, hook.settings, ORDERS, made(summary))
        return ids[0]

    def _fields(self) -> dict[str, Any]:
        """Return the single fields of an order that the task was given."""
        if nothing := [name for name in self.given if unmasked(getattr(self, name)) is None]:
            raise AirflowFailException(
                f"{', '.join(nothing)} has come to None: has the task that it comes from returned a value? "
                "To have a number derived from the DAG run, leave custom_order_number out"
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
        """Tell OpenLineage that the account's orders have become one more."""
        return lineage(
            [], [orders_at_kk(KKHook(self.kk_conn_id).settings, sum(made(self._summary).values()))]
        )


class SyncOrdersOperator(DeliveringOperator):
    """Sends all orders that a query returns to KK, each once, whatever is retried, cleared or killed.

    Reads `sql` to its end, closes the warehouse, checks every order, then sends. Rows are one per order line
    or, with a column `items`, one per order. Bad orders never stop the others.

    Returns the summary: `selected, created, already_created, adopted, changed, rejected, invalid, in_doubt,
    held, not_sent, postponed, newly_rejected, newly_invalid, newly_held, requests, seconds, rejections`;
    `selected` is the sum of the ten counts after it, and newly is what became so in this sync. It is pushed
    before the task fails, too. Source: KK's pages "Create order" and "Query orders".

    :param sql: the query, or a `.sql` file.
    :param warehouse_conn_id: where to run it: any connection whose hook is a `DbApiHook`.
    :param parameters: for the query, as the driver takes them.
    :param hook_params: for the warehouse's hook, and for the ledger's when it is in the warehouse.
    :param kk_conn_id: the Airflow connection to KK.
    :param ledger_conn_id: the database connection of the ledger, else the kk connection's, else the warehouse
        when that is SQLite, PostgreSQL or MySQL.
    :param columns: where each field comes from, if not from a column of its name: `{"sku": "ARTICLE", "zip":
        "ship_to.zip", "recipient": "{first_name} {last_name}", "phone": Constant("+33 1 00 00 00 00")}`; or a
        preset such as `"shopify"`, or a preset and what differs: `{"preset": "shopify", "phone": ...}`.
    :param defaults: where a field comes from when it is blank: `{"province": "{city}"}`.
    :param duplicate_rows: rows that are equal in every column: `fail`, an error of their order, or `keep`.
    :param write_back: `"schema.table"`, to append what became of each order, or
        `{"table", "key", "ids", "state"}`, to update the orders' own rows.
    :param max_rejected: how many newly rejected or invalid orders are tolerated before the task fails; an
        int counts them, a float below 1 is a share of the selected.
    :param max_in_flight: how many orders are sent at once.
    :param max_seconds: after so many seconds nothing new is sent; the rest waits for the next run.
    :param limit: how many orders to send at most.
    :param plan_only: send nothing, say what would happen; what would be sent counts as `postponed`, and
        `requests` and `seconds` are what that takes at least, at KK's limit. The summary then has
        `new_orders`, `units`, `value`, `top_skus`, `countries`, `warnings`, `plan_digest` and `plan_orders`.
    :param approved_plan: what a task with `plan_only` returned and people approved, also as text: only its
        orders are sent, with the planned content; all others count as `postponed`. None or empty: the task
        fails. Left out: no approval is needed.
    :param check_stock: ask KK for the stock of what is about to be sent, 30 SKUs a request; an order that
        cannot be served is not sent but `invalid`, and looked at again by the next run.
    :param on_absence: what to do when an order in doubt is not in KK's list after the settle window: `resend`
        it, or `hold` it for a human.
    :param max_resends: how often at most.
    :param on_changed: `fail` when a number was used for another order before, or `ignore`.
    :param max_new_orders: how many new orders one sync may send, its retries included; if there are more,
        nothing is sent and the task fails. None: any number.
    :param max_order_units: how many units one order may have; a larger one is invalid. None: any number.
    :param max_order_value: what the goods of one order may cost at KK, in US dollars without freight; a
        dearer one is invalid. None: KK is not asked for prices.
    :param max_run_value: what the goods of all new orders may cost, likewise; if it is more, nothing is sent
        and the task fails.
    :param deferrable: give the worker's slot back while waiting for a settle window.
    :raises AirflowException: orders are in doubt or not sent; a retry helps.
    :raises AirflowFailException: too many are newly rejected or invalid, or one is changed or newly held; or
        `max_new_orders` or `max_run_value` is exceeded.
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
            from airflow_provider_kk.warehouse.field_mapping import check_mapping

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
            raise ValueError("give either plan_only, to plan, or approved_plan, to send a plan")
        self.plan_only = plan_only
        # None is what a skipped or rejected approval returns, and must not send everything.
        self.needs_approval = approved_plan is not NOT_GIVEN
        self.approved_plan: Any = approved_plan if self.needs_approval else None
        self.check_stock = check_stock

    def _execute(self, context: Context) -> dict[str, Any]:
        from airflow_provider_kk.hooks.ledger_connection import (
            open_ledger,
            require_type,
            resolve_ledger_conn_id,
        )
        from airflow_provider_kk.sync.approval import Approval
        from airflow_provider_kk.sync.deliver_orders import deliver_orders
        from airflow_provider_kk.sync.load_orders import Selection, load_orders
        from airflow_provider_kk.sync.plan import plan_orders

        stop, hook = self._new_stop(), KKHook(self.kk_conn_id)
        connection: Any = BaseHook.get_connection(self.warehouse_conn_id)
        ledger_conn_id = str(resolve_ledger_conn_id(hook, named_ledger(self), self.warehouse_conn_id))
        ledger_connection: Any = BaseHook.get_connection(ledger_conn_id)
        require_type(ledger_connection)
        warehouse = connection.get_hook(hook_params=dict(self.hook_params or {}))
        write_back = open_write_back(self.write_back, warehouse, self.log, is_plan=self.plan_only)
        selection = Selection(
            warehouse, self.sql, self.parameters, self.columns, self.defaults, self.duplicate_rows
        )
        # A ledger that is named is in its connection's default database, for every operator and command.
        is_named = self.names_ledger or hook.settings.ledger_conn_id
        params = None if is_named or ledger_conn_id != self.warehouse_conn_id else self.hook_params
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
                self._give_slot_back(wait.until)
        emit(self, context, hook.settings, ORDERS, made(self._summary))
        return self._summary.as_dict()

    def get_openlineage_facets_on_complete(self, task_instance: Any) -> Any:
        """Tell OpenLineage which tables the orders are from, and how many orders the account has more."""
        connection: Any = BaseHook.get_connection(self.warehouse_conn_id)
        warehouse = connection.get_hook(hook_params=dict(self.hook_params or {}))
        read = tables_of(warehouse, self.warehouse_conn_id, self.sql)
        written = orders_at_kk(KKHook(self.kk_conn_id).settings, sum(made(self._summary).values()))
        return lineage(read.inputs, [written], job_facets=read.job_facets, run_facets=read.run_facets)
