"""Operator that asks KK for a refund."""

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
    order_argument,
    origin_of,
    push,
    push_order_url,
    rendered,
)
from airflow_provider_kk.operators.masked_fields import MaskingOperator, PersonalField, unmasked

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context, XComArg

    from airflow_provider_kk.sync.refund_task import RefundTask

#: Shorter waits are slept through: a deferral costs more.
_WORTH_DEFERRING_S = 5.0


class RefundOrderOperator(MaskingOperator, KKOperator):
    """Asks KK to refund an order, or some of its lines, exactly once, also when it is retried or cleared.

    KK refunds only what is not shipped, and decides later, usually within an hour. A whole order is refunded
    once over all DAGs. Lines are refunded once by each task of a run. If KK's response is lost, the task
    reads KK's refunds of the order after the settle window. A refund that KK lists is adopted. One that KK
    does not list is held (`kk ledger list --refunds`): a refund is never sent a second time automatically.

    Returns `[{kk_order_id, refund_no, refund_status}]`, one for each split of the order that is refunded. A
    task that fails pushes it, too. Without `wait`, `refund_status` is None. Source: KK's page "Refund".

    :param kk_order_id: the order, by KK's id.
    :param custom_order_number: the order, by your own number, with all its splits at KK.
    :param lines: `[{"sku": ..., "quantity": ...}]` or the same as JSON text. If it is left out, the whole
        order is refunded. None is an error. The ledger must have these goods as ordered and not refunded.
    :param remark: a note to KK. The refund's key is put before it.
    :param refund_reason: KK's reason for a refund of lines.
    :param wait: wait until KK has decided.
    :param kk_conn_id: the Airflow connection to KK.
    :param ledger_conn_id: the database connection of the ledger, else the kk connection's. A refund needs
        one.
    :param deferrable: wait in the triggerer.
    :param poll_interval: with `wait`, seconds between two readings of KK's refunds.
    :param wait_timeout: with `wait`, seconds from the request to KK's decision, at most (25 hours).
    :raises AirflowFailException: KK has rejected the refund, the lines are not what was ordered, or the
        refund is held; a retry does not help.
    :raises AirflowException: the refund is in doubt, or KK cannot be read; a retry continues.
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
        self.given = order_argument(kk_order_id, custom_order_number)
        self.kk_order_id = kk_order_id
        self.custom_order_number = custom_order_number
        # Lines that were given and render to None must not become a refund of the whole order.
        self.is_whole = lines is NOT_GIVEN
        self.lines = None if self.is_whole else lines
        self.remark = remark
        self.refund_reason = refund_reason
        self.wait = wait
        self.deferrable = deferrable
        self.poll_interval = poll_interval
        self.wait_timeout = wait_timeout

    def resume(self, context: Context, event: dict[str, Any] | None = None) -> Any:
        """Continue after a deferral: run `execute` once more, since all state is in the ledger."""
        if event and event.get("state") == "error":
            raise AirflowException(event["reason"])
        return self.execute(context)

    def _execute(self, context: Context) -> list[dict[str, Any]]:
        from airflow_provider_kk.api.errors import KKError
        from airflow_provider_kk.delivery.model import InconclusiveError, SendingPausedError, ThrottleStopped
        from airflow_provider_kk.delivery.refunds import RefundImpossibleError, RefundPostponedError
        from airflow_provider_kk.hooks.ledger_connection import open_ledger
        from airflow_provider_kk.sync.refund_task import RefundTask, lines_of

        self.require_masked()
        stop = self._new_stop()
        given = {self.given: rendered(self, self.given)}
        hook = KKHook(self.kk_conn_id)
        settings = hook.settings
        ledger_conn_id = self._ledger_conn_id(hook)
        if ledger_conn_id is None:
            raise AirflowFailException(
                "A refund needs a ledger, so that it is sent only once. Set ledger_conn_id on the operator "
                f"or in the extra of connection {self.kk_conn_id!r}"
            )
        try:
            goods = None if self.is_whole else lines_of(self.lines)
            with closing(open_ledger(hook, ledger_conn_id, threads=1, log=self.log)) as ledger:
                bucket = settings.shared_bucket(ledger)
                with hook.client(bucket) as client:
                    refunding = RefundTask(ledger, client, bucket, origin_of(context), stop, self.log)
                    try:
                        refunding.prepare(
                            given.get("custom_order_number"),
                            given.get("kk_order_id"),
                            goods,
                            str(unmasked(self.remark)),
                            str(self.refund_reason),
                        )
                        for one in refunding.kk_order_ids[:1]:
                            push_order_url(context, settings, one)
                        return self._run(refunding, context, ledger_conn_id)
                    finally:
                        refunding.emit_metrics()
        except RefundImpossibleError as error:
            raise AirflowFailException(f"Not refunded: {error}") from error
        except (RefundPostponedError, SendingPausedError) as error:
            raise AirflowException(f"Not refunded yet: {error}") from error
        except ThrottleStopped as error:
            raise AirflowException("Airflow stopped the task. It sent no further refund") from error
        except (KKError, InconclusiveError) as error:
            raise AirflowException(
                f"KK cannot be read: {error}. A retry continues where this try stopped"
            ) from error

    def _run(self, refunding: RefundTask, context: Context, ledger_conn_id: str) -> list[dict[str, Any]]:
        while (wait_s := refunding.advance()) is not None:
            self._wait(refunding, wait_s)
        result = refunding.result()
        push(context, "return_value", result)
        refunding.require_sent()
        if not self.wait:
            return result
        while pending := refunding.read_statuses():
            self._wait_for_decision(refunding, pending, ledger_conn_id)
        result = refunding.result()
        push(context, "return_value", result)
        refunding.require_sent()
        if refunding.failed:
            raise AirflowFailException(
                f"KK did not grant these refunds: {', '.join(refunding.failed)}. See the orders on KK's site"
            )
        return result

    def _wait(self, refunding: RefundTask, wait_s: float) -> None:
        from airflow_provider_kk.triggers.kk import SleepTrigger

        if self.deferrable and wait_s > _WORTH_DEFERRING_S:
            self.defer(trigger=SleepTrigger(refunding.now() + wait_s, wait_s), method_name="resume")
        self._sleep(refunding, wait_s)

    def _wait_for_decision(self, refunding: RefundTask, pending: list[str], ledger_conn_id: str) -> None:
        from airflow_provider_kk.triggers.kk import RefundTrigger

        deadline = refunding.requested_at + self.wait_timeout
        if (rest_s := deadline - refunding.now()) <= 0:
            raise AirflowFailException(
                f"KK did not decide on these refunds within {self.wait_timeout:g} s: {', '.join(pending)}. "
                "See the orders on KK's site, or raise wait_timeout"
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
        self.log.info("The next reading of KK's refunds is in %.0f s", seconds)
        refunding.sleep(seconds)
        if self._stop is not None and self._stop.is_set():
            raise AirflowException("Airflow stopped the task. A retry continues where this try stopped")
