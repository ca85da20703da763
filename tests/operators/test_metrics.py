"""What operators tell Airflow's metrics: each order once, whatever is retried, deferred or selected again."""

from __future__ import annotations

import time
from collections import Counter
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest
from airflow.providers.common.compat import sdk
from airflow.providers.common.compat.sdk import AirflowFailException, TaskDeferred

from airflow_provider_kk.operators.orders import SyncOrdersOperator
from airflow_provider_kk.operators.refunds import RefundOrderOperator
from airflow_provider_kk.operators.status import SyncOrderStatusOperator
from tests.operators.shop import QUICK, SELECT, SKUS, attempt, goods, number, rows

if TYPE_CHECKING:
    from airflow_provider_kk.sandbox.server import SandboxServer
    from tests.operators.conftest import Connect
    from tests.operators.shop import Try, Warehouse


class Stats:
    """Airflow's metrics as one sees them behind StatsD: counters that are added up, gauges, timings."""

    def __init__(self) -> None:
        self.counters: Counter[str] = Counter()
        self.gauges: dict[str, float] = {}
        self.waited_s: list[float] = []
        self.tags: list[dict[str, str]] = []

    def incr(self, name: str, count: int, *, tags: dict[str, str]) -> None:
        self.counters[name.removeprefix("kk.")] += count
        self.tags.append(tags)

    def gauge(self, name: str, value: float, *, tags: dict[str, str]) -> None:
        assert tags == {"account": "default"}
        self.gauges[name] = value

    def timing(self, name: str, dt: timedelta, *, tags: dict[str, str]) -> None:
        assert name == "kk.bucket.wait"
        self.waited_s.append(dt.total_seconds())

    def of(self, group: str) -> dict[str, int]:
        """The counters of a group."""
        return {
            name.removeprefix(f"{group}."): count
            for name, count in self.counters.items()
            if name.startswith(f"{group}.")
        }


@pytest.fixture
def stats(monkeypatch: pytest.MonkeyPatch) -> Stats:
    monkeypatch.setenv("AIRFLOW__METRICS__STATSD_ON", "True")
    stats = Stats()
    monkeypatch.setattr(sdk, "Stats", stats, raising=False)
    return stats


def sync(run_id: str = "manual__1", try_number: int = 1, method: str = "execute", **arguments: Any) -> Try:
    operator = SyncOrdersOperator(
        **{
            "task_id": "sync",
            "sql": SELECT,
            "warehouse_conn_id": "warehouse",
            "deferrable": False,
            **arguments,
        }
    )
    return attempt(operator, run_id=run_id, try_number=try_number, method=method)


def test_each_order_is_counted_once_over_retries_and_runs(
    stats: Stats, connect: Connect, warehouse: Warehouse, sandbox: SandboxServer
):
    connect(**QUICK)
    warehouse.add(*rows(range(6)))
    warehouse.execute(f"UPDATE order_line SET country = 'Nowhere' WHERE custom_order_number = '{number(0)}'")
    warehouse.execute(f"UPDATE order_line SET sku = 'NO_SUCH' WHERE custom_order_number = '{number(1)}'")
    sandbox.control.arm("rate_limit", number=number(2), times=1, retry_after_s=0.1)

    tries = [sync(), sync(try_number=2), sync("manual__2")]

    assert [type(one.error).__name__ for one in tries] == ["AirflowFailException"] * 2 + ["NoneType"]
    assert tries[2].summary["rejected"] == 1  # it is still selected
    assert stats.of("orders") == {"invalid": 1, "rejected": 1, "created": 4}
    assert stats.gauges == {"kk.ledger.held": 0, "kk.ledger.in_doubt": 0}
    assert stats.of("requests") == {"sent": len(sandbox.control.requests()), "rate_limited": 1}
    assert len(stats.waited_s) == 3
    assert {tuple(one.values()) for one in stats.tags} == {("default", "shop", "sync")}


def test_a_deferred_sync_counts_its_orders_once(
    stats: Stats, connect: Connect, warehouse: Warehouse, sandbox: SandboxServer
):
    warehouse.add(*rows(range(3)))
    sandbox.control.arm("drop_after_commit", number=number(2), times=1)

    deferred = sync(deferrable=True)
    assert isinstance(deferred.error, TaskDeferred)
    assert stats.of("orders") == {"created": 2}
    warehouse.end_settle_windows()
    resumed = sync(deferrable=True, method="resume")

    assert resumed.error is None
    assert stats.of("orders") == {"created": 2, "adopted": 1}


def test_an_order_held_before_a_deferral_is_counted_once_and_fails_the_sync(
    stats: Stats, connect: Connect, warehouse: Warehouse, sandbox: SandboxServer
):
    warehouse.add(*rows(range(3)))
    for n in (0, 1):
        sandbox.control.arm("drop_after_commit", number=number(n), times=1)
    of_another = f"{SELECT} WHERE custom_order_number = '{number(0)}'"
    assert isinstance(sync(run_id="another", sql=of_another, deferrable=True).error, TaskDeferred)
    warehouse.end_settle_windows()
    sandbox.control.place(goods(0), number=number(0))  # more than was sent: a conflict
    time.sleep(2)  # KK's clock has whole seconds

    mine = {"sql": f"{SELECT} WHERE custom_order_number > '{number(0)}'", "deferrable": True}
    deferred = sync(**mine)
    assert isinstance(deferred.error, TaskDeferred)
    assert stats.of("orders") == {"created": 1, "held": 1}
    warehouse.end_settle_windows()
    resumed = sync(**mine, method="resume")

    assert isinstance(resumed.error, AirflowFailException)
    assert "1 order newly held" in str(resumed.error)
    assert (resumed.summary["newly_held"], resumed.summary["held"]) == (1, 0)
    assert stats.of("orders") == {"created": 1, "adopted": 1, "held": 1}


def test_each_try_counts_what_it_leaves_undone(
    stats: Stats, connect: Connect, warehouse: Warehouse, sandbox: SandboxServer
):
    warehouse.add(*rows(range(3)))
    sandbox.control.arm("auth")

    sync()
    sync(try_number=2)

    assert stats.of("orders") == {"not_sent": 6}


def test_refunds_and_statuses_are_counted_too(
    stats: Stats, connect: Connect, warehouse: Warehouse, sandbox: SandboxServer
):
    (kk_order_id,) = sandbox.control.place({SKUS[0]: 3}, age_s=3600)
    sandbox.control.place({SKUS[0]: 3}, age_s=3600)
    refund = RefundOrderOperator(task_id="refund", kk_order_id=kk_order_id, ledger_conn_id="warehouse")
    status = SyncOrderStatusOperator(task_id="status", warehouse_conn_id="warehouse")

    tries = [attempt(refund), attempt(refund, try_number=2), attempt(status), attempt(status)]

    assert [one.error for one in tries] == [None] * 4
    assert stats.of("refunds") == {"created": 1}
    assert stats.of("statuses") == {"read": 1, "changed": 1}
    assert stats.of("requests") == {"sent": len(sandbox.control.requests())}


def test_metrics_cost_nothing_while_they_are_off(
    stats: Stats, connect: Connect, warehouse: Warehouse, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.delenv("AIRFLOW__METRICS__STATSD_ON")
    warehouse.add(*rows(range(3)))

    assert sync().error is None

    assert (stats.counters, stats.gauges, stats.waited_s) == (Counter(), {}, [])
