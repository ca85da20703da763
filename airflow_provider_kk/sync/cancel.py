"""Cancel an order at KK before it ships: KK's refund of the whole order, asked for exactly once."""

from __future__ import annotations

from typing import TYPE_CHECKING

from airflow_provider_kk.sync.errors import ResolutionRejected, ResolutionUnavailable
from airflow_provider_kk.sync.resolution import ResolvedBy

if TYPE_CHECKING:
    from airflow_provider_kk.delivery.log import Log
    from airflow_provider_kk.delivery.sql.storage import SqlLedger
    from airflow_provider_kk.hooks.kk import KKHook

_MOST_REMARK = 200


def require_cancellable(number: str, hook: KKHook, ledger: SqlLedger) -> None:
    """Require that an order is at KK and not shipped. Nothing changes.

    :raises ResolutionRejected: it cannot be cancelled; the text has the reason and what to do.
    :raises KKError: KK does not answer.
    """
    from airflow_provider_kk.api.fulfilment import FulfilmentStatus, why_never

    entry = ledger.look_up([number]).get(number)
    if entry is None:
        raise ResolutionRejected(f"{number} is not in the ledger of {ledger.account} at {ledger.host}")
    if entry.state.value != "created":
        state = entry.state.value
        raise ResolutionRejected(f"{number} is {state.replace('_', ' ')}{_ADVICE[state]}")
    # A bulk cancel sends a request for each order, so it shares the account's rate limit.
    with hook.client(hook.settings.shared_bucket(ledger)) as client:
        listed = client.get_orders(list(entry.kk_order_ids))
    reasons = {one.id: reason for one in listed if (reason := why_never(one, FulfilmentStatus.REFUNDED))}
    if listed and len(reasons) == len(listed):
        text = "; ".join(f"{kk_id}: {why}" for kk_id, why in reasons.items())
        raise ResolutionRejected(f"{number} cannot be cancelled: {text}")


_NOT_AT_KK = (
    ": KK does not have it, so there is nothing to cancel. To keep it from being sent, remove it from the "
    "query or run `kk pause`"
)
_ADVICE = {
    "invalid": _NOT_AT_KK,
    "not_sent": _NOT_AT_KK,
    "rejected": _NOT_AT_KK,
    "sending": ": wait until a sync records its outcome, then cancel it",
    "in_doubt": ": wait until a sync reconciles it, then cancel it",
    "held": ": resolve it first with `kk ledger resolve`",
}


def cancel(number: str, resolved_by: ResolvedBy, hook: KKHook, ledger: SqlLedger, log: Log) -> str:
    """Ask KK to refund a whole order, once however often this is called, and return the result in words.

    `resolved_by.why` is the remark at KK. KK decides later, usually within an hour (page "Refund").

    :raises ResolutionRejected: the refund was not sent, or KK rejected it; the text has the reason.
    :raises ResolutionUnavailable: the refund is in doubt; the same call later continues.
    :raises KKError: KK cannot be read.
    """
    from airflow_provider_kk.delivery.clock import Stop
    from airflow_provider_kk.delivery.model import InconclusiveError, Origin
    from airflow_provider_kk.delivery.refunds import RefundImpossibleError, RefundPostponedError
    from airflow_provider_kk.sync.errors import SyncError
    from airflow_provider_kk.sync.refund_task import RefundTask

    require_cancellable(number, hook, ledger)
    bucket = hook.settings.shared_bucket(ledger)
    origin = Origin(run_id="kk cancel", task_id=resolved_by.who)
    with hook.client(bucket) as client:
        # After a wrong run, a person pauses the account and cancels the orders of that run.
        task = RefundTask(ledger, client, bucket, origin, Stop(), log, goes_on_while_paused=True)
        try:
            task.prepare(number, None, None, resolved_by.why[:_MOST_REMARK], "Other")
            wait_s = task.advance()
            if wait_s is not None:
                raise ResolutionUnavailable(
                    f"the refund of {number} is in doubt. Cancel it again in {wait_s:.0f} s to reconcile it. "
                    "No refund is sent twice"
                )
            task.require_sent()
        except RefundImpossibleError as error:
            raise ResolutionRejected(f"{number} cannot be cancelled: {error}") from error
        except (RefundPostponedError, InconclusiveError) as error:
            raise ResolutionUnavailable(f"{number} cannot be cancelled yet: {error}") from error
        except SyncError as error:
            raise ResolutionRejected(f"{number}: {error}") from error
        refunds = ", ".join(one["refund_no"] for one in task.result())
        return f"KK has refund {refunds} of {', '.join(task.kk_order_ids)}, and decides on it within a day"
