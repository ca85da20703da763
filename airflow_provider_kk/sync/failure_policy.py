"""Decide whether a task succeeds, and describe why it fails."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from airflow_provider_kk.delivery.log import count_orders, some_of
from airflow_provider_kk.delivery.run_queue import RunResult, RunStatus
from airflow_provider_kk.delivery.states import State
from airflow_provider_kk.sync.errors import SyncError

if TYPE_CHECKING:
    from airflow_provider_kk.sync.deliver import Delivery
    from airflow_provider_kk.sync.sync_counts import Summary

_NAMED = 5


def task_failure(
    delivery: Delivery, summary: Summary, *, max_rejected: float, changes_fail: bool
) -> SyncError | None:
    """Return the error with which the task of a sync fails; None if it succeeds."""
    if delivery.guard_exceeded:
        return SyncError(f"Nothing was sent: {delivery.guard_exceeded}", is_retryable=False)
    if summary.in_doubt or summary.not_sent:
        return SyncError(_unfinished(delivery, summary), is_retryable=True)
    reasons = []
    if summary.newly_held:
        where = _examples(delivery, RunStatus.HELD, summary.newly_held, elsewhere=delivery.held_elsewhere)
        reasons.append(
            f"{count_orders(summary.newly_held)} newly held{where}. See `kk ledger list --state held`, then "
            "resolve each with `kk ledger resolve`"
        )
    if changes_fail and summary.changed:
        where = _examples(delivery, RunStatus.CHANGED, summary.changed)
        reasons.append(
            f"{count_orders(summary.changed)} changed after creation under the same number{where}. Use a new "
            "number for a new order, or undo the change. `kk check` with the query lists each"
        )
    if _too_many_are_bad(summary, max_rejected):
        bad = summary.newly_rejected + summary.newly_invalid
        where = _examples(delivery, RunStatus.REJECTED, summary.newly_rejected)
        where += _examples(delivery, RunStatus.INVALID, summary.newly_invalid)
        reasons.append(
            f"{count_orders(bad)} newly rejected or invalid{where}, more than max_rejected={max_rejected} "
            "allows. Fix their rows"
        )
    if not reasons:
        return None
    at_kk = summary.created + summary.already_created + summary.adopted
    return SyncError(
        f"{'. '.join(reasons)}. {at_kk:,} of {count_orders(summary.selected)} are at KK. For details, see "
        "the warnings in the log and the summary's rejections",
        is_retryable=False,
    )


def failing_states(summary: Summary, *, max_rejected: float) -> list[State]:
    """Return the ledger states of the orders for which `task_failure` fails a task."""
    numbers = {State.HELD: summary.newly_held}
    if summary.in_doubt or summary.not_sent:
        # An order that another worker is sending counts as in doubt.
        numbers = {State.IN_DOUBT: summary.in_doubt, State.SENDING: summary.in_doubt}
        numbers |= {State.NOT_SENT: summary.not_sent, State.REJECTED: summary.newly_rejected}
    elif _too_many_are_bad(summary, max_rejected):
        numbers |= {State.REJECTED: summary.newly_rejected, State.INVALID: summary.newly_invalid}
    return [state for state, number in numbers.items() if number]


def _too_many_are_bad(summary: Summary, max_rejected: float) -> bool:
    is_share = isinstance(max_rejected, float) and max_rejected < 1
    allowed = max_rejected * summary.selected if is_share else max_rejected
    return summary.newly_rejected + summary.newly_invalid > allowed


def order_failure(finished: RunResult, *, changes_fail: bool) -> SyncError | None:
    """Return the error with which the task of a single order fails; None if the order is at KK."""
    status, name = finished.status, finished.key
    if status in (RunStatus.CREATED, RunStatus.ALREADY_CREATED, RunStatus.ADOPTED):
        return None
    if status is RunStatus.CHANGED and not changes_fail:
        return None
    code = f" (code {finished.code})" if finished.code is not None else ""
    why = f": {finished.message}" if finished.message else ""
    text = f"Order {name} is {status.replace('_', ' ')}{code}{why}"
    if status in (RunStatus.IN_DOUBT, RunStatus.NOT_SENT, RunStatus.POSTPONED):
        return SyncError(f"{text}. A retry continues", is_retryable=True)
    return SyncError(f"{text}. See `kk ledger show {name}`", is_retryable=False)


def _unfinished(delivery: Delivery, summary: Summary) -> str:
    why = delivery.breaker_reason or ""
    parts = []
    if summary.in_doubt:
        where = _examples(delivery, RunStatus.IN_DOUBT, summary.in_doubt, but=why)
        parts.append(f"{count_orders(summary.in_doubt)} in doubt{where}")
    if summary.not_sent:
        where = "" if why else _examples(delivery, RunStatus.NOT_SENT, summary.not_sent)
        parts.append(f"{count_orders(summary.not_sent)} not sent{where}")
    if summary.newly_rejected:
        parts.append(f"{count_orders(summary.newly_rejected)} newly rejected")
    because = f", because {why}" if why else ""
    return f"{', '.join(parts)}{because}. {_what_next(delivery)}"


def _what_next(delivery: Delivery) -> str:
    from airflow_provider_kk.api.errors import KKAuthError, KKEndpointError
    from airflow_provider_kk.hooks.connection import fix_for

    hook, error = delivery.hook, delivery.breaker_error
    if isinstance(error, (KKAuthError, KKEndpointError)):
        what = f"{fix_for(error, hook.settings)} of connection {hook.kk_conn_id!r}"
        return f"{what}. Then a retry, or the next run, continues"
    return "A retry, or the next run, continues where this try stopped"


def _examples(
    delivery: Delivery, status: RunStatus, number: int, *, but: str = "", elsewhere: Sequence[str] = ()
) -> str:
    """Return some of `number` orders with their common reason, or with the reason of the first.

    :param but: text that was reported already and is not repeated.
    :param elsewhere: those of the orders that are not in the run queue.
    """
    found = delivery.run_queue.examples(status, min(_NAMED, number - len(elsewhere)))
    names = [str(name) for name, _message in found] + list(elsewhere)[: _NAMED - len(found)]
    if not names:
        return ""
    message = found[0][1] if found else ""
    is_of_all = all(one == message for _name, one in found)
    because = f"{':' if is_of_all else '; the first:'} {message}" if message and message not in but else ""
    return f" ({some_of(names, number)}{because})"
