"""What operators tell Airflow's metrics: StatsD, Datadog or OpenTelemetry. Nothing, where they are off.

Counters, so that what several tasks tell adds up: each order that moves is told once, whatever is retried.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import conf

if TYPE_CHECKING:
    from airflow_provider_kk.api.client import KKClient
    from airflow_provider_kk.delivery.model import Origin, Record
    from airflow_provider_kk.delivery.sql.bucket import LedgerBucket
    from airflow_provider_kk.delivery.sql.storage import SqlLedger

#: Metrics of what an order comes to once in a sync, by the summary's counts.
_MOVED = {
    "created": "created",
    "adopted": "adopted",
    "newly_rejected": "rejected",
    "newly_invalid": "invalid",
    "newly_held": "held",
}
#: Counts of the summary that tell how a try has ended.
_LEFT = ("changed", "in_doubt", "not_sent", "postponed")

Tags = Mapping[str, str]


def tags_of(account: str, origin: Origin) -> dict[str, str]:
    """Return the tags of one task's metrics."""
    return {"account": account, "dag_id": origin.dag_id, "task_id": origin.task_id}


def count_orders_moved(
    before: Mapping[str, Any], now: Mapping[str, Any], tags: Tags, *, is_over: bool
) -> None:
    """Tell what became of a sync's orders since its earlier summary.

    :param is_over: the try has ended; a deferred one goes on, and what it leaves is not known yet.
    """
    counts = {name: now[count] - before.get(count, 0) for count, name in _MOVED.items()}
    if is_over:
        counts |= {name: now[name] for name in _LEFT}
    _count("orders", counts, tags)


def count_refunds_moved(entries: Iterable[Record], since: float, tags: Tags) -> None:
    """Tell what became of the refunds that have moved since then, epoch seconds of the ledger."""
    counts: dict[str, int] = {}
    for entry in entries:
        if entry.updated_at >= since:
            counts[entry.state.value] = counts.get(entry.state.value, 0) + 1
    _count("refunds", counts, tags)


def count_statuses(orders: int, changed: int, tags: Tags) -> None:
    """Tell how many orders were read from KK, and how many of them had changed."""
    _count("statuses", {"read": orders, "changed": changed}, tags)


def count_requests(client: KKClient, bucket: LedgerBucket, tags: Tags) -> None:
    """Tell how often KK was asked, how often it answered 429, and how long threads waited for their turns."""

    def emit(stats: Any) -> None:
        stats.timing("kk.bucket.wait", timedelta(seconds=bucket.waited_s), tags=dict(tags))

    _count("requests", {"sent": client.requests, "rate_limited": bucket.rate_limited}, tags)
    _where_on(emit)


def gauge_account(ledger: SqlLedger, tags: Tags) -> None:
    """Tell how many orders of the whole account are held, and how many in doubt, by now."""

    def emit(stats: Any) -> None:
        from airflow_provider_kk.delivery.sql.report import Report
        from airflow_provider_kk.delivery.states import State

        of_account = {"account": tags["account"]}
        stats.gauge(
            "kk.ledger.held", Report(ledger.storage).count([State.HELD]).get(State.HELD, 0), tags=of_account
        )
        stats.gauge("kk.ledger.in_doubt", len(ledger.doubts()), tags=of_account)

    _where_on(emit)


def _count(group: str, counts: Mapping[str, int], tags: Tags) -> None:
    def emit(stats: Any) -> None:
        for name, number in counts.items():
            if number > 0:
                stats.incr(f"kk.{group}.{name}", number, tags=dict(tags))

    _where_on(emit)


def _where_on(emit: Callable[[Any], None]) -> None:
    switches = ("statsd_on", "statsd_datadog_enabled", "otel_on")
    if any(conf.getboolean("metrics", name, fallback=False) for name in switches):
        from airflow.providers.common.compat.sdk import Stats

        emit(Stats)
