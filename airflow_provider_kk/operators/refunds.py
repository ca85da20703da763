"""RefundOrderOperator: asks KK for a refund, once."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import AirflowException, AirflowFailException

from airflow_provider_kk.hooks.kk import KKHook
from airflow_provider_kk.links.kk import IN_LEDGER, OrderAtKKLink
from airflow_provider_kk.operators.base import (
    DEFERRABLE,
    NOT_GIVEN,
    KKOperator,
    named_ledger,
    origin_of,
    push,
    push_order_url,
)
from airflow_provider_kk.operators.masking import MaskingOperator, PersonalField, unmasked

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context, XComArg

    from airflow_provider_kk.sync.refund_task import RefundTask

#: Shorter waits are slept through: a deferral costs more.
_WORTH_DEFERRING_S = 5.0


class RefundOrderOperator(MaskingOperator, KKOperator):
    """Asks KK to refund an order, or some of its lines, exactly once, whatever is retried, cleared or killed.

    Possible before shipping only; KK decides later, usually within an hour. An order is refunded as a whole
    once, whoever asks; lines are refunded once by each task of a run. When the answer is lost, KK's refunds
    of the order are read after the settle window: what is there is taken as asked for, what is not is held
    for a human (`kk ledger --refunds`), since money is never asked for again by itself.

    Returns `[{kk_order_id, refund_no, refund_status}]`, one for each of the order's splits that is concerned,
    pushed before the task fails, too; `refund_status` is None without `wait`. Source: KK's page "Refund".

    :param kk_order_id: the order by KK's id.
    :param custom_order_number: or by your own number: all orders that KK has split it into.
    :param lines: `[{"sku": ..., "quantity": ...}]` or that as JSON text; left out, the whole order; None
        is an error. Checked against what was ordered and what the ledger knows as refunded.
    :param remark: a note to KK. The refund's key is put before it.
    :param refund_reason: KK's reason for a refund of lines.
    :param wait: until KK has decided.
    :param kk_conn_id: the Airflow connection to KK.
    :param ledger_conn_id: the database connection of the ledger, else the kk connection's. There is no refund
        without one.
    :param deferrable: wait in the triggerer.
    :param poll_interval: with `wait`, seconds from one look to the next.
    :param wait_timeout: with `wait`, seconds after it was asked for in which KK has to decide (25 hours).
    :raises AirflowFailException: KK has refused it, or the lines are not what was ordered, or a human has to
        look; a retry does not help.
    :raises AirflowException: it is not known yet whether KK has it, or KK cannot be read; a retry goes on.
    """

    template_fields: Sequence[str] = (
        "kk_order_id",
        "custom_order_number",
        "lines",
        "remark",
        "refund_reason",
        "kk_conn_id",
        "ledger_conn_id",
    )
    operator_extra_links = (OrderAtKKLink(), *IN_LEDGER)
    ui_color = "#f2dede"

    remark = PersonalField()

    def __init__(
        self,
        *,
        kk_order_id: str | XComArg | None = None,
        custom_order_number: str | XComArg | None = None,
        lines: Any = NOT_GIVEN,
        remark: str | XComArg = "Asked for by the shop",
        refund_reason: str | XComArg = "Other",
        wait: bool = False,
        deferrable: bool = DEFERRABLE,
        poll_interval: float = 300,
        wait_timeout: float = 90_000,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if (kk_order_id is None) == (custom_order_number is None):
            raise ValueError("give either kk_order_id or custom_order_number")
        self.kk_order_id = kk_order_id
        self.custom_order_number = custom_order_number
        # What was asked for and is None, rendered or mapped, must not become a refund of the whole order.
        self.is_whole = lines is NOT_GIVEN
        self.lines = None if self.is_whole else lines
        self.remark = remark
        self.refund_reason = refund_reason
        self.wait = wait
        self.deferrable = deferrable
        self.poll_interval = poll_interval
        self.wait_timeout = wait_timeout

    def resume(self, context: Context, event: dict[str, Any] | None = None) -> Any:
        """Go on after a deferral: all state is in the ledger, so this is simply the task again."""
        if event and event.get("state") == "error":
            raise AirflowException(event["reason"])
        return self.execute(context)

    def _execute(self, context: Context) -> list[dict[str, Any]]:
        from airflow_provider_kk.api.errors import KKError
        from airflow_provider_kk.api.throttle import ThrottleStopped
        from airflow_provider_kk.delivery.log import describe_pause
        from airflow_provider_kk.delivery.model import InconclusiveError, SendingPausedError
        from airflow_provider_kk.delivery.refunds import RefundImpossibleError, RefundPostponedError
        from airflow_provider_kk.hooks.ledger_connection import open_ledger, resolve_ledger_conn_id
        from airflow_provider_kk.sync.refund_task import RefundTask, lines_of

        self.require_masked()
        stop = self._new_stop()
        number, kk_order_id = self._which()
        hook = KKHook(self.kk_conn_id)
        settings = hook.settings
        ledger_conn_id = resolve_ledger_conn_id(hook, named_ledger(self))
        if ledger_conn_id is None:
            raise AirflowFailException(
                "To ask for a refund exactly once, set ledger_conn_id on the operator or in the extra of "
                f"{self.kk_conn_id!r}"
            )
        try:
            goods = None if self.is_whole else lines_of(self.lines)
            with closing(open_ledger(hook, ledger_conn_id, threads=1, log=self.log)) as ledger:
                bucket = settings.shared_bucket(ledger)
                with hook.client(bucket) as client:
                    refunding = RefundTask(ledger, client, bucket, origin_of(context), stop, self.log)
                    try:
                        refunding.prepare(
                            number, kk_order_id, goods, str(unmasked(self.remark)), str(self.refund_reason)
                        )
                        for one in refunding.kk_order_ids[:1]:
                            push_order_url(context, settings, one)
                        return self._run(refunding, context, ledger_conn_id)
                    finally:
                        refunding.emit_metrics()
        except RefundImpossibleError as error:
            raise AirflowFailException(f"Not refunded: {error}") from error
        except RefundPostponedError as error:
            raise AirflowException(f"Not refunded yet: {error}") from error
        except SendingPausedError as error:
            raise AirflowException(f"Not refunded yet: {describe_pause(error.pause)}") from error
        except ThrottleStopped as error:
            raise AirflowException("The task was told to stop; nothing more was asked for") from error
        except (KKError, InconclusiveError) as error:
            raise AirflowException(
                f"KK cannot be read: {error}. A retry goes on where this try stopped"
            ) from error

    def _which(self) -> tuple[str | None, str | None]:
        """The order number or the kkOrderId, as text."""
        given = self.custom_order_number if self.kk_order_id is None else self.kk_order_id
        text = str(given if given is not None else "").strip()
        if text in ("", "None"):
            name = "custom_order_number" if self.kk_order_id is None else "kk_order_id"
            raise AirflowFailException(f"{name} is empty: its template has come to nothing")
        return (text, None) if self.kk_order_id is None else (None, text)

    def _run(self, refunding: RefundTask, context: Context, ledger_conn_id: str) -> list[dict[str, Any]]:
        while (wait_s := refunding.advance()) is not None:
            self._wait(refunding, wait_s)
        result = refunding.result()
        push(context, "return_value", result)
        refunding.require_asked()
        if not self.wait:
            return result
        while pending := refunding.look():
            self._wait_for_decision(refunding, pending, ledger_conn_id)
        result = refunding.result()
        push(context, "return_value", result)
        refunding.require_asked()
        if refunding.failed:
            raise AirflowFailException(f"KK has decided against a refund: {', '.join(refunding.failed)}")
        return result

    def _wait(self, refunding: RefundTask, wait_s: float) -> None:
        from airflow_provider_kk.triggers.kk import SleepTrigger

        if self.deferrable and wait_s > _WORTH_DEFERRING_S:
            self.defer(trigger=SleepTrigger(refunding.now() + wait_s, wait_s), method_name="resume")
        self._sleep(refunding, wait_s)

    def _wait_for_decision(self, refunding: RefundTask, pending: list[str], ledger_conn_id: str) -> None:
        from airflow_provider_kk.triggers.kk import RefundTrigger

        deadline = refunding.asked_at + self.wait_timeout
        if (rest_s := deadline - refunding.now()) <= 0:
            raise AirflowFailException(
                f"KK has not decided within {self.wait_timeout:g} s on the refund: {', '.join(pending)}"
            )
        if self.deferrable:
            trigger = RefundTrigger(
                kk_conn_id=self.kk_conn_id,
                ledger_conn_id=ledger_conn_id,
                refund_keys=pending,
                poll_s=self.poll_interval,
                deadline=deadline,
            )
            self.defer(trigger=trigger, method_name="resume")
        self._sleep(refunding, min(self.poll_interval, rest_s))

    def _sleep(self, refunding: RefundTask, seconds: float) -> None:
        self.log.info("Looking at KK's refunds again in %.0f s", seconds)
        refunding.sleep(seconds)
        if self._stop is not None and self._stop.is_set():
            raise AirflowException("The task was told to stop; a retry goes on where this try stopped")
