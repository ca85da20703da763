"""What the operators share: the connections' arguments, stopping, deferring, XComs, Airflow's exceptions."""

from __future__ import annotations

import time
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
    from airflow_provider_kk.sync.delivery import Delivery
    from airflow_provider_kk.sync.runs import Summary

DEFERRABLE = conf.getboolean("operators", "default_deferrable", fallback=False)


_GUARDS = tuple(field.name for field in fields(Guards))


class _NotGiven:
    """The default of an argument whose None is not the same as leaving it out.

    None is what an upstream task returns that found nothing, in a mapping too, where it comes as an argument.
    """

    def __repr__(self) -> str:
        return "NOT_GIVEN"


NOT_GIVEN: Any = _NotGiven()


class KKOperator(BaseOperator):
    """An operator on a KK account, with the account's ledger."""

    _stop: Stop | None = None

    def __init__(
        self, *, kk_conn_id: str = KKHook.default_conn_name, ledger_conn_id: str | None = None, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.kk_conn_id = kk_conn_id
        self.ledger_conn_id = ledger_conn_id
        self.names_ledger = ledger_conn_id is not None

    def execute(self, context: Context) -> Any:
        """Do the task's work, and return what the operator returns."""
        with translate_errors():
            return self._execute(context)

    def _execute(self, context: Context) -> Any:
        """Do the work of `execute`; each operator has its own."""
        raise NotImplementedError

    def on_kill(self) -> None:
        """Send nothing new; what is in flight is still recorded."""
        if self._stop is not None:
            self._stop.set("the task was told to stop")

    def _new_stop(self) -> Stop:
        from airflow_provider_kk.delivery.clock import Stop

        self._stop = Stop()
        return self._stop


class DeliveringOperator(KKOperator):
    """An operator whose work is delivery; see `CreateOrderOperator` and `SyncOrdersOperator`."""

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
        """Map the operator, as Airflow does; check the guards when the DAG is parsed."""
        Guards.checked(**{name: kwargs[name] for name in _GUARDS if name in kwargs})
        return super().partial(**kwargs)

    def resume(self, context: Context, event: Any = None) -> Any:
        """Go on after a deferral: all state is in the ledger, so this is simply the task again."""
        return self.execute(context)

    def _delivery(
        self, hook: KKHook, ledger: SqlLedger, origin: Origin, stop: Stop, **limits: Any
    ) -> Delivery:
        """Return the delivery of an empty run queue.

        :param limits: other fields of `Delivery`.
        """
        from airflow_provider_kk.delivery.reconcile import Policy
        from airflow_provider_kk.delivery.run_queue import RunQueue
        from airflow_provider_kk.sync.delivery import Delivery, warn_of_short_timeout

        warn_of_short_timeout(self.execution_timeout, ledger, self.log)
        policy = Policy(self.on_absence, self.max_resends)
        return Delivery(
            hook, ledger, RunQueue(), origin, stop, policy, self.log, guards=self.guards, **limits
        )

    def _give_slot_back(self, until: float) -> NoReturn:
        from airflow_provider_kk.delivery.log import utc
        from airflow_provider_kk.triggers.kk import SleepTrigger

        self.log.info(
            "Waiting until %s for orders in doubt to show in KK's list, without a worker's slot", utc(until)
        )
        self.defer(trigger=SleepTrigger(until, until - time.time()), method_name="resume")


def named_ledger(task: KKOperator) -> str | None:
    """Return the ledger that a DAG names: None for none, empty text when its template has come to nothing."""
    return (task.ledger_conn_id or "") if task.names_ledger else None


@contextmanager
def translate_errors() -> Iterator[None]:
    """Raise errors of the package as Airflow's: one that a retry does not help fails without retries."""
    from sqlalchemy.exc import DBAPIError

    from airflow_provider_kk.delivery.sql.database import LedgerUnusableError
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
            f"The ledger's database cannot be used: {describe_error(error)}. Nothing is sent without it; "
            "what was being sent is looked up in KK's list. A retry, or the next run, goes on where this "
            "try stopped"
        )
    else:
        return
    # Alone: the driver's traceback fills pages and says no more.
    raise AirflowException(message) from None


def origin_of(context: Any) -> Origin:
    """Return which task's try this is; empty outside of a DAG run."""
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
    """Push an XCom, when there is a task instance to push it for."""
    ti = context.get("ti")
    if ti is not None:
        ti.xcom_push(key=key, value=value)


def push_order_url(context: Any, settings: ConnectionSettings, kk_order_id: str) -> None:
    """Push where people see an order at KK, when the connection says it."""
    if settings.order_url is not None:
        push(context, ORDER_URL, settings.order_url.replace("{kk_order_id}", quote(kk_order_id, safe="")))


def _require_one_of(name: str, value: str, allowed: Sequence[str]) -> None:
    if value not in allowed:
        raise ValueError(f"{name} must be one of {', '.join(map(repr, allowed))}, not {value!r}")
