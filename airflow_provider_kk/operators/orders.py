"""Orders to KK: one of a DAG's own making, or all that a warehouse table holds."""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, closing, nullcontext
from typing import TYPE_CHECKING, Any, Self

from airflow.providers.common.compat.sdk import (
    AirflowException,
    AirflowFailException,
    BaseHook,
)

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
from airflow_provider_kk.sync.delivery import (
    DeferUntil,
    Delivery,
    item_of,
    warn_of_short_timeout,
)
from airflow_provider_kk.sync.write_results import open_write_back, write_results

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context, XComArg

    from airflow_provider_kk.api.models import Order, OrderAddress, OrderItem
    from airflow_provider_kk.delivery.clock import Stop
    from airflow_provider_kk.delivery.run_queue import RunQueue, RunResult
    from airflow_provider_kk.delivery.sql.storage import SqlLedger
    from airflow_provider_kk.hooks.connection import ConnectionSettings
    from airflow_provider_kk.sync.runs import Summary
    from airflow_provider_kk.warehouse.write_back import WriteBack

__all__ = ["Constant", "CreateOrderOperator", "SyncOrdersOperator"]

#: What derived order numbers are made under; fixed, so that a task's number never changes.
_NUMBERS = uuid.UUID("5f0f4ba2-6f3c-5b0e-9a55-2b6a4e0b7c11")
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
        from airflow_provider_kk.delivery.run_queue import RunQueue
        from airflow_provider_kk.hooks.ledger_connection import resolve_ledger_conn_id

        self.require_masked()
        stop = self._new_stop()
        order = self._order(context)
        push(context, ORDER_NUMBER, order.custom_order_number)
        hook = KKHook(self.kk_conn_id)
        run_queue = RunQueue()
        run_queue.add([item_of(0, order)])
        ledger_conn_id = resolve_ledger_conn_id(hook, named_ledger(self))
        with self._open_ledger(hook, ledger_conn_id, context, stop) as ledger:
            warn_of_short_timeout(self.execution_timeout, ledger, self.log)
            delivery = Delivery(
                hook=hook,
                ledger=ledger,
                run_queue=run_queue,
                origin=origin_of(context),
                stop=stop,
                policy=self._policy(),
                log=self.log,
                max_in_flight=1,
                can_defer=self.deferrable and ledger_conn_id is not None,
                recover_max_age_s=_RECOVER_MAX_AGE_S,
            )
            self._summary, failure = delivery.carry_out()
            if isinstance(failure, DeferUntil):
                delivery.end("waiting", self._summary)
                self._give_slot_back(failure.until)
            delivery.end("failed" if failure else "done", self._summary)
        if failure is not None:
            raise failure
        (finished,) = run_queue.finished()
        return self._result(finished, context, hook.settings)

    def _order(self, context: Context) -> Order:
        from airflow_provider_kk.api.api_versions import API_VERSIONS
        from airflow_provider_kk.api.errors import InvalidOrderError
        from airflow_provider_kk.api.models import Order

        if nothing := [name for name in self.given if unmasked(getattr(self, name)) is None]:
            raise AirflowFailException(
                f"{', '.join(nothing)} has come to None: has the task that it comes from returned a value? "
                "To have a number derived from the DAG run, leave custom_order_number out"
            )
        whole = unmasked(self.order)
        fields = {
            "address": unmasked(self.address),
            "items": unmasked(self.items),
            "remark": unmasked(self.remark),
            "custom_order_number": self.custom_order_number,
            "sale_platform": self.sale_platform,
            "channel_type": self.channel_type,
        }
        given = {name: value for name, value in fields.items() if value is not None}
        if whole is not None and set(given) - {"custom_order_number"}:
            raise AirflowFailException(
                f"Give either order or the single fields; {', '.join(sorted(given))} came beside order"
            )
        try:
            order = Order.parse(given if whole is None else whole)
            API_VERSIONS[KKHook(self.kk_conn_id).settings.api_version].check(order)
            if whole is None or self.custom_order_number is None:
                number = order.custom_order_number or self._derived_number(context)
                return Order.parse({**order.model_dump(), "custom_order_number": number})
            named = Order.parse({**order.model_dump(), "custom_order_number": self.custom_order_number})
            if order.custom_order_number not in (None, named.custom_order_number):
                raise AirflowFailException(
                    "custom_order_number was given twice, on the operator and in order, and differs"
                )
            return named
        except InvalidOrderError as error:
            message = str(error)
        # Outside of the handler, so that no traceback carries what the customer wrote.
        raise AirflowFailException(message)

    def _derived_number(self, context: Context) -> str:
        origin = origin_of(context)
        if not origin.run_id:
            raise AirflowFailException("Outside of a DAG run an order needs a custom_order_number")
        account = KKHook(self.kk_conn_id).settings.account
        name = "/".join([account, origin.dag_id, origin.run_id, origin.task_id, str(origin.map_index)])
        return f"af-{uuid.uuid5(_NUMBERS, name).hex}"

    def _open_ledger(
        self, hook: KKHook, ledger_conn_id: str | None, context: Context, stop: Stop
    ) -> AbstractContextManager[SqlLedger]:
        from airflow_provider_kk.hooks.ledger_connection import open_ledger
        from airflow_provider_kk.sync.ephemeral_ledger import ephemeral_ledger

        if ledger_conn_id is None:
            return ephemeral_ledger(hook, origin_of(context).try_number, stop, self.log)
        return closing(open_ledger(hook, ledger_conn_id, threads=1, log=self.log))

    def _result(self, finished: RunResult, context: Context, settings: ConnectionSettings) -> str:
        from airflow_provider_kk.delivery.run_queue import RunStatus
        from airflow_provider_kk.sync.failure_policy import order_failure

        if failure := order_failure(finished, changes_fail=self.on_changed == "fail"):
            raise failure
        name = finished.key
        if finished.status is RunStatus.CHANGED:
            self.log.warning("%s: %s", name, finished.message)
        ids = list(finished.kk_order_ids)
        self.log.info("Order %s is at KK as %s (%s)", name, ", ".join(ids), finished.status.replace("_", " "))
        push(context, "kkOrderId", ids[0])
        push(context, "kkOrderIds", ids)
        push_order_url(context, settings, ids[0])
        emit(self, context, settings, ORDERS, made(self._summary))
        return ids[0]

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
        `requests` and `seconds` are what that takes at least, at KK's limit.
    :param check_stock: ask KK for the stock of what is about to be sent, 30 SKUs a request; an order that
        cannot be served is not sent but `invalid`, and looked at again by the next run.
    :param on_absence: what to do when an order in doubt is not in KK's list after the settle window: `resend`
        it, or `hold` it for a human.
    :param max_resends: how often at most.
    :param on_changed: `fail` when a number was used for another order before, or `ignore`.
    :param deferrable: give the worker's slot back while waiting for a settle window.
    :raises AirflowException: orders are in doubt or not sent; a retry helps.
    :raises AirflowFailException: too many are newly rejected or invalid, or one is changed or newly held.
    """

    template_fields: Sequence[str] = (
        "sql",
        "parameters",
        "warehouse_conn_id",
        "kk_conn_id",
        "ledger_conn_id",
        "write_back",
    )
    template_ext: Sequence[str] = (".sql",)
    template_fields_renderers = {"sql": "sql", "parameters": "json"}  # noqa: RUF012
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
        check_stock: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if columns or defaults or duplicate_rows != "fail":
            from airflow_provider_kk.warehouse.columns import check_mapping

            check_mapping(columns, defaults, duplicate_rows)
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
        self.plan_only = plan_only
        self.check_stock = check_stock

    def _execute(self, context: Context) -> dict[str, Any]:
        from airflow_provider_kk.hooks.ledger_connection import require_type

        stop = self._new_stop()
        hook = KKHook(self.kk_conn_id)
        connection: Any = BaseHook.get_connection(self.warehouse_conn_id)
        require_type(BaseHook.get_connection(self._ledger_conn_id(hook)))
        warehouse = connection.get_hook(hook_params=dict(self.hook_params or {}))
        write_back = open_write_back(self.write_back, warehouse, self.log, is_plan=self.plan_only)
        if self.plan_only:
            return self._plan(hook, warehouse)
        with closing(self._open_ledger(hook)) as ledger:
            return self._run(hook, ledger, warehouse, write_back, stop, context)

    def _run(
        self,
        hook: KKHook,
        ledger: SqlLedger,
        warehouse: Any,
        write_back: WriteBack | None,
        stop: Stop,
        context: Context,
    ) -> dict[str, Any]:
        from airflow_provider_kk.delivery.run_queue import RunQueue

        run_queue = RunQueue()
        warn_of_short_timeout(self.execution_timeout, ledger, self.log)
        delivery = Delivery(
            hook=hook,
            ledger=ledger,
            run_queue=run_queue,
            origin=origin_of(context),
            stop=stop,
            policy=self._policy(),
            log=self.log,
            max_in_flight=self.max_in_flight,
            max_seconds=self.max_seconds,
            max_sent=self.limit,
            check_stock=self.check_stock,
            can_defer=self.deferrable,
        )
        self._read(hook, warehouse, run_queue, delivery)
        return self._deliver(delivery, warehouse, write_back, context)

    # Before anything is sent -----------------------------------------------------------------------

    def _open_ledger(self, hook: KKHook) -> SqlLedger:
        from airflow_provider_kk.hooks.ledger_connection import open_ledger

        ledger_conn_id = self._ledger_conn_id(hook)
        return open_ledger(
            hook,
            ledger_conn_id,
            threads=self.max_in_flight,
            log=self.log,
            hook_params=self._ledger_params(ledger_conn_id),
        )

    def _ledger_conn_id(self, hook: KKHook) -> str:
        from airflow_provider_kk.hooks.ledger_connection import resolve_ledger_conn_id

        return str(resolve_ledger_conn_id(hook, named_ledger(self), self.warehouse_conn_id))

    def _ledger_params(self, ledger_conn_id: str) -> Mapping[str, Any] | None:
        """Return what leads to the warehouse's database, when the ledger is there because none is named.

        A ledger that is named is in the connection's default database, for every operator and command.
        """
        is_named = self.names_ledger or KKHook(self.kk_conn_id).settings.ledger_conn_id
        return None if is_named or ledger_conn_id != self.warehouse_conn_id else self.hook_params

    def _read(
        self, hook: KKHook, warehouse: Any, run_queue: RunQueue, delivery: Delivery | None = None
    ) -> None:
        from airflow_provider_kk.sync.load_orders import load_orders

        load_orders(
            run_queue,
            warehouse,
            self.sql,
            self.parameters,
            self.columns,
            self.log,
            delivery,
            api_version=hook.settings.api_version,
            defaults=self.defaults,
            duplicate_rows=self.duplicate_rows,
        )

    def _plan(self, hook: KKHook, warehouse: Any) -> dict[str, Any]:
        from airflow_provider_kk.api.errors import KKError
        from airflow_provider_kk.delivery.run_queue import RunQueue
        from airflow_provider_kk.hooks.ledger_connection import ledger_to_read
        from airflow_provider_kk.sync.plan import log_plan, plan

        run_queue, ledger_conn_id = RunQueue(), self._ledger_conn_id(hook)
        ledger = ledger_to_read(
            BaseHook.get_connection(ledger_conn_id), hook, self._ledger_params(ledger_conn_id)
        )
        if ledger is None:
            self.log.info("There is no ledger in %r yet, so no order is known as created", ledger_conn_id)
        bucket = hook.settings.shared_bucket(ledger) if ledger else hook.settings.local_bucket()
        with closing(ledger) if ledger else nullcontext():
            self._read(hook, warehouse, run_queue)
            try:
                with hook.client(bucket) if self.check_stock else nullcontext() as stock_of:
                    planned = plan(run_queue, ledger, bucket, stock_of=stock_of)
            except KKError as error:
                raise AirflowException(
                    f"No plan can be made, because KK's stock cannot be read: {error}"
                ) from error
        log_plan(planned, run_queue, self.log)
        return planned.summary.as_dict()

    # Sending ---------------------------------------------------------------------------------------

    def _deliver(
        self, delivery: Delivery, warehouse: Any, write_back: WriteBack | None, context: Context
    ) -> dict[str, Any]:
        """Deliver, then tell the warehouse, XCom and the ledger, in this order, whatever happened."""
        from airflow_provider_kk.delivery.log import OrderLog
        from airflow_provider_kk.delivery.run_queue import RunStatus
        from airflow_provider_kk.sync.failure_policy import task_failure

        delivery.before_waiting = lambda: write_results(delivery, warehouse, write_back, self.log)
        summary, failure = delivery.carry_out()
        self.log.info("%s", summary.line())
        try:
            could_not_tell = write_results(delivery, warehouse, write_back, self.log)
            failure = failure or could_not_tell  # a deferred task writes again when it resumes
        except BaseException as error:  # the task's timeout, or a signal
            failure = error
        if isinstance(failure, DeferUntil):
            delivery.end("waiting", summary)
            self._give_slot_back(failure.until)
        result = summary.as_dict()
        push(context, "return_value", result)
        if self.on_changed == "fail":
            order_log = OrderLog(self.log)
            for one in delivery.run_queue.finished(RunStatus.CHANGED):
                one.warn(order_log)
            order_log.flush()
        failure = failure or task_failure(
            delivery, summary, max_rejected=self.max_rejected, changes_fail=self.on_changed == "fail"
        )
        self._log_which(delivery, summary)
        delivery.end("failed" if failure else "done", summary)
        self._summary = summary
        delivery.gauge_account()
        if failure is not None:
            raise failure
        emit(self, context, delivery.hook.settings, ORDERS, made(summary))
        return result

    def _log_which(self, delivery: Delivery, summary: Summary) -> None:
        """Log the command that lists the orders for which the task fails, else those that have problems."""
        from airflow_provider_kk.sync.failure_policy import failing_states

        states = failing_states(summary, max_rejected=self.max_rejected) or [
            state for state in ("rejected", "invalid", "held") if getattr(summary, state)
        ]
        if states:
            self.log.info(
                "Which, and why: `kk ledger list --state %s --kk-conn-id %s --ledger-conn-id %s`",
                " --state ".join(states),
                self.kk_conn_id,
                self._ledger_conn_id(delivery.hook),
            )

    def get_openlineage_facets_on_complete(self, task_instance: Any) -> Any:
        """Tell OpenLineage which tables the orders are from, and how many orders the account has more."""
        connection: Any = BaseHook.get_connection(self.warehouse_conn_id)
        warehouse = connection.get_hook(hook_params=dict(self.hook_params or {}))
        read = tables_of(warehouse, self.warehouse_conn_id, self.sql)
        written = orders_at_kk(KKHook(self.kk_conn_id).settings, sum(made(self._summary).values()))
        return lineage(read.inputs, [written], job_facets=read.job_facets, run_facets=read.run_facets)
