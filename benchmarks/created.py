"""What a run over orders costs that were all created before, beside reading and validating them alone."""

from __future__ import annotations

import json
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.memory import connections, fill
from benchmarks.places import kk, ready, run_child, tell
from benchmarks.table import Row
from tests.airflow.support import AirflowHome
from tests.operators.shop import SELECT

ORDERS = 20_000


def rows(*, is_long: bool) -> Iterator[Row]:
    with tempfile.TemporaryDirectory() as folder, kk(rate_limit=False) as control:
        home = AirflowHome.create(Path(folder) / "home")
        home.connections = connections(Path(folder), "created", control.url)
        told = run_child("created", {"file": f"{folder}/created.db"}, env=home.environment())
    yield Row(
        f"CPU of a sync over {ORDERS:,} orders that are created already, a thousand of them",
        f"{told['sync_s'] * 1000 / ORDERS:.3f} s",
        "`read_rows` and `parse_orders` alone, in the same process",
        f"{told['alone_s'] * 1000 / ORDERS:.3f} s",
        f"{told['sync_s'] / told['alone_s']:.2f}",
        "at most 2",
    )


def main() -> None:
    from airflow.providers.common.compat.sdk import BaseHook

    from airflow_provider_kk.delivery.model import BLANK
    from airflow_provider_kk.delivery.states import State
    from airflow_provider_kk.hooks.kk import KKHook
    from airflow_provider_kk.hooks.ledger_connection import open_ledger
    from airflow_provider_kk.operators.orders import SyncOrdersOperator
    from airflow_provider_kk.sync.deliver import item_of
    from airflow_provider_kk.warehouse.map import parse_orders
    from airflow_provider_kk.warehouse.query_rows import read_rows

    task: dict[str, Any] = json.loads(sys.argv[1])
    fill(task["file"], ORDERS)
    warehouse: Any = BaseHook.get_hook("warehouse")

    def read_alone() -> list[Any]:
        with read_rows(warehouse, SELECT) as spool:
            return [candidate.order for candidate in parse_orders(spool)]

    ledger = open_ledger(KKHook(), "ledger")

    def add_all(tx: Any) -> None:
        for order in read_alone():
            item = item_of(0, order)
            values = {**BLANK, "state": State.CREATED, "kk_order_ids": ("1",), "version": "x"}
            values |= {"content": item.content}
            tx.add(str(item.key), 1, values | {"adopted": True, "created_at": 1.0, "updated_at": 1.0})

    ledger.storage.transact(add_all)
    ledger.close()
    operator = SyncOrdersOperator(
        task_id="sync",
        warehouse_conn_id="warehouse",
        ledger_conn_id="ledger",
        sql=SELECT,
        max_new_orders=None,
    )
    ready()
    alone_s = min(_cpu_s(read_alone) for _ in range(2))
    sync_s = min(_cpu_s(lambda: operator.execute({})) for _ in range(2))
    assert operator.execute({})["already_created"] == ORDERS
    tell(alone_s=alone_s, sync_s=sync_s)


def _cpu_s(work: Any) -> float:
    cpu = time.process_time()
    work()
    return time.process_time() - cpu


if __name__ == "__main__":
    main()
