"""Memory and CPU of a plan over a table of ten thousand rows and over one of a million."""

from __future__ import annotations

import json
import resource
import sqlite3
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

from benchmarks.places import TOKEN, ready, run_child, tell
from benchmarks.table import Row
from tests.airflow.support import AirflowHome
from tests.operators.shop import COLUMNS, SELECT, SKUS, address

FEW, MANY = 10_000, 1_000_000


def rows(*, is_long: bool) -> Iterator[Row]:
    with tempfile.TemporaryDirectory() as folder:
        home = AirflowHome.create(Path(folder) / "home")
        few, many = (_plan(number, home, Path(folder)) for number in (FEW, MANY))
    yield Row(
        f"peak memory of a plan over {MANY:,} rows",
        f"{many['peak_mb']:.0f} MB",
        f"the same over {FEW:,} rows",
        f"{few['peak_mb']:.0f} MB",
        f"{many['peak_mb'] - few['peak_mb']:+.0f} MB",
        "at most +50 MB",
    )
    yield Row(
        f"CPU of that plan, a thousand rows of {MANY:,}",
        f"{many['cpu_s'] * 1000 / MANY:.3f} s",
        f"the same of {FEW:,}",
        f"{few['cpu_s'] * 1000 / FEW:.3f} s",
        f"{many['cpu_s'] / MANY / (few['cpu_s'] / FEW):.2f}",
        "flat",
    )


def _plan(number: int, home: AirflowHome, folder: Path) -> dict[str, Any]:
    home.connections = connections(folder, str(number))
    return run_child("memory", {"rows": number, "file": str(folder / f"{number}.db")}, env=home.environment())


def connections(folder: Path, name: str, url: str = "http://127.0.0.1:9") -> dict[str, Any]:
    extra = {"rate_limit_burst": 1_000_000, "rate_limit_per_second": 100_000, "sale_platform": "bench"}
    return {
        "kk_default": {"conn_type": "kk", "host": url, "password": TOKEN, "extra": extra},
        "warehouse": {"conn_type": "sqlite", "host": str(folder / f"{name}.db")},
        "ledger": {"conn_type": "sqlite", "host": str(folder / f"{name}-ledger.db")},
    }


def fill(file: str, number: int) -> None:
    """Make a warehouse of so many rows, each an order."""
    with closing(sqlite3.connect(file)) as db, db:
        db.execute(f"CREATE TABLE order_line ({', '.join(COLUMNS)})")
        marks = ", ".join("?" * (len(COLUMNS) - 1))
        db.execute(
            "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ?)"
            f" INSERT INTO order_line SELECT 'n-' || i, {marks} FROM n",
            (number, *address(1).values(), SKUS[0], 1),
        )


def main() -> None:
    from airflow_provider_kk.operators.orders import SyncOrdersOperator

    task: dict[str, Any] = json.loads(sys.argv[1])
    fill(task["file"], task["rows"])
    operator = SyncOrdersOperator(
        task_id="plan",
        warehouse_conn_id="warehouse",
        ledger_conn_id="ledger",
        sql=SELECT,
        plan_only=True,
        max_new_orders=None,
    )
    ready()
    cpu = time.process_time()
    summary = operator.execute({})
    assert summary["postponed"] == task["rows"], summary
    peak_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    tell(peak_mb=peak_kib / 1024, cpu_s=time.process_time() - cpu)


if __name__ == "__main__":
    main()
