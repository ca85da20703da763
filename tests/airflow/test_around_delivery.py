"""What Airflow does around a task: retries, clears, backfills, other DAGs. Each order is created once anyway.

One scheduler runs the DAGs of `around_dags/around.py` all at once; each test looks at one of them.
"""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_kk.sandbox.server import SandboxServer
from tests.airflow.live import IS_AIRFLOW_3, LiveAirflow, live_airflow
from tests.airflow.support import REPOSITORY, AirflowHome
from tests.operators.shop import (
    Warehouse,
    each_is_there_once,
    ids_at_kk,
    ids_in_ledger,
    kk_connection,
    nonzero,
    number,
    rows,
)

pytestmark = pytest.mark.timeout(1_800)

#: An order in doubt is settled after seven seconds.
TIMES = {"timeout_s": 2, "lease_s": 4, "settle_window_s": 1}
#: Posts that take their time are not in doubt.
SLOW = {"timeout_s": 4, "lease_s": 8, "settle_window_s": 1}
#: Nothing is in doubt by itself, however busy this machine is.
SURE = {"timeout_s": 20, "lease_s": 40, "settle_window_s": 2}


@dataclass(frozen=True)
class Sending:
    """When a try has sent its first and its last order."""

    first: float
    last: float


@dataclass
class Shop:
    """A warehouse, which is the ledger too, and the KK it orders from."""

    sandbox: SandboxServer
    warehouse: Warehouse

    def creates(self) -> int:
        """How often KK was asked for an order."""
        return int(self.sandbox.control.counts()["creates"])

    def lose(self, n: int, fault: str = "drop_after_commit") -> None:
        """Lose one answer, or with `drop_before_commit` one request."""
        self.sandbox.control.arm(fault, number=number(n), times=1)

    def tries_that_sent(self) -> dict[int, Sending]:
        """By try number, when it sent."""
        told = self.warehouse.execute(
            "SELECT try_number, min(intent_at), max(intent_at) FROM kk_order_attempt GROUP BY 1"
        )
        return {try_number: Sending(first, last) for try_number, first, last in told}

    def a_retry_has_sent(self) -> bool:
        return len(self.tries_that_sent()) > 1

    def two_tries_sent_at_once(self) -> bool:
        tries = self.tries_that_sent()
        return tries[min(tries)].last > tries[max(tries)].first

    def summaries(self) -> list[dict[str, int]]:
        """The syncs' summaries, as the ledger has them, in the order of their beginning."""
        told = self.warehouse.execute("SELECT summary FROM kk_sync_run ORDER BY started_at")
        return [nonzero(json.loads(summary)) for (summary,) in told]

    def every_order_is_there_once(self, numbers: range | list[int]) -> None:
        """At KK with its own goods by one call, and in the ledger with KK's ids."""
        each_is_there_once(self.sandbox, numbers)
        assert ids_in_ledger(self.warehouse.path) == ids_at_kk(self.sandbox)


class Around:
    """The shops by name, and the Airflow that serves them."""

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        self.folder = folder
        self.stack = stack
        self.shops: dict[str, Shop] = {}
        self.connections: dict[str, Any] = {}
        self.live: LiveAirflow

    def open(self, name: str, orders: int, *, extra: dict[str, Any] = TIMES, **settings: Any) -> Shop:
        sandbox = self.stack.enter_context(SandboxServer(rate_limit=False, **settings))
        warehouse = Warehouse(self.folder / f"{name}.db")
        warehouse.add(*rows(range(orders)))
        shop = self.shops[name] = Shop(sandbox, warehouse)
        self.connections[f"kk_{name}"] = kk_connection(sandbox, **extra)
        self.connections[f"warehouse_{name}"] = warehouse.connection
        return shop

    def processes(self, dag_id: str) -> tuple[int, int]:
        """The processes of a task and of its supervisor, once it has begun."""
        told = self.folder / f"{dag_id}.process"
        self.live.until(told.exists)
        pid, parent = json.loads(told.read_text())
        return pid, parent

    def begin_to_send(self, dag_id: str) -> None:
        """Open the gate that the first try waits at, and wait until its first orders are on their way."""
        (self.folder / f"{dag_id}.open").touch()
        self.live.until(lambda: self.shops[dag_id].creates() >= 2)


@pytest.fixture(scope="module")
def around(postgres_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Around]:
    folder = tmp_path_factory.mktemp("around")
    with ExitStack() as stack:
        around = Around(folder, stack)
        best = around.open("best_effort", 0, extra=SURE, list_lag_s=0.5)
        best.sandbox.control.arm("stall_after_commit", number=number(1), times=1, seconds=60)
        for name in ("killed_supervisor", "frozen_supervisor"):
            around.open(name, 40, extra=SLOW, latency_s=1.5)
        # So many that it still sends when `airflow tasks clear` is through on a slow machine.
        around.open("cleared_while_sending", 300, extra=SLOW, latency_s=1.5)
        around.open("cleared", 5).lose(2)
        around.open("cleared_best_effort", 0, extra=SURE, list_lag_s=0.5)
        around.open("lagging", 0, extra=SURE, list_lag_s=3600)
        two = around.open("two_dags", 20, latency_s=0.3)
        two.lose(1)
        two.lose(3)
        two.lose(5, "drop_before_commit")
        around.open("xcom", 4).lose(2)
        shop = around.open("write_back", 4)
        shop.lose(1)
        warehouse_that_takes_no_results(shop.warehouse)
        backfilled = around.open("backfilled", 20, latency_s=0.3)
        backfilled.lose(2)
        backfilled.lose(4, "drop_before_commit")

        settings = {
            "AROUND_FOLDER": str(folder),
            "AIRFLOW__CORE__DAGS_FOLDER": str(Path(__file__).with_name("around_dags")),
            "AIRFLOW__CORE__XCOM_BACKEND": "tests.airflow.failing_xcom.FailingXCom",
            "PYTHONPATH": str(REPOSITORY),
        }
        home = AirflowHome(folder / "home", around.connections, env=settings)
        around.live = stack.enter_context(live_airflow(home, postgres_url))
        yield around


def warehouse_that_takes_no_results(warehouse: Warehouse) -> None:
    """Until somebody drops the trigger."""
    warehouse.execute("CREATE TABLE head AS SELECT DISTINCT custom_order_number AS no FROM order_line")
    warehouse.execute("ALTER TABLE head ADD COLUMN ids TEXT")
    warehouse.execute("ALTER TABLE head ADD COLUMN state TEXT")
    refuse = "BEGIN SELECT raise(ABORT, 'database or disk is full'); END"
    warehouse.execute(f"CREATE TRIGGER full BEFORE UPDATE ON head {refuse}")


def test_without_a_ledger_a_crash_right_after_the_post_is_recovered_by_the_retry(around: Around):
    shop, live = around.shops["best_effort"], around.live
    killed, _ = around.processes("best_effort")
    live.until(lambda: shop.creates() == 1)

    os.kill(killed, signal.SIGKILL)

    assert live.until_over("best_effort", tries=2) == ["success"], live.logs()
    assert shop.creates() == 1
    each_is_there_once(shop.sandbox, [1])


def test_a_try_that_runs_on_without_its_supervisor_and_its_retry_create_each_order_once(around: Around):
    live, shops = around.live, around.shops
    endings = {"killed_supervisor": signal.SIGKILL, "frozen_supervisor": signal.SIGSTOP}
    for dag_id, its_end in endings.items():
        _, supervisor = around.processes(dag_id)
        around.begin_to_send(dag_id)
        os.kill(supervisor, its_end)

    # The killed one's try may end by itself: a task of Airflow 3 cannot log without a supervisor.
    live.until(lambda: all(shops[dag_id].a_retry_has_sent() for dag_id in endings))
    live.until(shops["frozen_supervisor"].two_tries_sent_at_once)
    for dag_id in endings:
        shops[dag_id].sandbox.control.set(latency_s=0)

    for dag_id in endings:
        assert live.until_over(dag_id, tries=2) == ["success"], live.logs()
        print(f"{dag_id}: {shops[dag_id].tries_that_sent()}")
        assert shops[dag_id].creates() == 40
        shops[dag_id].every_order_is_there_once(range(40))


def test_a_task_that_is_cleared_while_it_sends_goes_on_in_its_next_try(around: Around):
    shop, live = around.shops["cleared_while_sending"], around.live
    around.processes("cleared_while_sending")
    around.begin_to_send("cleared_while_sending")

    live.home.cli("tasks", "clear", "--yes", "cleared_while_sending")

    live.until(shop.a_retry_has_sent)
    shop.sandbox.control.set(latency_s=0)
    assert live.until_over("cleared_while_sending", tries=2) == ["success"], live.logs()
    print(f"cleared_while_sending: {shop.tries_that_sent()}")
    assert shop.creates() == 300
    shop.every_order_is_there_once(range(300))


def test_a_cleared_run_resends_only_without_a_ledger_what_kk_lists_too_late(around: Around):
    live = around.live
    shop, listed, lagging = (around.shops[name] for name in ("cleared", "cleared_best_effort", "lagging"))
    assert live.until_over("cleared") == ["success"], live.logs()
    assert [one.creates() for one in (shop, listed)] == [6, 1]
    sent_unlisted = lagging.creates()
    before = ids_at_kk(shop.sandbox)

    live.home.cli("tasks", "clear", "--yes", "cleared")

    assert live.until_over("cleared", tries=2) == ["success"], live.logs()
    assert [one.creates() for one in (shop, listed)] == [6, 1]
    assert lagging.creates() > sent_unlisted
    assert ids_at_kk(shop.sandbox) == ids_in_ledger(shop.warehouse.path) == before
    assert shop.summaries()[-1].keys() <= {"already_created"}
    each_is_there_once(listed.sandbox, [1])
    assert lagging.sandbox.control.duplicates() == [number(1)]


def test_a_second_dag_over_the_same_rows_at_the_same_time(around: Around):
    shop, live = around.shops["two_dags"], around.live

    for dag_id in ("first_dag", "second_dag"):
        assert live.until_over(dag_id) == ["success"], live.logs()

    assert shop.sandbox.control.counts()["faults"] == {"drop_after_commit": 2, "drop_before_commit": 1}
    # The request that was lost is sent once more.
    assert shop.creates() == 20 + 1
    shop.every_order_is_there_once(range(20))
    sent_by = "SELECT dag_id, task_id, count(*) FROM kk_order_attempt GROUP BY 1, 2 ORDER BY 1, 2"
    origins = shop.warehouse.execute(sent_by)
    print(f"sent by {origins}")
    assert {dag_id for dag_id, _, _ in origins} == {"first_dag", "second_dag"}, "they did not run at once"


def test_a_failed_xcom_push_costs_a_retry_and_no_order(around: Around):
    shop, live = around.shops["xcom"], around.live

    assert live.until_over("failed_xcom_push", tries=2) == ["success"], live.logs()

    assert all((around.folder / f"xcom_of_{task}_failed").exists() for task in ("sync", "create"))
    assert shop.creates() == 5
    shop.every_order_is_there_once([*range(4), 100])
    ((summary,),) = shop.warehouse.execute("SELECT summary FROM kk_sync_run WHERE task_id = 'sync'")
    counts = nonzero(json.loads(summary))
    assert counts["created"] + counts["adopted"] == 4


def test_a_failed_write_back_costs_a_retry_and_no_order(around: Around):
    shop, live = around.shops["write_back"], around.live

    assert live.until_over("failed_write_back", tries=2) == ["success"], live.logs()

    assert shop.warehouse.execute("SELECT * FROM sqlite_master WHERE type = 'trigger'") == []
    assert shop.creates() == 4
    shop.every_order_is_there_once(range(4))
    written = shop.warehouse.execute("SELECT no, ids, state FROM head")
    assert {no: sorted(ids.split(",")) for no, ids, _ in written} == ids_at_kk(shop.sandbox)
    assert {state for _, _, state in written} == {"created"}


def test_a_backfill_over_the_same_rows_creates_each_order_once(around: Around):
    shop, live = around.shops["backfilled"], around.live
    live.until(lambda: live.the_dag_is_known("backfilled"))

    begin, end = "2026-01-01", "2026-01-03"
    if IS_AIRFLOW_3:
        live.home.cli("backfill", "create", "--dag-id", "backfilled", "--from-date", begin, "--to-date", end)
    else:
        live.home.cli("dags", "backfill", "-s", begin, "-e", end, "--yes", "backfilled")

    assert live.until_over("backfilled", runs=3) == ["success"] * 3, live.logs()
    assert shop.creates() == 20 + 1
    shop.every_order_is_there_once(range(20))
    runs = shop.warehouse.execute("SELECT DISTINCT run_id FROM kk_order_attempt")
    print(f"sent by {runs}, {shop.summaries()}")
    assert len(shop.summaries()) == 3
    assert len(runs) > 1, "they did not run at once"
