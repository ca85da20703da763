"""Whether a sync's task succeeds, and what it says when it does not."""

from __future__ import annotations

from typing import TYPE_CHECKING

from airflow.providers.common.compat.sdk import AirflowException, AirflowFailException

from airflow_provider_kk.delivery.board import Status
from airflow_provider_kk.delivery.log import orders

if TYPE_CHECKING:
    from airflow_provider_kk.delivery.runs import Summary
    from airflow_provider_kk.operators.run import Delivery


def verdict(
    delivery: Delivery, summary: Summary, *, max_rejected: float, changes_fail: bool
) -> AirflowException | None:
    """Return what the task is to fail with: AirflowException when a retry helps; None when all is well."""
    if summary.in_doubt or summary.not_sent:
        why = f", because {delivery.halted}" if delivery.halted else ""
        told = f"{orders(summary.in_doubt)} in doubt{_examples(delivery, Status.IN_DOUBT)}, "
        told += f"{orders(summary.not_sent)} not sent{why}"
        return AirflowException(f"{told}. A retry goes on where this try stopped")
    bad = summary.newly_rejected + summary.newly_invalid
    is_share = isinstance(max_rejected, float) and max_rejected < 1
    allowed = max_rejected * summary.selected if is_share else max_rejected
    reasons = []
    if summary.newly_held:
        where = _examples(delivery, Status.HELD)
        reasons.append(
            f"{orders(summary.newly_held)} newly held for a human{where}: see `kk ledger list --state held`"
        )
    if changes_fail and summary.changed:
        where = _examples(delivery, Status.CHANGED)
        reasons.append(f"{orders(summary.changed)} changed after creation under the same number{where}")
    if bad > allowed:
        reasons.append(
            f"{orders(bad)} newly rejected or invalid, more than max_rejected={max_rejected} allows"
        )
    if not reasons:
        return None
    return AirflowFailException(
        f"{'; '.join(reasons)}. The others were delivered; the summary's rejections and the log say more"
    )


def _examples(delivery: Delivery, status: Status) -> str:
    """Name some orders, and say of the first what is the matter."""
    found = delivery.board.examples(status)
    if not found:
        return ""
    _, message = found[0]
    numbers = ", ".join(str(name) for name, _message in found)
    return f" ({numbers}: {message})" if message else f" ({numbers})"
