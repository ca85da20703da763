"""Orders a second and requests with the guards off, on, with prices and with a daily cap, in one process."""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from airflow_provider_kk.sandbox.control import SandboxControl
from benchmarks.memory import connections
from benchmarks.places import databases, kk, ready, run_child, tell
from benchmarks.table import Row
from tests.airflow.support import AirflowHome
from tests.operators.shop import SELECT, SKUS, Warehouse, address

ORDERS = 300
IN_FLIGHT = 24
#: Each is measured so often, in turn, and its best time counts.
ROUNDS = 2
_OFF = {"max_new_orders": None, "max_order_units": None}
_ON = {"max_new_orders": ORDERS, "max_order_units": 100}
#: Arguments of the operator, and extras of the connection.
MODES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "guards off": (_OFF, {}),
    "guards on": (_ON, {}),
    "guards on, with prices": ({**_ON, "max_order_value": 10_000, "max_run_value": 1_000_000}, {}),
    "max_orders_per_day": (_OFF, {"max_orders_per_day": 1_000_000}),
}


def rows(*, is_long: bool) -> Iterator[Row]:
    with tempfile.TemporaryDirectory() as folder, databases() as urls:
        home = AirflowHome.create(Path(folder) / "home")
        for kind, url in urls.items():
            with kk(latency_s=0.02, rate_limit=False) as control:
                home.connections = connections(Path(folder), kind, control.url)
                if kind == "postgresql":
                    home.connections["ledger"] = url.replace("postgresql://", "postgres://")
                task = {"file": f"{folder}/{kind}.db", "url": control.url}
                told = run_child("guards", task, env=home.environment())
            off = told["guards off"]
            for mode in list(MODES)[1:]:
                yield _row(kind, mode, told[mode], off)


def _row(kind: str, mode: str, run: dict[str, float], off: dict[str, float]) -> Row:
    more = run["requests"] - off["requests"]
    return Row(
        f"orders a second, {ORDERS} orders, {mode}, ledger in {kind}",
        f"{ORDERS / run['seconds']:.0f}; {more:+d} requests",
        "guards off, in the same process",
        f"{ORDERS / off['seconds']:.0f}",
        f"{off['seconds'] / run['seconds']:.2f}",
        "no request more" if "prices" not in mode else "a request for 30 SKUs more",
    )


def _requests(control: SandboxControl) -> int:
    """Count all but the pages of KK's list, which grows from run to run."""
    return sum(one["method"] == "POST" or "product" in one["path"] for one in control.requests())


def main() -> None:
    from airflow_provider_kk.operators.orders import SyncOrdersOperator

    task: dict[str, Any] = json.loads(sys.argv[1])
    control = SandboxControl(task["url"])
    plain = json.loads(os.environ["AIRFLOW_CONN_KK_DEFAULT"])
    warehouse = Warehouse(Path(task["file"]))
    found: dict[str, dict[str, float]] = {}

    def run(name: str, mode: str) -> None:
        arguments, extra = MODES[mode]
        warehouse.add(*((f"{name}-{n}", *address(1).values(), SKUS[0], 1) for n in range(ORDERS)))
        os.environ["AIRFLOW_CONN_KK_DEFAULT"] = json.dumps({**plain, "extra": {**plain["extra"], **extra}})
        operator = SyncOrdersOperator(
            task_id="sync",
            warehouse_conn_id="warehouse",
            ledger_conn_id="ledger",
            sql=f"{SELECT} WHERE custom_order_number LIKE '{name}-%'",
            max_in_flight=IN_FLIGHT,
            **arguments,
        )
        before, began = _requests(control), time.monotonic()
        summary = operator.execute({})
        seconds = time.monotonic() - began
        assert summary["created"] == ORDERS, summary
        requests = _requests(control) - before
        best = found.get(mode, {"seconds": seconds})["seconds"]
        found[mode] = {"seconds": min(seconds, best), "requests": requests}

    ready()
    run("warm", "guards off")  # makes the ledger's tables
    found.clear()
    for number in range(ROUNDS):
        for place, mode in enumerate(MODES):
            run(f"r{number}m{place}", mode)
    tell(**found)


if __name__ == "__main__":
    main()
