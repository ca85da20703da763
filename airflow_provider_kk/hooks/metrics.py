"""Emit Airflow metrics (StatsD, Datadog or OpenTelemetry) from operators; nothing where they are off.

They are counters, so those of several tasks add up. Each order that moves is counted once, despite retries.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import conf

if TYPE_CHECKING:
    from airflow_provider_kk.api.client import KKClient
    from airflow_provider_kk.delivery.model import Origin, Record
    from airflow_provider_kk.delivery.sql.bucket import LedgerBucket
    from airflow_provider_kk.delivery.sql.storage import SqlLedger

#: The summary's counts of what happens to an order once, and their metrics.
_MOVED = {
    "created": "created",
    "adopted": "adopted",
    "newly_rejected": "rejected",
    "newly_invalid": "invalid",
    "newly_held": "held",
}
#: The summary's counts of how a try has ended.
_LEFT = ("changed", "in_doubt", "not_sent", "postponed")

Tags = Mapping[str, str]


def tags_of(account: str, origin: Origin) -> dict[str, str]:
    """Return the tags of one task's metrics."""
    return {"account": account, "dag_id": origin.dag_id, "task_id": origin.task_id}


def count_orders_moved(
    before: Mapping[str, Any], now: Mapping[str, Any], tags: Tags, *, is_over: bool
) -> None:
    """Count what became of a sync's orders since its earlier summary.

    :param is_over: the try has ended. The result of a deferred one is not known yet.
    """
    counts = {name: now[count] - before.get(count, 0) for count, name in _MOVED.items()}
    if is_over:
        counts |= {name: now[name] for name in _LEFT}
    _count("orders", counts, tags)


def count_refunds_moved(entries: Iterable[Record], since: float, tags: Tags) -> None:
    """Count what became of the refunds that moved since then, epoch seconds of the ledger."""
    _count("refunds", Counter(one.state.value for one in entries if one.updated_at >= since), tags)


def count_statuses(orders: int, changed: int, tags: Tags) -> None:
    """Count the orders that were read from KK, and those of them that had changed."""
    _count("statuses", {"read": orders, "changed": changed}, tags)


def count_requests(client: KKClient, bucket: LedgerBucket, tags: Tags) -> None:
    """Count the requests to KK and its 429s, and time how long threads waited for the rate limit."""
    _count("requests", {"sent": client.requests, "rate_limited": bucket.rate_limited}, tags)
    wait = timedelta(seconds=bucket.waited_s)
    _where_on(lambda stats: stats.timing("kk.bucket.wait", wait, tags=dict(tags)))


def gauge_account(ledger: SqlLedger, tags: Tags) -> None:
    """Report as gauges how many orders of the whole account are held, and how many in doubt."""

    def emit(stats: Any) -> None:
        from airflow_provider_kk.delivery.sql.report import Report
        from airflow_provider_kk.delivery.states import State

        of_account = {"account": tags["account"]}
        held = Report(ledger.storage).count([State.HELD]).get(State.HELD, 0)
        stats.gauge("kk.ledger.held", held, tags=of_account)
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
