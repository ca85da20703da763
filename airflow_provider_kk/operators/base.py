"""The operators' shared parts: connection arguments, stopping, deferring, XComs, Airflow's exceptions."""

from __future__ import annotations

import time
from abc import abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import fields
from decimal import Decimal
from typing import TYPE_CHECKING, Any, NoReturn
from urllib.parse import quote

from airflow.providers.common.compat.sdk import AirflowException, AirflowFailException, BaseOperator, conf

from airflow_provider_kk.hooks.kk import KKHook
from airflow_provider_kk.links.kk import ORDER_URL
from airflow_provider_kk.sync.guards import Guards

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context

    from airflow_provider_kk.delivery.clock import Stop
    from airflow_provider_kk.delivery.model import Origin
    from airflow_provider_kk.delivery.sql.storage import SqlLedger
    from airflow_provider_kk.hooks.connection import ConnectionSettings
    from airflow_provider_kk.sync.deliver import Delivery
    from airflow_provider_kk.sync.sync_counts import Summary

DEFERRABLE = conf.getboolean("operators", "default_deferrable", fallback=False)


_GUARDS = tuple(field.name for field in fields(Guards))


class _NotGiven:
    """The default of an argument for which None differs from leaving it out.

    An upstream task that finds nothing returns None, and a mapped task receives it as an argument.
    """

    def __repr__(self) -> str:
        return "NOT_GIVEN"


NOT_GIVEN: Any = _NotGiven()


class KKOperator(BaseOperator):
    """Base class of the operators: a KK account and the account's ledger.

    :param kk_conn_id: the Airflow connection to KK.
    :param ledger_conn_id: the database connection of the ledger, else the kk connection's.
    """

    _stop: Stop | None = None

    def __init__(
        self, *, kk_conn_id: str = KKHook.default_conn_name, ledger_conn_id: str | None = None, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.kk_conn_id = kk_conn_id
        self.ledger_conn_id = ledger_conn_id
        self.names_ledger = ledger_conn_id is not None

    def execute(self, context: Context) -> Any:
        """Do the task's work and return its result."""
        with translate_errors():
            return self._execute(context)

    @abstractmethod
    def _execute(self, context: Context) -> Any:
        """Do the work of `execute`; each operator has its own."""

    def on_kill(self) -> None:
        """Stop sending. The outcomes of requests in flight are still recorded."""
        if self._stop is not None:
            self._stop.set("Airflow stopped the task")

    def _ledger_conn_id(self, hook: KKHook, warehouse_conn_id: str | None = None) -> str | None:
        """Return the connection of the ledger; see `resolve_ledger_conn_id`.

        A ledger that the DAG names and whose template rendered to None is an error: another one does not know
        what was sent.
        """
        from airflow_provider_kk.hooks.ledger_connection import resolve_ledger_conn_id

        named = (self.ledger_conn_id or "") if self.names_ledger else None
        return resolve_ledger_conn_id(hook, named, warehouse_conn_id)

    def _new_stop(self) -> Stop:
        from airflow_provider_kk.delivery.clock import Stop

        self._stop = Stop()
        return self._stop


class DeliveringOperator(KKOperator):
    """Base class of the operators that send orders: `CreateOrderOperator` and `SyncOrdersOperator`."""

    _summary: Summary | None = None

    def __init__(
        self,
        *,
        on_absence: str = "resend",
        max_resends: int = 1,
        on_changed: str = "fail",
        deferrable: bool = DEFERRABLE,
        max_order_units: int | None = Guards.max_order_units,
        max_order_value: Decimal | float | str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.guards = Guards.checked(
            max_new_orders=None, max_order_units=max_order_units, max_order_value=max_order_value
        )
        _require_one_of("on_absence", on_absence, ("resend", "hold"))
        _require_one_of("on_changed", on_changed, ("fail", "ignore"))
        self.on_absence = on_absence
        self.max_resends = max_resends
        self.on_changed = on_changed
        self.deferrable = deferrable

    @classmethod
    def partial(cls, **kwargs: Any) -> Any:
        """Map the operator, as Airflow does, and check the guards while the DAG is parsed."""
        Guards.checked(**{name: kwargs[name] for name in _GUARDS if name in kwargs})
        return super().partial(**kwargs)

    def resume(self, context: Context, event: Any = None) -> Any:
        """Continue after a deferral: run `execute` once more, since all state is in the ledger."""
        return self.execute(context)

    def _delivery(
        self, hook: KKHook, ledger: SqlLedger, origin: Origin, stop: Stop, **limits: Any
    ) -> Delivery:
        """Return the delivery of an empty run queue.

        :param limits: other fields of `Delivery`.
        """
        from airflow_provider_kk.delivery.reconcile import AbsencePolicy
        from airflow_provider_kk.delivery.run_queue import RunQueue
        from airflow_provider_kk.sync.deliver import Delivery

        timeout = self.execution_timeout
        if timeout is not None and timeout.total_seconds() < ledger.settle_delay_s:
            self.log.warning(
                "execution_timeout is %.0f s, but an order in doubt is reconciled %.0f s after it was sent "
                "(lease_s + timeout_s + settle_window_s). Such orders stay in doubt until the next try or "
                "run. To reconcile them in this try, raise execution_timeout",
                timeout.total_seconds(),
                ledger.settle_delay_s,
            )
        policy = AbsencePolicy(self.on_absence, self.max_resends)
        return Delivery(
            hook, ledger, RunQueue(), origin, stop, policy, self.log, guards=self.guards, **limits
        )

    def _defer_until(self, until: float) -> NoReturn:
        from airflow_provider_kk.delivery.log import utc
        from airflow_provider_kk.triggers.kk import SleepTrigger

        self.log.info(
            "Orders are in doubt. The task is deferred until %s, then reads KK's list. It needs no worker "
            "slot meanwhile",
            utc(until),
        )
        self.defer(trigger=SleepTrigger(until, until - time.time()), method_name="resume")


@contextmanager
def translate_errors() -> Iterator[None]:
    """Raise the package's errors as Airflow's: `AirflowFailException` where a retry does not help."""
    from sqlalchemy.exc import DBAPIError

    from airflow_provider_kk.delivery.model import LedgerUnusableError
    from airflow_provider_kk.delivery.sql.driver_errors import describe_error
    from airflow_provider_kk.hooks.connection import InvalidConnectionError
    from airflow_provider_kk.sync.errors import SyncError

    try:
        yield
    except SyncError as error:
        failure = AirflowException if error.is_retryable else AirflowFailException
        raise failure(str(error)) from error.__cause__
    except (InvalidConnectionError, LedgerUnusableError) as error:
        raise AirflowFailException(str(error)) from error
    except DBAPIError as error:
        message = (
            f"The ledger's database cannot be used: {describe_error(error)}. Nothing is sent without it. "
            "Orders that were being sent are reconciled from KK's list. A retry, or the next run, continues "
            "where this try stopped"
        )
    else:
        return
    # Without its cause: the driver's traceback fills pages and adds nothing.
    raise AirflowException(message) from None


def origin_of(context: Any) -> Origin:
    """Return the DAG run, task and try of a context; empty outside of a DAG run."""
    from airflow_provider_kk.delivery.model import Origin

    ti = context.get("ti")
    if ti is None:
        return Origin()
    return Origin(
        str(ti.dag_id),
        str(ti.run_id),
        str(ti.task_id),
        -1 if ti.map_index is None else int(ti.map_index),
        int(ti.try_number or 0),
    )


def push(context: Any, key: str, value: Any) -> None:
    """Push an XCom if the context has a task instance."""
    ti = context.get("ti")
    if ti is not None:
        ti.xcom_push(key=key, value=value)


def push_order_url(context: Any, settings: ConnectionSettings, kk_order_id: str) -> None:
    """Push the address of an order's page at KK if the connection has `order_url`."""
    if settings.order_url is not None:
        push(context, ORDER_URL, settings.order_url.replace("{kk_order_id}", quote(kk_order_id, safe="")))


def order_argument(kk_order_id: object, custom_order_number: object) -> str:
    """Return the name of the argument that gives a task its order.

    :raises ValueError: both are given, or none.
    """
    if (kk_order_id is None) == (custom_order_number is None):
        raise ValueError("set either kk_order_id or custom_order_number")
    return "custom_order_number" if kk_order_id is None else "kk_order_id"


def rendered(task: BaseOperator, name: str) -> str:
    """Return the text of a rendered argument.

    :raises AirflowFailException: it is empty.
    """
    text = str(getattr(task, name)).strip()
    if text in ("", "None"):
        raise AirflowFailException(
            f"{name} rendered to {text or 'an empty text'}. Check that the upstream task returned a value"
        )
    return text


def _require_one_of(name: str, value: str, allowed: Sequence[str]) -> None:
    if value not in allowed:
        raise ValueError(f"{name} must be one of {', '.join(map(repr, allowed))}, not {value!r}")
