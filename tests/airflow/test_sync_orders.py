"""Real DAG runs: a warehouse's orders are at KK afterwards, once, whatever breaks on the way."""

from __future__ import annotations

import random
import secrets
import time
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import pytest

from airflow_provider_kk.operators.orders import SyncOrdersOperator
from airflow_provider_kk.sandbox.faults import mixed_kinds
from tests.operators.shop import (
    QUICK,
    SELECT,
    each_is_there_once,
    ids_at_kk,
    ids_in_ledger,
    nonzero,
    number,
    rows,
)

if TYPE_CHECKING:
    from tests.airflow.conftest import Shop
    from tests.airflow.support import DagRunResult

MAX_RUNS = 4


def creates(shop: Shop) -> int:
    return int(shop.sandbox.control.counts()["creates"])


def run_until_done(shop: Shop, dag: str) -> list[DagRunResult]:
    """As a schedule does: run after run, until one has nothing left to do."""
    results = []
    while not results or results[-1].state != "success":
        assert len(results) < MAX_RUNS, results[-1].log
        results.append(shop.run(dag))
    return results


def test_two_runs_over_the_same_40_orders_make_no_duplicate(shop: Shop):
    shop.warehouse.add(*rows(range(40)))
    dag = shop.dag(write_back="outcome")

    first = shop.run(dag)
    assert creates(shop) == 40
    second = shop.run(dag)
    assert creates(shop) == 40

    assert (first.state, second.state) == ("success", "success"), first.log + second.log
    summaries = [run.xcoms["sync"]["return_value"] for run in (first, second)]
    assert [summary["selected"] for summary in summaries] == [40, 40]
    assert [nonzero(summary) for summary in summaries] == [{"created": 40}, {"already_created": 40}]
    each_is_there_once(shop.sandbox, range(40))
    written = shop.warehouse.execute("SELECT custom_order_number, kk_order_ids FROM outcome")
    assert {key: sorted(ids.split(",")) for key, ids in written} == ids_at_kk(shop.sandbox)
    assert ids_in_ledger(shop.warehouse.path) == ids_at_kk(shop.sandbox)


@pytest.mark.timeout(1_800)
def test_with_half_of_all_posts_failing_there_is_no_duplicate_and_no_loss(shop: Shop):
    shop.connect(**QUICK | {"timeout_s": 0.6, "lease_s": 1.2, "settle_window_s": 0.5})
    shop.warehouse.add(*rows(range(45)))
    # Drawn by this seed, each way to fail comes up among the first 50 requests.
    shop.sandbox.control.random_faults(0.5, seed=149, retry_after_s=0.3)
    # A request can be lost more than once here; whoever leaves `max_resends` at 1 has such an order held.
    dag = shop.dag(retries=15, max_resends=20)

    runs = run_until_done(shop, dag)

    counts = shop.sandbox.control.counts()
    tries = shop.warehouse.execute("SELECT sum(try_number) FROM kk_sync_run")[0][0]
    print(f"{len(runs)} runs, {tries} tries, {counts['creates']} creates, faults: {counts['faults']}")
    assert counts["faults"].keys() == set(mixed_kinds())
    assert sum(counts["faults"].values()) >= 0.4 * counts["creates"]
    each_is_there_once(shop.sandbox, range(45))
    assert ids_in_ledger(shop.warehouse.path) == ids_at_kk(shop.sandbox)
    done = nonzero(runs[-1].xcoms["sync"]["return_value"])
    assert sum(done.values()) == 45
    assert done.keys() <= {"created", "adopted", "already_created"}


@pytest.mark.timeout(1_800)
def test_ten_crashes_lose_no_order_and_make_no_duplicate(shop: Shop):
    shop.connect(**QUICK | {"rate_limit_burst": 6, "rate_limit_per_second": 10})
    shop.warehouse.add(*rows(range(120)))
    shop.sandbox.control.set(latency_s=0.4)
    dag = shop.dag(max_in_flight=3)
    moments = random.Random(10)

    # Each starts while the one before still runs: what takes long is Airflow's own start.
    waiting = [shop.start(dag) for _ in range(2)]
    for kill in range(10):
        killed = waiting.pop(0)
        killed.wait_until_there()
        if kill < 8:
            waiting.append(shop.start(dag))
        sent_before = creates(shop)
        killed.open()
        # Two of three are killed while they send, the others at any moment before or meanwhile.
        while kill % 3 and creates(shop) == sent_before and killed.run.process.poll() is None:
            time.sleep(0.01)
        time.sleep(moments.uniform(0, 1))
        assert killed.run.process.poll() is None, killed.run.log()
        killed.run.kill()
    sent_by_killed = creates(shop)
    shop.connect(**QUICK)
    shop.sandbox.control.set(latency_s=0)
    runs = run_until_done(shop, dag)

    summary = runs[-1].xcoms["sync"]["return_value"]
    print(
        f"{sent_by_killed} creates by killed runs, {creates(shop)} in all, {len(runs)} runs after: {summary}"
    )
    assert 0 < sent_by_killed < 120
    each_is_there_once(shop.sandbox, range(120))
    assert ids_in_ledger(shop.warehouse.path) == ids_at_kk(shop.sandbox)


@pytest.mark.timeout(1_800)
def test_three_concurrent_runs_over_the_same_rows_make_no_duplicate(shop: Shop, postgres_url: str):
    """For each kind of ledger 50 orders of their own, so that the three need to start but once."""
    shop.warehouse.add(*rows(range(100)))
    shop.home.connections["sqlite"] = {"conn_type": "sqlite", "host": str(shop.path / "ledger.db")}
    shop.home.connections["postgres"] = own_database(postgres_url)
    tasks = {
        ledger: {
            "sql": f"{SELECT} WHERE custom_order_number BETWEEN '{number(first)}' AND '{number(first + 49)}'",
            "ledger_conn_id": ledger,
            "max_in_flight": 2,
        }
        for first, ledger in ((0, "sqlite"), (50, "postgres"))
    }
    # Some the ledger knows already, as not sent: the three take them over rather than insert them.
    shop.sandbox.control.arm("auth")
    for ledger, arguments in tasks.items():
        task = SyncOrdersOperator(task_id=ledger, warehouse_conn_id="warehouse", **arguments)
        refused = shop.attempt(task, run_id="refused")
        assert nonzero(refused.summary) == {"not_sent": 50}
    shop.sandbox.control.disarm()
    shop.sandbox.control.set(latency_s=0.3)

    refused_creates = creates(shop)

    three = [shop.start(shop.dag(tasks=tasks)) for _ in range(3)]
    for ledger in tasks:
        for one in three:
            one.wait_until_there(ledger)
        for one in three:
            one.open(ledger)
    results = [one.run.wait() for one in three]

    assert [result.state for result in results] == ["success"] * 3, "\n".join(r.log for r in results)
    for ledger in tasks:
        found = [nonzero(result.xcoms[ledger]["return_value"]) for result in results]
        print(f"{ledger}: {found}")
        assert [sum(counts.values()) for counts in found] == [50] * 3
        assert sum(counts.get("created", 0) for counts in found) == 50
        assert sum(1 for counts in found if counts.get("created")) > 1, "they did not run at once"
    assert creates(shop) - refused_creates == 100
    each_is_there_once(shop.sandbox, range(100))


def own_database(postgres_url: str) -> dict[str, Any]:
    """A connection to a new database on PostgreSQL."""
    import sqlalchemy as sa

    database = f"ledger_{secrets.token_hex(4)}"
    engine = sa.create_engine(postgres_url, isolation_level="AUTOCOMMIT")
    with engine.connect() as db:
        db.execute(sa.text(f"CREATE DATABASE {database}"))
    engine.dispose()
    server = urlsplit(postgres_url)
    return {
        "conn_type": "postgres",
        "host": server.hostname,
        "port": server.port,
        "login": server.username,
        "schema": database,
    }
